"""Tools and roles that only some formats know, before upstreams that have them and others."""

from __future__ import annotations

import json
from typing import Any

import pytest
import responses_app
from crossing_answers import UPSTREAMS, Call, Reply
from support.fronted import in_front_of

MODELS = {"chat": "m", "messages": "claude-sonnet-4-5", "responses": "gpt-5.5"}
SAYS = {wire: to_bytes(Reply(text=("Hi",))) for wire, to_bytes in UPSTREAMS.items()}
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": 'start: "*** " /.+/'}
PATCH = {"type": "custom", "name": "patch", "description": "Patches.", "format": GRAMMAR}
TEXT = '*** "é"\n\\ 👋\u2028'
PIECES = [TEXT[:5], TEXT[5:8], TEXT[8:]]


def custom_call() -> bytes:
    """The call as the Responses wire has it."""
    item = {"id": "ctc_1", "type": "custom_tool_call", "call_id": "call_1", "name": "patch", "input": ""}
    whole = item | {"input": TEXT, "status": "completed"}
    counts = {"input_tokens": 5, "output_tokens": 5}
    response = {"id": "r", "object": "response", "status": "completed", "output": [whole], "usage": counts}
    events = [
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        *(
            {"type": "response.custom_tool_call_input.delta", "output_index": 0, "delta": piece}
            for piece in PIECES
        ),
        {"type": "response.custom_tool_call_input.done", "output_index": 0, "input": TEXT},
        {"type": "response.output_item.done", "output_index": 0, "item": whole},
        {"type": "response.completed", "response": response},
    ]
    return b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in events)


ARGUMENTS = json.dumps({"input": TEXT})
AS_FUNCTION = Reply(calls=(Call("call_1", "patch", (ARGUMENTS[:15], ARGUMENTS[15:])),))
CALLED = {
    "chat": UPSTREAMS["chat"](AS_FUNCTION),
    "messages": UPSTREAMS["messages"](AS_FUNCTION),
    "responses": custom_call(),
}


def offered(wire: str, body: Any) -> tuple[str, str]:
    """The name and what the model is told of the text that the tool takes."""
    (tool,) = body["tools"]
    match wire:
        case "chat":
            function = tool["function"]
            assert function["description"] == "Patches."
            return function["name"], function["parameters"]["properties"]["input"]["description"]
        case "messages":
            assert tool["description"] == "Patches."
            return tool["name"], tool["input_schema"]["properties"]["input"]["description"]
        case _:
            assert tool == PATCH
            return tool["name"], tool["format"]["definition"]


@pytest.mark.parametrize("wire", MODELS)
@pytest.mark.parametrize("edited", [False, True], ids=["resumed", "ordinary"])
async def test_a_custom_tool_crosses(wire: str, edited: bool) -> None:
    """It is offered with its grammar; its text comes back as text, streamed too, and goes up as it was."""
    replies = (CALLED[wire], CALLED[wire], SAYS[wire])
    model = MODELS[wire]
    body: dict[str, Any] = {"model": model, "input": "Go", "tools": [PATCH], "store": False}
    choice = {"type": "custom", "name": "patch"}
    async with in_front_of(wire, *replies, model=model) as (app, up):
        streamed = await app.ask(body | {"stream": True}, path="/v1/responses")
        whole = await app.ask(body | {"tool_choice": choice}, path="/v1/responses")
        (item,) = whole.json()["output"]
        (same,) = responses_app.response_of(streamed.body)["output"]
        user = {"role": "user", "content": "Go!" if edited else "Go"}
        result = {"type": "custom_tool_call_output", "call_id": "call_1", "output": "done"}
        following = {"model": model, "input": [user, item, result], "tools": [PATCH], "store": False}
        last = await app.ask(following, path="/v1/responses")
    assert (item["type"], item["name"], item["input"]) == ("custom_tool_call", "patch", TEXT)
    assert (same["call_id"], same["input"]) == ("call_1", TEXT)
    assert last.status == 200, last.text
    name, told = offered(wire, up.requests[0].json())
    assert name == "patch"
    assert GRAMMAR["definition"] in told
    named = up.requests[1].json()["tool_choice"]
    assert "patch" in (named.get("name"), named.get("function", {}).get("name"))
    sent = up.requests[2].json()
    match wire:
        case "chat":
            (call,) = sent["messages"][1]["tool_calls"]
            assert json.loads(call["function"]["arguments"]) == {"input": TEXT}
            assert sent["messages"][2]["content"] == "done"
        case "messages":
            assert sent["messages"][1]["content"][0]["input"] == {"input": TEXT}
            assert sent["messages"][2]["content"][0]["content"] == [{"type": "text", "text": "done"}]
        case _:
            call, output = sent["input"][1:]
            assert (call["type"], call["input"]) == ("custom_tool_call", TEXT)
            assert (output["type"], output["output"]) == ("custom_tool_call_output", "done")


FAILED: dict[str, Any] = {
    "chat": {"role": "tool", "tool_call_id": "t", "content": "Error: no clock"},
    "messages": {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "t", "is_error": True,
         "content": [{"type": "text", "text": "no clock"}]}]},
    "responses": {"type": "function_call_output", "call_id": "t", "output": "Error: no clock"},
}  # fmt: skip


@pytest.mark.parametrize("wire", MODELS)
async def test_a_failed_call_crosses(wire: str) -> None:
    """Messages marks it; where a wire has no mark, the text says so."""
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "time", "input": {}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t", "content": "no clock", "is_error": True}]},
    ]  # fmt: skip
    async with in_front_of(wire, SAYS[wire], model=MODELS[wire]) as (app, up):
        body = {"model": MODELS[wire], "messages": messages, "max_tokens": 100}
        answer = await app.ask(body, path="/v1/messages")
    assert answer.status == 200, answer.text
    sent = up.requests[0].json()
    assert sent["input" if wire == "responses" else "messages"][-1] == FAILED[wire]


INSTRUCTED: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": [
        {"role": "system", "content": "S"}, {"role": "developer", "content": "D"},
        {"role": "user", "content": "Hi"}]}),
    ("/v1/messages", {"system": [{"type": "text", "text": "S"}, {"type": "text", "text": "D"}],
                      "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100}),
    ("/v1/responses", {"instructions": "S", "store": False, "input": [
        {"role": "developer", "content": "D"}, {"role": "user", "content": "Hi"}]}),
]  # fmt: skip


@pytest.mark.parametrize("wire", MODELS)
@pytest.mark.parametrize(("path", "body"), INSTRUCTED, ids=[row[0] for row in INSTRUCTED])
async def test_instructions_cross(wire: str, path: str, body: dict[str, Any]) -> None:
    """Those of the system and of the developer stand first, in their order, in a role that the wire has."""
    async with in_front_of(wire, SAYS[wire], model=MODELS[wire]) as (app, up):
        answer = await app.ask(body | {"model": MODELS[wire]}, path=path)
    assert answer.status == 200, answer.text
    sent = up.requests[0].json()
    if wire == "messages":
        assert [block["text"] for block in sent["system"]] == ["S", "D"]
        return
    *first, last = sent["messages" if wire == "chat" else "input"]
    assert {each["role"] for each in first} <= {"system", "developer"}
    texts = [
        part if isinstance(part, str) else part["text"]
        for each in first
        for part in ([each["content"]] if isinstance(each["content"], str) else each["content"])
    ]
    assert (texts, last["content"]) == (["S", "D"], "Hi")
