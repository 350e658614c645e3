"""What a Messages request becomes: every kind of content and option, and what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from messages_app import COUNT, PATH, WEATHER, asked, say
from support.chat_app import chat_app

from trio_agent.providers.contract import NamedTool, Options, ResponseFormat
from trio_agent.statemachine.conversation import (
    Image,
    Message,
    RedactedThinking,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from trio_agent.wire.messages_content import UNSIGNED

PNG = "iVBORw0KGgo="
MARK = {"type": "ephemeral", "ttl": "1h"}
USER = {"role": "user", "content": "Hello"}
HELLO = Message("user", (Text("Hello"),))


async def received(**fields: Any) -> Any:
    """The request that the provider was asked with."""
    async with chat_app() as app:
        answer = await say(app, **fields)
        assert answer.status == 200, answer.text
        return app.requests[0]


CONTENT: list[tuple[str, Any, tuple[Any, ...]]] = [
    ("a string", "Hi", (Text("Hi"),)),
    ("blocks", [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": MARK}],
     (Text("a"), Text("b", MARK))),
    ("an image", [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG},
                   "cache_control": MARK}],
     (Image(f"data:image/png;base64,{PNG}", None, MARK),)),
    ("an image by URL", [{"type": "image", "source": {"type": "url", "url": "https://a.b/c.png"}}],
     (Image("https://a.b/c.png"),)),
    ("OpenAI's spelling", [{"type": "input_text", "text": "a"},
                           {"type": "image_url", "image_url": {"url": "https://a.b/c", "detail": "low"}}],
     (Text("a"), Image("https://a.b/c", "low"))),
    ("keys that nobody knows", [{"type": "text", "text": "a", "citations": None, "x": [1]}], (Text("a"),)),
]  # fmt: skip


@pytest.mark.parametrize(("content", "parts"), [row[1:] for row in CONTENT], ids=[row[0] for row in CONTENT])
async def test_every_kind_of_content_arrives(content: Any, parts: tuple[Any, ...]) -> None:
    """Text and images in a user message, with caching markers."""
    request = await received(messages=[{"role": "user", "content": content}])
    assert request.messages == (Message("user", parts),)


async def test_a_whole_conversation_arrives() -> None:
    """System text, thinking of all kinds, calls with arguments as they were written, results with images."""
    odd = '{"n": 1.50, "big": 123456789012345678901234567890, "ü": [ ]}'
    history = [
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "sig+/="},
            {"type": "redacted_thinking", "data": "xyz="},
            {"type": "text", "text": "Let me"},
            {"type": "tool_use", "id": "t1", "name": "weather", "input": "ODD", "cache_control": MARK},
            {"type": "tool_use", "id": "t2", "name": "weather", "input": {}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t1", "cache_control": MARK, "content": [
                {"type": "text", "text": "4 C"},
                {"type": "image", "source": {"type": "url", "url": "https://a.b/c.png"}}]},
            {"type": "tool_result", "tool_use_id": "t2", "content": "", "is_error": True},
            {"type": "text", "text": "And now?"},
        ]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "ours", "signature": UNSIGNED}]},
        {"role": "system", "content": "It is late"},
        {"role": "user", "content": "Go on"},
        {"role": "user", "content": "please"},
    ]  # fmt: skip
    system = [{"type": "text", "text": "Be brief", "cache_control": MARK}]
    body = json.dumps(asked(messages=[USER, *history], system=system, tools=[WEATHER]), ensure_ascii=False)
    async with chat_app() as app:
        answer = await app.ask(body.replace('"ODD"', odd).encode(), path=PATH)
        assert answer.status == 200, answer.text
        said = app.requests[0].messages
    assert said == (
        Message("system", (Text("Be brief", MARK),)),
        HELLO,
        Message("assistant", (
            Thinking("hm", "sig+/="), RedactedThinking("xyz="), Text("Let me"),
            ToolCall("t1", "weather", odd, cache_control=MARK), ToolCall("t2", "weather", "{}"))),
        Message("tool", (
            ToolResult("t1", (Text("4 C"), Image("https://a.b/c.png")), cache_control=MARK),
            ToolResult("t2", (), is_error=True))),
        Message("user", (Text("And now?"),)),
        Message("assistant", (Thinking("ours"),)),
        Message("system", (Text("It is late"),)),
        Message("user", (Text("Go on"),)),
        Message("user", (Text("please"),)),
    )  # fmt: skip


async def test_words_of_refusal_that_come_back_are_taken() -> None:
    """A refusal in OpenAI's spelling, from a history that another face began."""
    history = [USER, {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, USER]
    request = await received(messages=history)
    assert request.messages[1].parts == (Refusal("no"),)


OPTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"temperature": 0.5, "top_p": 0.9, "top_k": 40}, {"temperature": 0.5, "top_p": 0.9, "top_k": 40}),
    ({"max_tokens": 7}, {"max_output_tokens": 7}),
    ({"stop_sequences": ["a", "b"]}, {"stop": ("a", "b")}),
    ({"stop_sequences": []}, {}),
    ({"metadata": {"user_id": "u1"}}, {"user": "u1"}),
    ({"metadata": {}}, {}),
    ({"service_tier": "auto"}, {"service_tier": "auto"}),
    ({"service_tier": "standard_only"}, {"service_tier": "default"}),
    ({"tool_choice": {"type": "auto"}}, {"tool_choice": "auto"}),
    ({"tool_choice": {"type": "any"}}, {"tool_choice": "required"}),
    ({"tool_choice": {"type": "none"}}, {"tool_choice": "none"}),
    ({"tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}},
     {"tool_choice": NamedTool("weather"), "parallel_tool_calls": False}),
    ({"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
     {"response_format": ResponseFormat("json_schema", schema={"type": "object"}, strict=True)}),
    ({"output_format": {"type": "json_schema", "schema": {}}},
     {"response_format": ResponseFormat("json_schema", schema={}, strict=True)}),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "options"), OPTIONS, ids=lambda value: str(value)[:60])
async def test_options_that_every_wire_has(fields: dict[str, Any], options: dict[str, Any]) -> None:
    """Each becomes an option of ours; nothing else is said."""
    request = await received(tools=[WEATHER], **fields)
    assert request.options == Options(**({"max_output_tokens": 1000, "extra_wire": "messages"} | options))


async def test_fields_of_this_wire_only_go_along_as_they_came() -> None:
    """What Anthropic alone has reaches whoever speaks its format; so do the beta values that fields need."""
    fields = {
        "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {}}},
        "thinking": {"type": "enabled", "budget_tokens": 2000, "display": "omitted"},
        "context_management": {"edits": []},
        "cache_control": MARK,
        "metadata": {"user_id": "u" * 65},
        "inference_geo": None,
    }
    async with chat_app() as app:
        betas = {"anthropic-beta": "a-2025, b-2026,a-2025, ü,"}
        assert (await say(app, headers=betas, **fields)).status == 200
        options = app.requests[0].options
    assert options.extra == {
        "output_config": {"effort": "high"},
        "thinking": fields["thinking"],
        "context_management": {"edits": []},
        "cache_control": MARK,
        "metadata": {"user_id": "u" * 65},
    }
    assert options.betas == ("a-2025", "b-2026")


async def test_tools_arrive() -> None:
    """All of a definition that every model can use; hints for Anthropic's own servers are named."""
    schema = {"$schema": "x", "type": "object", "additionalProperties": False}
    tools = [
        {"name": "a", "description": "A", "input_schema": schema, "strict": True, "cache_control": MARK},
        {"name": "b", "type": "custom", "input_schema": {}, "defer_loading": True, "input_examples": [{}]},
        {"name": "c", "input_schema": {}, "defer_loading": False, "eager_input_streaming": None},
    ]
    async with chat_app() as app:
        answer = await say(app, tools=tools, tool_choice={"type": "none"})
        assert answer.headers["x-ignored"] == "tools.defer_loading, tools.input_examples"
        assert app.requests[0].tools == (
            Tool("a", "A", schema, True, MARK),
            Tool("b", None, {}),
            Tool("c", None, {}),
        )
        (row,) = app.store.turns.values()
        assert row.notes == (
            "the field tools.defer_loading was left out",
            "the field tools.input_examples was left out",
        )


async def test_hosted_tools_are_left_out_and_said() -> None:
    """What Anthropic's servers would run is named in the header and in the turn's record."""
    tools = [
        {"type": "web_search_20250305", "name": "web_search"},
        WEATHER,
        {"type": "mcp_toolset"},
        {"type": "web_search_20260318", "name": "web_search"},
    ]
    async with chat_app() as app:
        answer = await say(app, tools=tools, mcp_servers=[{"url": "x"}], tool_choice={"type": "none"})
        left_out = "web_search_20250305, mcp_toolset, web_search_20260318, mcp_servers"
        assert answer.headers["x-ignored"] == left_out
        assert [tool.name for tool in app.requests[0].tools] == ["weather"]
        (row,) = app.store.turns.values()
        assert "the hosted tool mcp_servers was left out" in row.notes


def _user(*blocks: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, *blocks]}]}


def _assistant(*blocks: Any) -> dict[str, Any]:
    return {"messages": [USER, {"role": "assistant", "content": [*blocks]}, USER]}


def _result(content: Any) -> dict[str, Any]:
    call = {"type": "tool_use", "id": "t", "name": "weather", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": content}
    return {
        "messages": [USER, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    }


B1 = "messages[0].content[1]"
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"messages": []}, "invalid_request", "messages"),
    ({"messages": None}, "invalid_request", "messages"),
    ({"max_tokens": None}, "invalid_request", "max_tokens"),
    ({"max_tokens": 0}, "invalid_request", "max_tokens"),
    ({"max_tokens": "many"}, "invalid_request", "max_tokens"),
    ({"model": None}, "invalid_request", "model"),
    ({"model": "dmeo"}, "unknown_model", "model"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "invalid_request", "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "invalid_request", "messages[0].content"),
    ({"messages": [USER, {"role": "user", "content": 7}]}, "invalid_request", "messages[1].content"),
    (_user(7), "invalid_request", B1),
    (_user({"text": "x"}), "invalid_request", f"{B1}.type"),
    (_user({"type": "text"}), "invalid_content_part", B1),
    (_user({"type": "text", "text": 7}), "invalid_content_part", B1),
    (_user({"type": "text", "text": "a", "cache_control": 1}), "invalid_content_part", B1),
    (_user({"type": "document", "source": {}}), "unsupported_content_type", B1),
    (_user({"type": "search_result", "content": []}), "unsupported_content_type", B1),
    (_user({"type": "image"}), "invalid_content_part", B1),
    (_user({"type": "image", "source": {"type": "file", "file_id": "f"}}), "invalid_content_part", B1),
    (_user({"type": "image", "source": {"type": "url", "url": "file:///a"}}), "invalid_image_url", B1),
    (_user({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "%"}}),
     "invalid_image_url", B1),
    (_user({"type": "tool_use", "id": "t", "name": "n", "input": {}}), "invalid_content_part", B1),
    (_user({"type": "thinking", "thinking": "x", "signature": "s"}), "invalid_content_part", B1),
    (_user({"type": "tool_result"}), "invalid_request", f"{B1}.tool_use_id"),
    (_user({"type": "tool_result", "tool_use_id": ""}), "invalid_content_part", B1),
    (_user({"type": "tool_result", "tool_use_id": "t"}), "invalid_tool_results", "messages[0]"),
    (_assistant({"type": "image", "source": {"type": "url", "url": "https://a.b"}}), "invalid_content_part",
     "messages[1].content[0]"),
    (_assistant({"type": "tool_result", "tool_use_id": "t"}), "invalid_content_part",
     "messages[1].content[0]"),
    (_assistant({"type": "tool_use", "id": "t", "name": "n", "input": "x"}), "invalid_content_part",
     "messages[1].content[0]"),
    (_assistant({"type": "tool_use", "id": "", "name": "n"}), "invalid_content_part",
     "messages[1].content[0]"),
    (_assistant({"type": "tool_use", "name": "n"}), "invalid_request", "messages[1].content[0].id"),
    (_assistant({"type": "redacted_thinking"}), "invalid_request", "messages[1].content[0].data"),
    (_assistant({"type": "thinking", "thinking": 7}), "invalid_request", "messages[1].content[0].thinking"),
    (_assistant({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}),
     "unsupported_content_type", "messages[1].content[0]"),
    (_result([{"type": "document"}]), "unsupported_content_type", "messages[2].content[0].content[0]"),
    (_result([{"type": "text"}]), "invalid_content_part", "messages[2].content[0].content[0]"),
    (_result([7]), "invalid_request", "messages[2].content[0].content[0]"),
    (_result({"a": 1}), "invalid_request", "messages[2].content[0].content"),
    ({"system": [{"type": "image", "source": {"type": "url", "url": "https://a.b"}}]},
     "invalid_content_part", "system[0]"),
    ({"system": 7}, "invalid_request", "system"),
    ({"tools": [{"input_schema": {}}]}, "invalid_request", "tools[0].name"),
    ({"tools": [{"name": "a"}]}, "invalid_request", "tools[0].input_schema"),
    ({"tools": [WEATHER, WEATHER]}, "invalid_request", "tools[1].name"),
    ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "unsupported_parameter", "tools[0]"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "unsupported_parameter", "tools[0]"),
    ({"tools": [{"type": "computer_toolset_20260801"}]}, "unsupported_parameter", "tools[0]"),
    ({"tools": [WEATHER], "tool_choice": "auto"}, "invalid_request", "tool_choice"),
    ({"tools": [WEATHER], "tool_choice": {"type": "some"}}, "invalid_request", "tool_choice.type"),
    ({"tools": [WEATHER], "tool_choice": {"type": "tool"}}, "invalid_request", "tool_choice.name"),
    ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "x"}}, "invalid_request", "tool_choice"),
    ({"tool_choice": {"type": "any"}}, "invalid_request", "tool_choice"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}], "tool_choice": {"type": "any"}},
     "unsupported_parameter", "tool_choice"),
    ({"tools": [WEATHER, {"type": "web_search_20250305", "name": "web_search"}],
      "tool_choice": {"type": "tool", "name": "web_search"}}, "unsupported_parameter", "tool_choice"),
    ({"output_config": {"format": {"type": "xml"}}}, "invalid_request", "output_config.format"),
    ({"output_config": {"format": {"type": "json_schema"}}}, "invalid_request",
     "output_config.format.schema"),
    ({"output_format": "json"}, "invalid_request", "output_format"),
    ({"thinking": "hard"}, "invalid_request", "thinking"),
    ({"thinking": {"type": "perhaps"}}, "invalid_request", "thinking.type"),
    ({"compaction": {"type": "summarize"}}, "unsupported_parameter", "compaction"),
    ({"thread": {"type": "fork"}}, "invalid_request", "thread.type"),
    ({"thread": "create"}, "invalid_request", "thread"),
    ({"thread": {}}, "invalid_request", "thread.type"),
    ({"thread": {"type": "continue"}}, "invalid_request", "thread.previous_message_id"),
    ({"thread": {"type": "continue", "previous_message_id": 1}}, "invalid_request",
     "thread.previous_message_id"),
    ({"routing_hint": {"role": "poet"}, "model": None}, "unknown_role", "routing_hint.role"),
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fields", "code", "param"), REFUSED, ids=lambda value: str(value)[:60])
async def test_what_cannot_be_honoured_is_refused_by_name(
    fields: dict[str, Any], code: str, param: str | None, stream: bool
) -> None:
    """A 400 in Anthropic's envelope names the place, before any model call, streamed or not."""
    async with chat_app() as app:
        answer = await say(app, **{"stream": stream, **fields})
        assert answer.status == 400, answer.text
        body = answer.json()
        assert list(body) == ["type", "error"]
        assert body["type"] == "error"
        error = body["error"]
        assert (error["code"], error["type"]) == (code, "invalid_request_error"), error
        assert error["param"] == (param or None)
        assert error["message"]
        assert answer.headers["x-should-retry"] == "false"
        assert (app.requests, app.store.turns) == ([], {})


PLACES = [
    # the system text and a split message move our own numbers; the client's are what it is told
    ([USER, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}], "messages[1]"),
    ([USER, {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "weather"}]},
      {"role": "user", "content": [{"type": "text", "text": "a"},
                                   {"type": "tool_result", "tool_use_id": "t", "content": "b"}]},
      {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "c"}]}],
     "messages[3]"),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "place"), PLACES)
@pytest.mark.parametrize("path", [PATH, COUNT])
async def test_places_are_those_of_the_clients_request(messages: Any, place: str, path: str) -> None:
    """An error that comes up behind the face is told in the client's own numbers, in text and `param`."""
    config = {"agent": {"system_prompt": "Be kind"}}
    async with chat_app(config) as app:
        answer = await app.ask(asked(system="Be brief", messages=messages), path=path)
    assert answer.status == 400
    assert answer.error["param"] == place
    assert place in answer.error["message"]


async def test_a_session_is_a_label() -> None:
    """Claude Code's own header is one too; the general ones win."""
    async with chat_app() as app:
        await say(app, headers={"X-Claude-Code-Session-Id": "cc"})
        await say(app, headers={"X-Claude-Code-Session-Id": "cc", "X-Session-Id": "mine"})
        assert [row.session_id for row in app.store.turns.values()] == ["cc", "mine"]
        assert {row.face for row in app.store.turns.values()} == {"messages"}


async def test_a_role_chooses_the_model() -> None:
    """`routing_hint.role` without `model`; the answer names what was asked for."""
    config = {"routing": {"roles": {"fast": ["demo"]}}}
    async with chat_app(config) as app:
        answer = await say(app, model=None, routing_hint={"role": "fast"})
    assert (answer.status, answer.json()["model"]) == (200, "fast")


STREAMS = [
    ({}, {}, False),
    ({"stream": None}, {"accept": "text/event-stream"}, True),
    ({"stream": False}, {"accept": "text/event-stream"}, False),
    ({"stream": True}, {}, True),
]


@pytest.mark.parametrize(("fields", "headers", "streamed"), STREAMS)
async def test_when_an_answer_is_streamed(
    fields: dict[str, Any], headers: dict[str, str], streamed: bool
) -> None:
    """What the body says; else what the client accepts; else not."""
    async with chat_app() as app:
        answer = await say(app, headers=headers, **fields)
    kind = "text/event-stream" if streamed else "application/json"
    assert answer.headers["content-type"].startswith(kind)
