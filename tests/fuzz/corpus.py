"""Requests that are right, to begin from: written out, drawn from the wire structs, and the fixtures'."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec.inspect as inspect
from support.serving import script

from trio_agent.providers.replay_models import MODELS
from trio_agent.wire.chat_request import ChatRequest
from trio_agent.wire.messages_request import MessagesRequest
from trio_agent.wire.responses_compaction import CompactRequest
from trio_agent.wire.responses_request import CreateResponse

FIXTURES = Path(__file__).parents[2] / "fixtures" / "turns"

STRUCTS: Final = {
    "/v1/chat/completions": ChatRequest,
    "/v1/responses": CreateResponse,
    "/v1/responses/compact": CompactRequest,
    "/v1/messages": MessagesRequest,
    "/v1/messages/count_tokens": MessagesRequest,
}
TURNS: Final = tuple(STRUCTS)

SCRIPTS: Final = (
    "Hello",
    script({"text": ["Hel", "lo"]}),
    script({"reasoning": "Hm"}, {"signature": "abc"}, {"text": "Yes"}),
    script({"tool_call": {"name": "read_file", "arguments": {"path": "a"}, "id": "call_1"}}),
    script({"tool_call": {"name": "read_file", "arguments": '{"pa', "id": "call_1"}}),
    script({"text": "a"}, {"cut": True}),
    script({"text": "a"}, {"sleep": 0.2}, {"text": "b"}),
    script({"fail": {"kind": "unavailable", "message": "no"}}),
    script({"text": "a"}, {"fail": {"kind": "malformed", "message": "no"}}),
    script({"refusal": "No"}),
    script({"stall": True}),
)

_TOOL = {"type": "object", "properties": {"path": {"type": "string"}}}
_CHAT_TOOL = {"type": "function", "function": {"name": "read_file", "parameters": _TOOL}}
_RESPONSES_TOOL = {"type": "function", "name": "read_file", "parameters": _TOOL}
_PIXEL = "data:image/png;base64,iVBORw0KGgo="


def body_for(dice: Random, path: str) -> dict[str, Any]:
    """A body for one of `TURNS`."""
    known = _recorded().get(path, [])
    if known and dice.random() < 0.3:
        body: dict[str, Any] = json.loads(dice.choice(known))
        body["model"] = _model(dice)
    else:
        body = _written(dice, path)
    if dice.random() < 0.4:
        for field in dice.sample(_fields(path), k=dice.randrange(1, 4)):
            body[field.encode_name] = drawn(dice, field.type, 4)
    return body


def _model(dice: Random) -> str:
    return dice.choice(
        ["demo"] * 6 + ["think", "parallel", "length"] * 2 + sorted(set(MODELS) - {"slow", "long"})
    )


def _written(dice: Random, path: str) -> dict[str, Any]:
    said, model = dice.choice(SCRIPTS), _model(dice)
    if path == "/v1/chat/completions":
        return _chat(dice, model, said)
    if path.startswith("/v1/messages"):
        return _messages(dice, model, said)
    return _responses(dice, model, said)


def _chat(dice: Random, model: str, said: str) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": said}]
    if dice.random() < 0.3:
        call = {"id": "@call@", "type": "function", "function": {"name": "read_file", "arguments": "{}"}}
        messages += [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "@call@", "content": "42"},
        ]
    if dice.random() < 0.2:
        image = {"type": "image_url", "image_url": {"url": _PIXEL}}
        messages.append({"role": "user", "content": [{"type": "text", "text": "see"}, image]})
    body: dict[str, Any] = {"model": model, "messages": messages, "stream": dice.random() < 0.5}
    return body | _some(
        dice,
        tools=[_CHAT_TOOL],
        temperature=0.5,
        max_tokens=50,
        stop=["x"],
        stream_options={"include_usage": True},
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
        tool_choice="auto",
        metadata={"a": "b"},
    )


def _messages(dice: Random, model: str, said: str) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": said}]}]
    if dice.random() < 0.3:
        use = {"type": "tool_use", "id": "@call@", "name": "read_file", "input": {}}
        thinking = {"type": "thinking", "thinking": "Hm", "signature": "abc"}
        result = {"type": "tool_result", "tool_use_id": "@call@", "content": [{"type": "text", "text": "42"}]}
        messages += [
            {"role": "assistant", "content": [thinking, use]},
            {"role": "user", "content": [result]},
        ]
    body: dict[str, Any] = {"model": model, "max_tokens": 100, "messages": messages}
    return body | _some(
        dice,
        stream=True,
        system=[{"type": "text", "text": "Be brief", "cache_control": {"type": "ephemeral"}}],
        tools=[{"name": "read_file", "input_schema": _TOOL}],
        tool_choice={"type": "any"},
        thinking={"type": "enabled", "budget_tokens": 2000},
        stop_sequences=["x"],
        thread={"previous_message_id": "@msg@"},
    )


def _responses(dice: Random, model: str, said: str) -> dict[str, Any]:
    items: list[Any] = [{"role": "user", "content": [{"type": "input_text", "text": said}]}]
    if dice.random() < 0.3:
        items += [
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "abc"},
            {"type": "function_call", "call_id": "@call@", "name": "read_file", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "@call@", "output": "42"},
        ]
    if dice.random() < 0.15:
        items.append({"type": "item_reference", "id": "@msg@"})
    body: dict[str, Any] = {"model": model, "input": dice.choice([said, items, items])}
    return body | _some(
        dice,
        stream=True,
        store=dice.random() < 0.5,
        background=True,
        previous_response_id="@resp@",
        conversation="@conv@",
        instructions="Be brief",
        tools=[_RESPONSES_TOOL, {"type": "custom", "name": "raw"}],
        truncation="auto",
        include=["reasoning.encrypted_content"],
        text={"format": {"type": "json_object"}},
        reasoning={"effort": "low"},
        metadata={"a": "b"},
    )


def conversation_for(dice: Random) -> dict[str, Any]:
    """A body that makes a conversation, changes it or adds to it."""
    said = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]}
    call = {"type": "function_call", "call_id": "@call@", "name": "read_file", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "@call@", "output": "42"}
    items: list[dict[str, Any]] = dice.choice([[], [said], [said, call, output], [{"id": "@msg@", **said}]])
    return _some(dice, most=True, items=items, metadata={"a": "b", "c": ""})


def _some(dice: Random, *, most: bool = False, **fields: Any) -> dict[str, Any]:
    """A quarter of the fields, or three quarters of them."""
    return {name: value for name, value in fields.items() if (dice.random() < 0.25) is not most}


# --- drawn from the structs -------------------------------------------------------------------------------


@cache
def _fields(path: str) -> list[inspect.Field]:
    info = inspect.type_info(STRUCTS[path])
    assert isinstance(info, inspect.StructType)
    return [field for field in info.fields if field.encode_name != "model"]


def drawn(dice: Random, kind: inspect.Type, depth: int) -> Any:
    """A JSON value that this type takes."""
    match kind:
        case inspect.UnionType(types):
            return drawn(dice, dice.choice(types), depth)
        case inspect.NoneType():
            return None
        case inspect.BoolType():
            return dice.random() < 0.5
        case inspect.IntType():
            return dice.choice([0, 1, -1, 7, 4096, 2**31])
        case inspect.FloatType() | inspect.DecimalType():
            return dice.choice([0, 0.5, 1, 2.0, -1.5])
        case inspect.StrType():
            return dice.choice(["", "a", "auto", "text", "user", "function", "@resp@", "é\0"])
        case inspect.LiteralType(values):
            return dice.choice(values)
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            return [drawn(dice, item, depth - 1) for _ in range(dice.randrange(3))] if depth else []
        case inspect.DictType(value_type=value):
            return {name: drawn(dice, value, depth - 1) for name in ("a", "type")} if depth else {}
        case inspect.StructType(fields=fields):
            wanted = [field for field in fields if depth and (field.required or dice.random() < 0.5)]
            return {field.encode_name: drawn(dice, field.type, depth - 1) for field in wanted}
        case _:
            return dice.choice([None, "a", 1, [], {}, [{"type": "text", "text": "a"}], {"type": "a"}])


@cache
def _recorded() -> dict[str, list[str]]:
    """The bodies of the requests that the fixtures hold, by path."""
    found: dict[str, list[str]] = {}
    for file in sorted(FIXTURES.glob("*.jsonl"))[::4]:
        for line in file.read_text(encoding="utf-8").splitlines():
            if '"request"' not in line[:20]:
                continue
            said = json.loads(line)
            if isinstance(said.get("body"), dict):
                path = said.get("path", "/v1/chat/completions")
                found.setdefault(path, []).append(json.dumps(said["body"]))
    return found
