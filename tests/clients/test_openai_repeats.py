"""The official OpenAI SDK repeats requests by itself; a turn that waited for tools goes on all the same."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest
import trio
from support.upstream import Reply, scripted_upstream

from trio_agent.opening import open_agent
from trio_agent.server.app import serve

TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
]
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
    return json.dumps(
        {
            "id": "c",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
            **({"usage": USAGE} if finish else {}),
        }
    )


def call(index: int, call_id: str, name: str) -> dict[str, Any]:
    return {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": "{}"}}


class Vendor:
    """Calls a tool of either side at first, then fails `failing` times, then answers."""

    def __init__(self, failing: int) -> None:
        self.failing = failing
        self.asked: list[Any] = []

    async def __call__(self, reply: Reply) -> None:
        self.asked.append(reply.request.json()["messages"])
        if len(self.asked) == 1:
            calls = [call(0, "s1", "count"), call(1, "h1", "weather")]
            await reply.sse(chunk({"role": "assistant", "tool_calls": calls}), chunk({}, "tool_calls"))
        elif len(self.asked) <= 1 + self.failing:
            await reply.json({"error": {"message": "Out of order.", "type": "server_error"}}, 500)
        else:
            await reply.sse(chunk({"role": "assistant", "content": "It rains"}), chunk({}, "stop"))


def converse(url: str, stream: bool) -> tuple[int, set[str]]:
    """Ask, run the client's tool, and ask again; how often the SDK repeated that, and the turn ids."""
    with openai.OpenAI(base_url=url, api_key="none") as sdk:
        create = sdk.chat.completions.with_raw_response.create
        messages: Any = [{"role": "user", "content": "How is the weather?"}]
        raw = create(model="m", messages=messages, tools=TOOLS)
        messages += [
            raw.parse().choices[0].message,
            {"role": "tool", "tool_call_id": "h1", "content": "Rain."},
        ]
        again = create(model="m", messages=messages, tools=TOOLS, stream=stream)
        answer: Any = again.parse()
        if stream:
            text = "".join(each.choices[0].delta.content or "" for each in answer)
        else:
            text = answer.choices[0].message.content
        assert text == "It rains"
        return again.retries_taken, {raw.headers["x-turn-id"], again.headers["x-turn-id"]}


@pytest.mark.parametrize("stream", [False, True])
async def test_the_sdk_s_own_retry_goes_on_with_the_turn(tmp_path: Path, stream: bool) -> None:
    """502, and the SDK sends the same body again: the same turn, and the server's tool ran once."""
    ran: list[int] = []

    async def count() -> str:
        """Has an effect."""
        ran.append(1)
        return "counted"

    vendor = Vendor(failing=1)
    async with scripted_upstream(vendor) as upstream:
        lab = {"base_url": upstream.url, "api_key": "k", "models": ["m"], "max_retries": 0}
        config = {"providers": {"lab": {"module": "chat-completions", "config": lab}}}
        async with (
            open_agent(config, home=tmp_path, env={}, tools=[count]) as agent,
            trio.open_nursery() as nursery,
        ):
            ((host, port),) = await nursery.start(partial(serve, agent, port=0))
            retries, turn_ids = await trio.to_thread.run_sync(converse, f"http://{host}:{port}/v1", stream)
            assert retries == 1
            assert len(turn_ids) == 1
            (row,) = await agent.store.list_turns()
            assert (row.outcome, row.usage.total_tokens) == ("completed", 30)
            assert [each.failure is None for each in await agent.store.list_calls(row.id)] == [
                True,
                False,
                True,
            ]
            nursery.cancel_scope.cancel()
    assert len(ran) == 1
    assert vendor.asked[1] == vendor.asked[2]
    assert [each["role"] for each in vendor.asked[2]] == ["user", "assistant", "tool", "tool"]
