"""A self-hosted LLM agent server on Trio.

`open_agent` boots an agent inside any Trio program, `serve` puts its HTTP faces on a port.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trio_agent.agent import Agent
    from trio_agent.errors import AgentError
    from trio_agent.opening import open_agent
    from trio_agent.recording.recorder import Record
    from trio_agent.server.app import serve

__version__ = "0.1.0"
__all__ = ["Agent", "AgentError", "Record", "__version__", "open_agent", "serve"]

# A library that nobody told where to log must not write to its host's standard error.
logging.getLogger(__name__).addHandler(logging.NullHandler())

_HOMES = {
    "Agent": "trio_agent.agent",
    "open_agent": "trio_agent.opening",
    "AgentError": "trio_agent.errors",
    "Record": "trio_agent.recording.recorder",
    "serve": "trio_agent.server.app",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: `trio-agent --version` must not load a web server."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
