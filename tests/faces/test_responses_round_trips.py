"""What a Responses client is given and gives back says to the model what it said itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from responses_requests import PATH, WEATHER
from support.rig import make_agent, store_of
from support.scripted import Scripted, answer, calling, ending, text

from trio_agent.server.app import create_app
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import (
    Message,
    ProviderReasoning,
    RedactedThinking,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from trio_agent.testing import Client

PATCH = {"type": "custom", "name": "patch"}
CRM = {
    "type": "namespace",
    "name": "crm",
    "description": "C",
    "tools": [{"type": "function", "name": "find"}],
}
OPENAIS = '{"type":"reasoning","id":"rs_9","summary":[],"encrypted_content":"gAAAAx"}'
ENCRYPTED = ["reasoning.encrypted_content"]


async def clock() -> str:
    """The time."""
    return "noon"


async def ask(client: Client, said: Any, **fields: Any) -> list[dict[str, Any]]:
    """The items of the answer to a request that nothing is kept of."""
    body = {"model": "lab-1", "input": said, "store": False, "tools": [WEATHER, PATCH, CRM], **fields}
    streamed = await client.ask({**body, "stream": True}, path=PATH)
    assert streamed.status == 200, streamed.text
    last = json.loads(streamed.text.split("\n\n")[-3].partition("data: ")[2])
    assert last["type"] == "response.completed", last
    return list(last["response"]["output"])


def results_of(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"type": f"{item['type']}_output", "call_id": item["call_id"], "output": "4 C"}
        for item in items
        if item["type"] in ("function_call", "custom_tool_call")
    ]


def called(index: int, call_id: str, name: str, arguments: str) -> list[ev.CallEvent]:
    return [ev.ToolCallStarted(index, call_id, name), ev.ToolCallDelta(index, arguments)]


SAID: list[tuple[str, list[Any], tuple[Any, ...]]] = [
    ("signed reasoning", [[ev.ReasoningDelta("h"), ev.ReasoningDelta("m"), ev.ReasoningSigned("s+/=")]],
     (Thinking("hm", "s+/="),)),
    ("redacted reasoning", [[ev.RedactedReasoning("xyz=")]], (RedactedThinking("xyz="),)),
    ("OpenAI's reasoning", [[ev.ReasoningDelta("hm"), ev.ReasoningEnded(), ev.ReasoningData(OPENAIS)]],
     (Thinking("hm"), ProviderReasoning(OPENAIS))),
    ("reasoning in words", [[ev.ReasoningDelta("hm"), ev.ReasoningEnded()]], (Thinking("hm"),)),
    ("all of it",
     [[ev.ReasoningDelta("a"), ev.ReasoningSigned("1"), ev.RedactedReasoning("x"), ev.ReasoningDelta("b"),
       ev.ReasoningSigned("2")]],
     (Thinking("a", "1"), RedactedThinking("x"), Thinking("b", "2"))),
]  # fmt: skip
CALLS = [
    *called(0, "c1", "weather", '{"city": "Ulm"}'),
    *called(1, "c2", "patch", '{"input":"*** \\"x\\"\\n"}'),
    *called(2, "c3", "crm__find", "{}"),
]
CALLED = (
    ToolCall("c1", "weather", '{"city": "Ulm"}'),
    ToolCall("c2", "patch", '{"input":"*** \\"x\\"\\n"}'),
    ToolCall("c3", "crm__find", "{}"),
)


@pytest.mark.parametrize("edited", [False, True], ids=["resumed", "ordinary"])
@pytest.mark.parametrize(("script", "parts"), [row[1:] for row in SAID], ids=[row[0] for row in SAID])
async def test_an_answer_comes_back_as_it_was(
    autojump_clock: trio.abc.Clock, script: list[Any], parts: tuple[Any, ...], edited: bool
) -> None:
    """Reasoning, words and calls of all kinds, whether the turn goes on or the history makes a new one."""
    lab = Scripted([*script, text("Let me look"), CALLS, ending("tool_calls")], answer("ok"))
    agent = make_agent(lab)
    client = Client(agent, create_app(agent, api_key=None))
    items = await ask(client, "Hello", include=ENCRYPTED)
    user = {"role": "user", "content": "Hello, you" if edited else "Hello"}
    await ask(client, [user, *items, *results_of(items)], include=ENCRYPTED)
    _, said, results = lab.calls[1].request.messages
    assert said.parts == (*parts, Text("Let me look"), *CALLED)
    assert [result.tool_call_id for result in results.tool_results] == ["c1", "c2", "c3"]
    outcomes = [row.outcome for row in store_of(agent).turns.values()]
    assert outcomes == (["parked", "completed"] if edited else ["completed"])


async def test_the_servers_own_tools_come_back_too(autojump_clock: trio.abc.Clock) -> None:
    """A client that gives back what it was shown of them goes on with the turn that waits for it."""
    lab = Scripted(
        [text("First"), *calling(("s1", "clock"), ("c0", "weather"))],
        answer("It is 4 C"),
    )
    agent = make_agent(lab, tools=(clock,))
    client = Client(agent, create_app(agent, api_key=None))
    items = await ask(client, "Hello")
    assert sorted(item["type"] for item in items) == ["function_call", "mcp_call", "message"]
    await ask(client, [{"role": "user", "content": "Hello"}, *items, *results_of(items)])
    assert [row.outcome for row in store_of(agent).turns.values()] == ["completed"]
    _, said, results = lab.calls[1].request.messages
    assert said.parts == (Text("First"), ToolCall("s1", "clock", "{}"), ToolCall("c0", "weather", "{}"))
    assert results == Message("tool", (ToolResult("s1", (Text("noon"),)), ToolResult("c0", (Text("4 C"),))))
