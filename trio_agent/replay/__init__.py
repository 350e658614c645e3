"""Replaying recordings of turns: what came in is played to the real stack, what goes out compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trio_agent.replay.difference import render_difference
    from trio_agent.replay.player import Player
    from trio_agent.replay.result import Difference, Moment, Replayed, ReplayError
    from trio_agent.replay.timeline import render_timeline
    from trio_agent.replay.update import updated

__all__ = [
    "Player", "Replayed", "Difference", "Moment", "ReplayError",
    "render_difference", "render_timeline", "updated",
]  # fmt: skip

_HOMES = {
    "Player": "player",
    "Replayed": "result",
    "Difference": "result",
    "Moment": "result",
    "ReplayError": "result",
    "render_difference": "difference",
    "render_timeline": "timeline",
    "updated": "update",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: each run of pytest loads the plug-in that is here."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
