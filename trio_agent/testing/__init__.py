"""For tests of what is built on trio-agent: agents, clients, tools and provider plug-ins.

An agent with a scripted model, on a virtual clock, without disk or network:

    from trio_agent import testing

    async def main():
        provider = testing.ScriptedProvider([testing.says("Hello")])
        async with testing.open_test_agent(provider) as agent:
            async with agent.turn("Hi", model="scripted") as turn:
                assert await turn.text() == "Hello"

    testing.run(main)

Under pytest-trio the test is the `async def`, and its argument `autojump_clock` makes the time virtual.
`client(agent)` speaks to the agent's HTTP API without sockets. For provider plug-ins there are a
coordinator to mount with and the conformance suite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trio_agent.testing.agent import open_test_agent, run
from trio_agent.testing.plugins import (
    Finding,
    RecordingCoordinator,
    assert_conforms,
    check_provider,
    create_test_coordinator,
)
from trio_agent.testing.provider import ScriptedCall, ScriptedProvider
from trio_agent.testing.scripts import (
    HANG,
    Script,
    Step,
    calls,
    fails,
    failure,
    finish,
    hangs,
    pause,
    reasoning,
    refusal,
    refuses,
    says,
    text,
    tool_call,
    usage,
)

if TYPE_CHECKING:
    from trio_agent.testing.http import Answer, Client, client

__all__ = [
    # an agent, and its HTTP API
    "Answer", "Client", "client", "open_test_agent", "run",
    # a scripted model
    "ScriptedCall", "ScriptedProvider", "Script", "Step",
    "calls", "fails", "hangs", "refuses", "says",
    "HANG", "failure", "finish", "pause", "reasoning", "refusal", "text", "tool_call", "usage",
    # provider plug-ins
    "Finding", "RecordingCoordinator", "assert_conforms", "check_provider", "create_test_coordinator",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import what speaks HTTP when it is first asked for: a plug-in's tests must not load a web server."""
    if name not in ("Answer", "Client", "client"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from trio_agent.testing import http

    return getattr(http, name)
