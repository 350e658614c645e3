"""A server without sockets, to be killed: `state_crash_child.py HOME`.

It follows a response in the background that does not end, and asks for others, one after the other, some of
them in a conversation. What a client is told it prints at once, a JSON object a line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio

from trio_agent.opening import open_agent
from trio_agent.providers.contract import ProviderRequest
from trio_agent.server.app import create_app
from trio_agent.testing import Answer, Client, ScriptedProvider, hangs, pause, says, text
from trio_agent.testing.scripts import Script

CONFIG: dict[str, Any] = {"providers": {"lab": {"module": "state_crash_child:mount"}}}
PATH = "/v1/responses"


def script(request: ProviderRequest) -> Script:
    if request.messages[-1].text == "Forever":
        # Faster than the log is written, so that a client has seen more than the store.
        return [*(step for _ in range(100) for step in (text("on "), pause(0.01))), *hangs()]
    return says("Hello", " Rhubarb")


async def mount(coordinator: Any, config: Mapping[str, Any]) -> ScriptedProvider:
    """The provider `lab` for `host_config.json`."""
    return ScriptedProvider([script], name="lab")


def tell(**what: Any) -> None:
    print(json.dumps(what), flush=True)


async def main(home: Path) -> None:
    async with open_agent(CONFIG, home=home, env={}) as agent, trio.open_nursery() as nursery:
        client = Client(agent, create_app(agent))
        conversation = (await client.ask(method="POST", path="/v1/conversations")).json()["id"]
        tell(conversation=conversation)

        async def follow(**fields: Any) -> None:
            body = {"model": "lab", "input": "Forever", "background": True, "stream": True, **fields}
            await client.ask(body, path=PATH, seen=lambda answer: tell(seen=_last_number(answer)))

        async def ask() -> None:
            number = 0
            while True:
                number += 1
                body: dict[str, Any] = {"model": "lab", "input": f"Hi {number}"}
                if number % 2:
                    body["conversation"] = conversation
                tell(body=(await client.ask(body, path=PATH)).json())

        nursery.start_soon(follow)
        nursery.start_soon(ask)


def _last_number(answer: Answer) -> list[Any] | None:
    events = [json.loads(event.data) for event in answer.events]
    return [events[0]["response"]["id"], events[-1]["sequence_number"]] if events else None


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
