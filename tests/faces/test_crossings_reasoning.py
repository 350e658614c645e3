"""What a model wants back of its reasoning reaches it byte for byte, whichever faces the client uses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from crossing_answers import UPSTREAMS, Call, Reply, reasoning_item
from crossing_requests import FACES, SCHEMA, Result, Turn
from crossing_requests import Call as Called
from support.chat_app import Answer
from support.fronted import in_front_of

MODELS = {"messages": "claude-sonnet-4-5", "responses": "gpt-5.5"}
ASKED: Turn = ("user", ("Hi",))
CALL = Call("call_a", "look", ('{"city": ', '"Oslo"}'))
SIGNED = "EqQBCgIYAhIM1gbc+/fix=="
REPLIES = {
    "messages": Reply(
        redacted="xyz+/=", reasoning=("Let me", " see"), signature=SIGNED, text=("I look",), calls=(CALL,)
    ),
    "responses": Reply(
        reasoning=("Let me", " see"), signature="gAAAAAB+/x==", text=("I look",), calls=(CALL,)
    ),
}
TOOLS: dict[str, dict[str, Any]] = {
    "chat": {"type": "function", "function": {"name": "look", "parameters": SCHEMA}},
    "messages": {"name": "look", "input_schema": SCHEMA},
    "responses": {"type": "function", "name": "look", "parameters": SCHEMA},
}


def body_of(face: str, *turns: Turn) -> dict[str, Any]:
    more = {"include": ["reasoning.encrypted_content"]} if face == "responses" else {}
    return FACES[face][1](turns) | {"tools": [TOOLS[face]], **more}


def given_back(face: str, answer: Answer) -> tuple[str, list[Any]]:
    """The field of the conversation, and an answer as the face's own clients put it into that."""
    said = answer.json()
    match face:
        case "chat":
            return "messages", [said["choices"][0]["message"]]
        case "messages":
            return "messages", [{"role": "assistant", "content": said["content"]}]
        case _:
            return "input", said["output"]


def next_body(first: str, second: str, answer: Answer, *, edited: bool) -> dict[str, Any]:
    """The request with the call's result. A client that changes the face has what all faces can say."""
    system: list[Turn] = [("system", ("S",))] if edited else []
    result: Turn = ("tool", (Result("call_a", ("4 C",)),))
    if first != second:
        said: Turn = ("assistant", ("I look", Called("call_a", "look", '{"city": "Oslo"}')))
        return body_of(second, *system, ASKED, said, result)
    body = body_of(second, *system, ASKED, result)
    field, items = given_back(first, answer)
    body[field][-1:-1] = items
    return body


def check_sent(wire: str, body: bytes) -> None:
    """The upstream has its own answer back, whole and in its order."""
    sent = json.loads(body)
    if wire == "messages":
        (said,) = [each["content"] for each in sent["messages"] if each["role"] == "assistant"]
        assert said == [
            {"type": "redacted_thinking", "data": "xyz+/="},
            {"type": "thinking", "thinking": "Let me see", "signature": SIGNED},
            {"type": "text", "text": "I look"},
            {"type": "tool_use", "id": "call_a", "name": "look", "input": {"city": "Oslo"}},
        ]
        return
    item = reasoning_item(REPLIES[wire])
    assert json.dumps(item).encode() in body
    kinds = [each["type"] for each in sent["input"] if each.get("role") != "system"]
    assert kinds == ["message", "reasoning", "message", "function_call", "function_call_output"]
    ids = [each.get("id") for each in sent["input"][-4:]]
    assert ids == ["rs_1", "msg_1", "fc_call_a", None]


@pytest.mark.parametrize("wire", REPLIES)
@pytest.mark.parametrize("first", FACES)
async def test_reasoning_goes_back_through_any_face(first: str, wire: str) -> None:
    """The next request goes on with the turn that waits or is one of its own, over the same face or not."""
    model = MODELS[wire]
    says = UPSTREAMS[wire](REPLIES[wire])
    after = UPSTREAMS[wire](Reply(text=("Cold.",)))
    cases = [(second, edited) for second in FACES for edited in (False, True)]
    async with in_front_of(wire, *[says, after] * len(cases), model=model) as (app, up):
        for second, edited in cases:
            asked = body_of(first, ASKED) | {"model": model}
            answer = await app.ask(asked, path=FACES[first][0])
            assert answer.status == 200, answer.text
            following = next_body(first, second, answer, edited=edited) | {"model": model}
            last = await app.ask(following, path=FACES[second][0])
            assert last.status == 200, last.text
            assert (last.headers["x-turn-id"] == answer.headers["x-turn-id"]) is not edited
            check_sent(wire, up.requests[-1].body)
