"""Messages in front of both upstream wires, over real sockets: what reaches the upstream, what comes back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from messages_app import COUNT, PATH, asked, events, message_of, say
from support.fronted import FIXTURES, in_front_of

from trio_agent.wire.messages_content import UNSIGNED

MARK = {"type": "ephemeral"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"name": "get_weather", "description": "W", "input_schema": SCHEMA, "cache_control": MARK},
         {"name": "get_time", "input_schema": {"type": "object"}}]  # fmt: skip
SIGNATURE = "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds/+fixture=="

HISTORY: list[dict[str, Any]] = [
    {"role": "user", "content": [{"type": "text", "text": "Where?", "cache_control": MARK},
                                 {"type": "image", "source": {"type": "url", "url": "https://a.b/c.png"}}]},
    {"role": "assistant", "content": [
        {"type": "thinking", "thinking": "hm", "signature": SIGNATURE},
        {"type": "redacted_thinking", "data": "xyz="},
        {"type": "thinking", "thinking": "ours", "signature": UNSIGNED},
        {"type": "text", "text": "Let me see"},
        {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Rome", "n": 1.5}},
        {"type": "tool_use", "id": "toolu_2", "name": "get_time", "input": {}}]},
    {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "4 C"}]},
        {"type": "tool_result", "tool_use_id": "toolu_2", "content": "no clock", "is_error": True},
        {"type": "text", "text": "And?"}]},
]  # fmt: skip
BODY = asked(
    model="lab/claude-sonnet-4-5",
    messages=HISTORY,
    system=[{"type": "text", "text": "Be brief", "cache_control": MARK}],
    tools=TOOLS,
    tool_choice={"type": "auto", "disable_parallel_tool_use": True},
    thinking={"type": "enabled", "budget_tokens": 2000},
    max_tokens=4000,
    stop_sequences=["END"],
    metadata={"user_id": "u1"},
    output_config={"effort": "medium", "format": {"type": "json_schema", "schema": SCHEMA}},
    context_management={"edits": []},
)


async def test_a_request_to_an_anthropic_upstream_is_what_the_client_sent() -> None:
    """Blocks, markers, signatures, options and fields of the wire's own arrive as they were, betas too.

    Our own mark never does: the thinking that bears it is left out, for the wire takes none unsigned.
    """
    async with in_front_of("messages", "messages-text", headers={"anthropic-beta": "ours-1"}) as (app, up):
        answer = await app.ask(BODY, {"anthropic-beta": "theirs-2,theirs-3"}, path=PATH)
    assert answer.status == 200, answer.text
    assert "x-ignored" not in answer.headers
    sent = up.requests[0].json()
    wanted = json.loads(json.dumps(BODY))
    wanted["model"] = "claude-sonnet-4-5"
    wanted["stream"] = True
    del wanted["messages"][1]["content"][2]
    wanted["messages"][2]["content"][1]["content"] = [{"type": "text", "text": "no clock"}]
    assert sent == wanted
    assert UNSIGNED.encode() not in up.requests[0].body
    assert up.requests[0].headers["anthropic-beta"] == "ours-1,theirs-2,theirs-3"


async def test_a_request_to_a_chat_upstream_says_the_same() -> None:
    """Everything that the other format has a word for; an effort stands for the budget; the rest is named."""
    async with in_front_of("chat", "chat-text") as (app, up):
        answer = await app.ask(BODY, path=PATH)
    assert answer.status == 200, answer.text
    assert answer.headers["x-ignored"] == "context_management"
    assert up.requests[0].json() == {
        "model": "claude-sonnet-4-5",
        "messages": [
            {"role": "system", "content": "Be brief"},
            {"role": "user", "content": [
                {"type": "text", "text": "Where?"},
                {"type": "image_url", "image_url": {"url": "https://a.b/c.png"}}]},
            {"role": "assistant", "content": "Let me see", "reasoning_content": "hmours", "tool_calls": [
                {"id": "toolu_1", "type": "function",
                 "function": {"name": "get_weather", "arguments": '{"city":"Rome","n":1.5}'}},
                {"id": "toolu_2", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "toolu_1", "content": "4 C"},
            {"role": "tool", "tool_call_id": "toolu_2", "content": "Error: no clock"},
            {"role": "user", "content": "And?"},
        ],
        "tools": [
            {"type": "function",
             "function": {"name": "get_weather", "description": "W", "parameters": SCHEMA}},
            {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}},
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "max_tokens": 4000,
        "stop": ["END"],
        "user": "u1",
        "reasoning_effort": "medium",
        "response_format": {"type": "json_schema",
                            "json_schema": {"name": "response", "schema": SCHEMA, "strict": True}},
        "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip


EFFORTS: list[tuple[dict[str, Any], str | None, str | None]] = [
    # fields, effort, X-Ignored
    ({}, None, None),
    ({"thinking": {"type": "disabled"}}, "none", None),
    ({"thinking": {"type": "adaptive"}}, None, None),
    ({"thinking": {"type": "between_tools"}}, None, None),
    ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, "low", None),
    ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "low", None),
    ({"thinking": {"type": "enabled", "budget_tokens": 10_000}}, "medium", None),
    ({"thinking": {"type": "enabled", "budget_tokens": 31_999}}, "high", None),
    ({"thinking": {"type": "enabled", "budget_tokens": 31_999}, "output_config": {"effort": "low"}}, "low",
     None),
    ({"output_config": {"effort": "max"}}, "xhigh", None),
    ({"output_config": {"effort": "high", "task_budget": {}}}, "high", "output_config.task_budget"),
    ({"thinking": {"type": "adaptive", "display": "omitted"}}, None, "thinking.display"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "effort", "ignored"), EFFORTS, ids=lambda value: str(value)[:50])
async def test_thinking_becomes_an_effort_for_a_chat_upstream(
    fields: dict[str, Any], effort: str | None, ignored: str | None
) -> None:
    """A budget is an effort of about that size; what leaves it to the model says nothing."""
    async with in_front_of("chat", "chat-text", model="m") as (app, up):
        answer = await say(app, model="m", **fields)
    assert answer.status == 200, answer.text
    assert up.requests[0].json().get("reasoning_effort") == effort
    assert answer.headers.get("x-ignored") == ignored


ANSWERS: list[tuple[str, str, list[dict[str, Any]], str, dict[str, int]]] = [
    ("messages", "messages-thinking-tool", [
        {"type": "thinking", "thinking": "The user wants the weather.", "signature": SIGNATURE},
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "toolu_01A", "name": "get_weather",
         "input": {"location": "San Francisco"}},
    ], "tool_use", {"input_tokens": 472, "output_tokens": 89, "thinking_tokens": 31}),
    ("chat", "chat-reasoning", [
        {"type": "thinking", "thinking": "Let me think.", "signature": UNSIGNED},
        {"type": "text", "text": "42"},
    ], "end_turn", {"input_tokens": 5, "output_tokens": 9, "thinking_tokens": 6}),
    ("chat", "chat-tool-calls-interleaved", [
        {"type": "text", "text": "Both."},
        {"type": "tool_use", "id": "call_a", "name": "get_weather", "input": {"city": "Oslo"}},
        {"type": "tool_use", "id": "call_b", "name": "get_time", "input": {"zone": "UTC"}},
    ], "tool_use", {}),
    ("chat", "chat-refusal", [{"type": "text", "text": "I can't help."}], "refusal", {}),
    ("chat", "chat-length", [{"type": "text", "text": "Too lo"}], "max_tokens", {}),
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("wire", "fixture", "content", "stop", "usage"), ANSWERS, ids=[row[1] for row in ANSWERS]
)
async def test_an_answer_comes_back_in_the_clients_format(
    wire: str, fixture: str, content: list[dict[str, Any]], stop: str, usage: dict[str, int], stream: bool
) -> None:
    """Text, thinking, calls, stop reason and usage of a captured stream."""
    async with in_front_of(wire, fixture) as (app, _):
        answer = await say(app, model="lab/claude-sonnet-4-5", tools=TOOLS, stream=stream)
    assert answer.status == 200, answer.text
    message = message_of(answer) if stream else answer.json()
    if "refusal" in fixture or "length" in fixture:
        assert "".join(block["text"] for block in message["content"])
    else:
        assert message["content"] == content
    assert message["stop_reason"] == stop
    told = {**message["usage"], **message["usage"]["output_tokens_details"]}
    assert {name: told[name] for name in usage} == usage


def _stopped_chat(by: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop", "stop_reason": by}
    return b"data: %s\n\ndata: [DONE]\n\n" % json.dumps({"choices": [choice]}).encode()


def _stopped_messages(by: str | None) -> bytes:
    said = (FIXTURES / "messages-text.sse").read_text()
    old = '"stop_reason": "end_turn", "stop_sequence": null'
    assert old in said
    return said.replace(old, f'"stop_reason": "stop_sequence", "stop_sequence": {json.dumps(by)}').encode()


STOPS: list[tuple[str, bytes, tuple[str, str | None]]] = [
    ("chat", _stopped_chat("END"), ("stop_sequence", "END")),
    ("chat", _stopped_chat(128009), ("end_turn", None)),
    ("chat", _stopped_chat(None), ("end_turn", None)),
    ("messages", _stopped_messages("END"), ("stop_sequence", "END")),
    ("messages", _stopped_messages(None), ("end_turn", None)),
]


@pytest.mark.parametrize(("wire", "stream", "stop"), STOPS, ids=lambda value: str(value)[-40:])
async def test_the_stop_sequence_comes_back(wire: str, stream: bytes, stop: tuple[str, str | None]) -> None:
    """Where the upstream names it: Anthropic's does, and vLLM does, which has numbers for tokens too."""
    async with in_front_of(wire, stream) as (app, _):
        message = (await say(app, model="lab/claude-sonnet-4-5", stop_sequences=["END"])).json()
    assert (message["stop_reason"], message["stop_sequence"]) == stop


PROMPT_COUNTS = (
    "input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "cache_creation"
)  # fmt: skip


async def test_cache_counts_come_back_as_they_were() -> None:
    """The classes of Anthropic's usage, apart as they came."""
    async with in_front_of("messages", "messages-cache") as (app, _):
        usage = (await say(app, model="lab/claude-sonnet-4-5")).json()["usage"]
    _, began, *_ = (FIXTURES / "messages-cache.sse").read_text().split("data: ")
    start = json.loads(began.partition("\n")[0])["message"]["usage"]
    for name in PROMPT_COUNTS:
        assert usage[name] == start[name], name


async def test_a_stream_begins_with_the_counts_that_are_known() -> None:
    """Anthropic counts the prompt at once, and clients read it in `message_start`; others count late."""
    async with in_front_of("messages", "messages-cache") as (app, _):
        first, *_, delta, _ = events(await say(app, model="lab/claude-sonnet-4-5", stream=True))
    for name in PROMPT_COUNTS:
        assert first["message"]["usage"][name] == delta["usage"][name] != 0, name
    async with in_front_of("chat", "chat-usage") as (app, _):
        first, *_, delta, _ = events(await say(app, model="lab/claude-sonnet-4-5", stream=True))
    assert first["message"]["usage"]["input_tokens"] == 0
    assert delta["usage"]["input_tokens"] > 0


async def test_a_turn_over_another_vendor_goes_on() -> None:
    """Results under that vendor's ids resume the turn, and reach it in its own form."""
    async with in_front_of("chat", "chat-tool-calls-interleaved", "chat-text") as (app, up):
        body = asked(model="lab/claude-sonnet-4-5", tools=TOOLS)
        first = await app.ask(body, path=PATH)
        results = [
            {"type": "tool_result", "tool_use_id": each, "content": "r"} for each in ("call_a", "call_b")
        ]
        body["messages"] += [
            {"role": "assistant", "content": first.json()["content"]},
            {"role": "user", "content": results},
        ]
        second = await app.ask(body, path=PATH)
    assert second.status == 200, second.text
    assert second.headers["x-turn-id"] == first.headers["x-turn-id"]
    assert [message["role"] for message in up.requests[1].json()["messages"]] == [
        "user", "assistant", "tool", "tool"
    ]  # fmt: skip


REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("chat", {"top_k": 5}, "unsupported_parameter", "top_k"),
    ("chat", {"thinking": {"type": "perhaps"}}, "invalid_request", "thinking.type"),
    ("chat", {"output_config": {"effort": 3}}, "invalid_request", "output_config.effort"),
    ("messages", {"temperature": 0.5, "thinking": {"type": "enabled", "budget_tokens": 1024}},
     "unsupported_parameter", "temperature"),
]  # fmt: skip


@pytest.mark.parametrize(("wire", "fields", "code", "param"), REFUSED, ids=lambda value: str(value)[:40])
async def test_what_an_upstream_cannot_take_is_refused_by_name(
    wire: str, fields: dict[str, Any], code: str, param: str
) -> None:
    """Before the upstream is called, in the client's own numbers, whatever the operator puts before them."""
    async with in_front_of(wire, agent={"system_prompt": "Be kind"}) as (app, up):
        answer = await say(app, model="lab/claude-sonnet-4-5", tools=TOOLS, **fields)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, code, param), answer.text
    assert not up.requests


async def test_the_upstreams_own_count() -> None:
    """An Anthropic upstream is asked with the prompt and nothing else; its figure is the answer."""
    async with in_front_of("messages", {"input_tokens": 77}) as (app, up):
        answer = await app.ask({**BODY, "max_tokens": None}, {"anthropic-beta": "b-1"}, path=COUNT)
    assert (answer.status, answer.json()) == (200, {"input_tokens": 77})
    assert answer.headers["x-usage-source"] == "provider"
    (request,) = up.requests
    assert request.path == "/v1/messages/count_tokens"
    assert request.headers["anthropic-beta"] == "b-1"
    assert set(request.json()) == {
        "model", "messages", "system", "tools", "tool_choice", "thinking", "output_config",
        "context_management",
    }  # fmt: skip


COUNTS: list[tuple[dict[str, Any], int, str]] = [
    ({"status": 404}, 200, "estimated"),
    ({"status": 405, "error": {"type": "x", "message": "no"}}, 200, "estimated"),
    ({"status": 400, "error": {"type": "invalid_request_error", "message": "bad"}}, 400, ""),
    ({"status": 500}, 502, ""),
    ({"status": 401}, 502, ""),
    ({"tokens": 7}, 502, ""),
]


@pytest.mark.parametrize(("reply", "status", "source"), COUNTS, ids=str)
async def test_an_upstream_that_does_not_count(reply: dict[str, Any], status: int, source: str) -> None:
    """One that has no such path leaves us with an estimate; one that fails is a failure."""
    async with in_front_of("messages", reply) as (app, _):
        answer = await app.ask(asked(model="lab/claude-sonnet-4-5"), path=COUNT)
    assert answer.status == status, answer.text
    assert answer.headers.get("x-usage-source", "") == source


async def test_a_chat_upstream_cannot_count() -> None:
    """It is not asked, and the figure is an estimate."""
    async with in_front_of("chat") as (app, up):
        answer = await app.ask(asked(model="lab/claude-sonnet-4-5"), path=COUNT)
    assert (answer.status, answer.headers["x-usage-source"]) == (200, "estimated")
    assert not up.requests
