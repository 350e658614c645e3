"""Requests of every face before every upstream wire: what the client said arrives, or is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from crossing_answers import UPSTREAMS, Reply
from crossing_requests import CONVERSATION, FACES, HEARD, SCHEMA, with_values
from support.fronted import in_front_of

SAYS = {wire: to_bytes(Reply(text=("Hi",))) for wire, to_bytes in UPSTREAMS.items()}
MODEL = "claude-sonnet-4-5"
TOOL = {"name": "look", "description": "Looks."}
TOOLS = {
    "chat": {"type": "function", "function": {**TOOL, "parameters": SCHEMA}},
    "messages": {**TOOL, "input_schema": SCHEMA},
    "responses": {"type": "function", **TOOL, "parameters": SCHEMA},
}


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("wire", HEARD)
async def test_a_conversation_crosses(wire: str, face: str) -> None:
    """Roles, words, images by URL and in the request, calls, results and their images, in their order."""
    path, to_body = FACES[face]
    body = to_body(CONVERSATION) | {"model": "m", "tools": [TOOLS[face]]}
    async with in_front_of(wire, SAYS[wire], model="m") as (app, up):
        answer = await app.ask(body, path=path)
    assert answer.status == 200, answer.text
    assert "x-ignored" not in answer.headers
    heard = HEARD[wire](up.requests[0].json())
    assert with_values(heard) == with_values(CONVERSATION)
    tool = {name: value for name, value in TOOLS[wire].items() if name != "type"}
    (sent,) = up.requests[0].json()["tools"]
    assert {name: sent[name] for name in tool} == tool


FORMAT = {"name": "city", "schema": SCHEMA, "strict": True}
NAMED = {"type": "function", "function": {"name": "look"}}
ALLOWED = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "look"}]}
ONE = {"type": "auto", "disable_parallel_tool_use": True}
NO_PARALLEL = {"tool_choice": ONE}
THINKS = {"type": "enabled", "budget_tokens": 1024}
CHAT_FORMAT = {"response_format": {"type": "json_schema", "json_schema": FORMAT}}
UNNAMED = {"name": "response", "schema": SCHEMA, "strict": True}
MESSAGES_FORMAT = {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}
RESPONSES_FORMAT = {"text": {"format": {"type": "json_schema", **FORMAT}}}
JSON = {"type": "json_object"}

Fields = dict[str, Any]
Outcome = Fields | str | None
# The fields of a request, and what comes of them before each upstream wire: the same fields (`None`), others,
# a refusal of a field (`!name`), a field named in X-Ignored (`-name`); `{}` where nothing of it goes up.
OPTIONS: dict[str, list[tuple[Fields, Outcome, Outcome, Outcome]]] = {
    "chat": [
        ({"temperature": 0.5}, None, None, None),
        ({"top_p": 0.5}, None, None, None),
        ({"max_completion_tokens": 50}, {"max_tokens": 50}, {"max_tokens": 50}, {"max_output_tokens": 50}),
        ({"stop": ["END"]}, None, {"stop_sequences": ["END"]}, "!stop"),
        ({"seed": 7}, None, "!seed", "!seed"),
        ({"top_k": 5}, None, None, "!top_k"),
        ({"presence_penalty": 0.5}, None, "!presence_penalty", "!presence_penalty"),
        ({"logit_bias": {"5": 1}}, None, "!logit_bias", "!logit_bias"),
        ({"tool_choice": "none"}, None, {"tool_choice": {"type": "none"}}, None),
        ({"tool_choice": "auto"}, None, {"tool_choice": {"type": "auto"}}, None),
        ({"tool_choice": "required"}, None, {"tool_choice": {"type": "any"}}, None),
        ({"tool_choice": NAMED}, None, {"tool_choice": {"type": "tool", "name": "look"}},
         {"tool_choice": {"type": "function", "name": "look"}}),
        ({"parallel_tool_calls": False}, None, NO_PARALLEL, None),
        ({"response_format": JSON}, None, "!response_format", {"text": {"format": JSON}}),
        (CHAT_FORMAT, None, MESSAGES_FORMAT, RESPONSES_FORMAT),
        ({"verbosity": "low"}, None, "!verbosity", {"text": {"verbosity": "low"}}),
        ({"reasoning_effort": "low"}, None,
         {"max_tokens": 27048, "thinking": {"type": "enabled", "budget_tokens": 2048}},
         {"reasoning": {"effort": "low"}}),
        ({"user": "u"}, None, {"metadata": {"user_id": "u"}}, None),
        ({"metadata": {"a": "b"}}, None, {}, None),
        ({"service_tier": "flex"}, None, "!service_tier", None),
        ({"made_up": 1}, None, "-made_up", "-made_up"),
    ],
    "messages": [
        ({"temperature": 0.5}, None, None, None),
        ({"top_k": 5}, "!top_k", None, "!top_k"),
        ({"max_tokens": 50}, None, None, {"max_output_tokens": 50}),
        ({"stop_sequences": ["END"]}, {"stop": ["END"]}, None, "!stop_sequences"),
        ({"tool_choice": {"type": "none"}}, {"tool_choice": "none"}, None, {"tool_choice": "none"}),
        ({"tool_choice": {"type": "any"}}, {"tool_choice": "required"}, None, {"tool_choice": "required"}),
        ({"tool_choice": {"type": "tool", "name": "look"}}, {"tool_choice": NAMED}, None,
         {"tool_choice": {"type": "function", "name": "look"}}),
        (NO_PARALLEL, {"tool_choice": "auto", "parallel_tool_calls": False}, None,
         {"tool_choice": "auto", "parallel_tool_calls": False}),
        (MESSAGES_FORMAT, {"response_format": {"type": "json_schema", "json_schema": UNNAMED}}, None,
         {"text": {"format": {"type": "json_schema", **UNNAMED}}}),
        ({"thinking": THINKS, "max_tokens": 4000}, {"max_tokens": 4000, "reasoning_effort": "low"}, None,
         {"max_output_tokens": 4000, "reasoning": {"effort": "low"}}),
        ({"metadata": {"user_id": "u"}}, {"user": "u"}, None, {"user": "u"}),
        ({"metadata": {"a": "b"}}, "-metadata", None, "-metadata"),
        ({"service_tier": "standard_only"}, {"service_tier": "default"}, None, {"service_tier": "default"}),
        ({"made_up": 1}, "-made_up", None, "-made_up"),
    ],
    "responses": [
        ({"temperature": 0.5}, None, None, None),
        ({"max_output_tokens": 50}, {"max_tokens": 50}, {"max_tokens": 50}, None),
        ({"presence_penalty": 0.5}, None, "!presence_penalty", "!presence_penalty"),
        ({"tool_choice": "required"}, None, {"tool_choice": {"type": "any"}}, None),
        ({"tool_choice": {"type": "function", "name": "look"}}, {"tool_choice": NAMED},
         {"tool_choice": {"type": "tool", "name": "look"}}, None),
        ({"tool_choice": ALLOWED}, {"tool_choice": "required"}, {"tool_choice": {"type": "any"}},
         {"tool_choice": "required"}),
        ({"parallel_tool_calls": False}, None, NO_PARALLEL, None),
        ({"text": {"format": JSON}}, {"response_format": JSON}, "!text.format", None),
        (RESPONSES_FORMAT, CHAT_FORMAT, MESSAGES_FORMAT, None),
        ({"text": {"verbosity": "low"}}, {"verbosity": "low"}, "!text.verbosity", None),
        ({"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"},
         {"max_tokens": 27048, "thinking": {"type": "enabled", "budget_tokens": 2048}}, None),
        ({"reasoning": {"mode": "x"}}, "-reasoning.mode", "-reasoning.mode", None),
        ({"user": "u"}, None, {"metadata": {"user_id": "u"}}, None),
        # The server itself does it where it knows the model's window.
        ({"truncation": "auto"}, "-truncation", {}, None),
        ({"max_tool_calls": 3}, "!max_tool_calls", "!max_tool_calls", "!max_tool_calls"),
        ({"made_up": 1}, "-made_up", "-made_up", None),
    ],
}  # fmt: skip
WIRES = ("chat", "messages", "responses")


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("wire", WIRES)
async def test_no_field_is_dropped_silently(wire: str, face: str) -> None:
    """A field reaches the upstream in its words, or is refused or said to be left out, in the client's."""
    path, to_body = FACES[face]
    plain = to_body([("user", ("Hi",))]) | {"model": MODEL, "tools": [TOOLS[face]]}
    rows = OPTIONS[face]
    async with in_front_of(wire, *[SAYS[wire]] * (len(rows) + 1), model=MODEL) as (app, up):
        await app.ask(plain, path=path)
        before = up.requests[0].json()
        for fields, *outcomes in rows:
            wanted = outcomes[WIRES.index(wire)]
            asked = len(up.requests)
            answer = await app.ask(plain | fields, path=path)
            if isinstance(wanted, str) and wanted.startswith("!"):
                assert (answer.status, answer.error["param"]) == (400, wanted[1:]), answer.text
                assert wanted[1:] in answer.error["message"]
                assert len(up.requests) == asked
                continue
            assert answer.status == 200, answer.text
            after = up.requests[asked].json()
            changed = {name: value for name, value in after.items() if before.get(name) != value}
            ignored = answer.headers.get("x-ignored", "")
            if isinstance(wanted, str):
                assert (changed, ignored) == ({}, wanted[1:])
            else:
                assert (changed, ignored) == (fields if wanted is None else wanted, "")
