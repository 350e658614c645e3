"""An agent inside another Trio program: no HTTP, no key, no network.

One tool of the agent's, one of this program's. The scripted model `parallel` calls both at once.
"""

import tempfile

import trio

from trio_agent import AgentError, open_agent
from trio_agent.embedding import TurnFinished
from trio_agent.statemachine.events import TextDelta, ToolCallStarted


async def today() -> str:
    """The date of today."""
    return "2026-11-20"


async def read_note(name: str) -> str:
    """Read one of the user's notes."""
    return f"{name}: buy milk"


async def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        async with open_agent({"providers": {"replay": {}}}, home=home, tools=[today]) as agent:
            async with agent.turn("Hi", model="parallel", host_tools={"read_note": read_note}) as turn:
                async for event in turn:
                    match event:
                        case TextDelta(text):
                            print(text, end="")
                        case ToolCallStarted(name=name):
                            print(f"(calls {name})")
                        case TurnFinished(finish_reason, usage):
                            print(f"\n({finish_reason}, {usage.total_tokens} tokens)")
            try:
                async with agent.turn("Hi", model="unauthorized") as turn:
                    print(await turn.text())
            except AgentError as error:
                print(f"{error.code}: {error.message}")


if __name__ == "__main__":
    trio.run(main)
