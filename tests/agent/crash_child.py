"""A process with an agent of its own, to be killed: `crash_child.py HOME`.

It parks a turn, leaves another one in the middle of its answer, says `ready`, and waits.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.rig import Collector, request, respond, tool, user
from support.scripted import HANG, Scripted, ending, text

from trio_agent.agent import open_agent
from trio_agent.statemachine import events as ev

SIGNATURE = 'sig+/=\n"é\u2028'
THINKS_AND_CALLS = [
    [ev.ReasoningDelta("Let me think"), ev.ReasoningSigned(SIGNATURE)],
    [ev.ToolCallStarted(0, "h1", "read_file"), ev.ToolCallDelta(0, "{}")],
    ending("tool_calls"),
]
CONFIG: dict[str, Any] = {"providers": {"lab": {"module": "crash_child:mount"}}}


async def mount(coordinator: Any, config: Mapping[str, Any]) -> Scripted:
    """The provider `lab` for `host_config.json`."""
    return Scripted(THINKS_AND_CALLS, [text("Hel"), HANG])


class Announcing(Collector):
    """Says `ready` at the first word."""

    async def send(self, outputs: Any) -> None:
        await super().send(outputs)
        if self.text:
            print("ready", flush=True)


async def main(home: Path) -> None:
    async with open_agent(CONFIG, home=home, env={}) as agent:
        await respond(agent, request(tools=(tool(),)))
        await respond(agent, request(user("Something else")), Announcing())


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
