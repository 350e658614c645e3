"""A process with an agent of its own, to be killed: `crash_child.py HOME WHAT`.

It parks a turn and, as `WHAT` says, leaves another one in the middle of its answer (`other`), or goes on
with the parked one and is silent (`silent`) or in the middle of its answer (`speaking`). Then it says
`ready`, and waits.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.rig import Collector, request, respond, result, said, tool, user
from support.scripted import HANG, Scripted, ending, text

from trio_agent.opening import open_agent
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import ToolCall

SIGNATURE = 'sig+/=\n"é\u2028'
THINKS_AND_CALLS = [
    [ev.ReasoningDelta("Let me think"), ev.ReasoningSigned(SIGNATURE)],
    [ev.ToolCallStarted(0, "h1", "read_file"), ev.ToolCallDelta(0, "{}")],
    ending("tool_calls"),
]
CONFIG: dict[str, Any] = {"providers": {"lab": {"module": "crash_child:mount"}}}
CONTINUED = (user(), said("", ToolCall("h1", "read_file", "{}")), result("h1"))


async def say_ready(_call: object) -> None:
    print("ready", flush=True)


SECOND: dict[str, list[Any]] = {
    "other": [text("Hel"), say_ready, HANG],
    "silent": [say_ready, HANG],
    "speaking": [text("Hel"), say_ready, HANG],
}


async def mount(coordinator: Any, config: Mapping[str, Any]) -> Scripted:
    """The provider `lab` for `host_config.json`."""
    return Scripted(THINKS_AND_CALLS)


async def main(home: Path, what: str) -> None:
    async with open_agent(CONFIG, home=home, env={}) as agent:
        lab = agent.providers["lab"].provider
        assert isinstance(lab, Scripted)
        lab.scripts.append(SECOND[what])
        await respond(agent, request(tools=(tool(),)))
        messages = (user("Something else"),) if what == "other" else CONTINUED
        await respond(agent, request(*messages, tools=(tool(),)), Collector())


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), sys.argv[2])
