"""What a Chat Completions request may say, and what of it reaches the provider."""

from __future__ import annotations

from typing import Any

import pytest
from support.chat_app import chat_app

from trio_agent.providers.contract import NamedTool, Options, ResponseFormat
from trio_agent.statemachine.conversation import (
    Image,
    Message,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from trio_agent.wire.chat_request import ChatRequest

PNG = "data:image/png;base64,iVBORw0KGgo="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
USER = {"role": "user", "content": "Hello"}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}

# --- options --------------------------------------------------------------------------------------

OPTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"temperature": 0.2}, {"temperature": 0.2}),
    ({"temperature": 1}, {"temperature": 1.0}),
    ({"top_p": 0.5}, {"top_p": 0.5}),
    ({"max_tokens": 77}, {"max_output_tokens": 77}),
    ({"max_completion_tokens": 78}, {"max_output_tokens": 78}),
    ({"max_tokens": 77, "max_completion_tokens": 78}, {"max_output_tokens": 78}),
    ({"stop": "END"}, {"stop": ("END",)}),
    ({"stop": ["A", "B"]}, {"stop": ("A", "B")}),
    ({"stop": []}, {}),
    ({"seed": -3}, {"seed": -3}),
    ({"presence_penalty": 1.5}, {"presence_penalty": 1.5}),
    ({"frequency_penalty": -1}, {"frequency_penalty": -1.0}),
    ({"logit_bias": {"50256": -100}}, {"logit_bias": {"50256": -100.0}}),
    ({"tools": [WEATHER], "tool_choice": "auto"}, {"tool_choice": "auto"}),
    ({"tools": [WEATHER], "tool_choice": "none"}, {"tool_choice": "none"}),
    ({"tools": [WEATHER], "tool_choice": "required"}, {"tool_choice": "required"}),
    (
        {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
        {"tool_choice": NamedTool("weather")},
    ),
    ({"tools": [WEATHER], "parallel_tool_calls": False}, {"parallel_tool_calls": False}),
    ({"response_format": {"type": "text"}}, {"response_format": ResponseFormat("text")}),
    ({"response_format": {"type": "json_object"}}, {"response_format": ResponseFormat("json_object")}),
    (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "place", "schema": SCHEMA, "strict": True, "description": "d"},
            }
        },
        {"response_format": ResponseFormat("json_schema", "place", SCHEMA, True, "d")},
    ),
    ({"reasoning_effort": "high"}, {"reasoning_effort": "high"}),
    ({"verbosity": "low"}, {"verbosity": "low"}),
    ({"metadata": {"a": "b"}}, {"metadata": {"a": "b"}}),
    ({"user": "u1"}, {"user": "u1"}),
    ({"service_tier": "flex"}, {"service_tier": "flex"}),
    ({"prompt_cache_key": "k"}, {"prompt_cache_key": "k"}),
    ({"safety_identifier": "s"}, {"safety_identifier": "s"}),
    ({"store": False}, {"store": False}),
    # What stands for the default is no wish.
    ({"n": 1, "logprobs": False, "top_logprobs": 0, "modalities": ["text"], "functions": []}, {}),
    ({"stream_options": {"include_usage": True}, "function_call": "none"}, {}),
    # What has a meaning of ours goes on as it came, too: nobody knows what this provider speaks.
    ({"top_k": 7}, {"top_k": 7, "extra": {"top_k": 7}}),
    (
        {"reasoning": {"effort": "low", "exclude": True}},
        {"reasoning_effort": "low", "extra": {"reasoning": {"effort": "low", "exclude": True}}},
    ),
    (
        {"thinking": {"type": "enabled", "budget_tokens": 2000}},
        {"reasoning_budget": 2000, "extra": {"thinking": {"type": "enabled", "budget_tokens": 2000}}},
    ),
    # Unknown fields go on as they are, for an upstream that speaks the same format.
    (
        {"enable_thinking": True, "guided": {"deep": [1, None, "x"]}},
        {"extra": {"enable_thinking": True, "guided": {"deep": [1, None, "x"]}}},
    ),
]


@pytest.mark.parametrize(("fields", "expected"), OPTIONS, ids=lambda value: str(value)[:40])
async def test_an_option_reaches_the_provider(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """The provider is asked with exactly the options that the client named, and no other."""
    async with chat_app() as app:
        answer = await app.say(**fields)
        assert answer.status == 200, answer.text
        assert app.requests[0].options == Options(**expected, extra_wire="chat")


def test_the_table_of_options_is_complete() -> None:
    """Every field of a request is in the table above, or is known to be no option."""
    no_options = {"messages", "model", "stream", "audio", "routing_hint", "tools"}
    told = {name for fields, _ in OPTIONS for name in fields}
    assert set(ChatRequest.__struct_fields__) - told - no_options == set()


async def test_null_fields_are_absent_fields() -> None:
    """SDKs in other languages send null for what they do not say."""
    names = [name for name in ChatRequest.__struct_fields__ if name not in ("messages", "model")]
    async with chat_app() as app:
        answer = await app.say(**dict.fromkeys(names), unknown=None)
        assert answer.status == 200, answer.text
        assert app.requests[0].options == Options(extra={"unknown": None}, extra_wire="chat")


async def test_unknown_keys_inside_are_accepted() -> None:
    """Messages, parts, tools and calls carry keys that nobody knows yet, our own answers' among them."""
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Hi", "x": 1}], "x": 1},
        {
            "role": "assistant", "content": "Hello", "annotations": [], "audio": None, "refusal": None,
            "function_call": None, "reasoning_content": "hm", "x": {"y": []},
            "tool_calls": [{**CALL, "x": 1, "function": {**CALL["function"], "x": 1}}],  # type: ignore[dict-item]
        },
        {"role": "tool", "tool_call_id": "c1", "content": "Rain", "name": "weather", "is_error": False},
    ]  # fmt: skip
    tool = {**WEATHER, "x": 1, "function": {**WEATHER["function"], "x": 1}}  # type: ignore[dict-item]
    async with chat_app() as app:
        answer = await app.ask({"model": "demo", "messages": messages, "tools": [tool]})
        assert answer.status == 200, answer.text
        assert app.requests[0].tools == (Tool("weather", None, SCHEMA),)


# --- messages -------------------------------------------------------------------------------------

MESSAGES: list[tuple[dict[str, Any], Message]] = [
    ({"role": "system", "content": "Be brief"}, Message("system", (Text("Be brief"),))),
    ({"role": "developer", "content": "d"}, Message("developer", (Text("d"),))),
    ({"role": "user", "content": "Hi", "name": "ada"}, Message("user", (Text("Hi"),), "ada")),
    ({"role": "user", "content": ""}, Message("user", (Text(""),))),
    ({"role": "user", "content": []}, Message("user", ())),
    ({"role": "assistant", "content": "Hi"}, Message("assistant", (Text("Hi"),))),
    ({"role": "assistant", "content": None}, Message("assistant", ())),
    ({"role": "assistant", "refusal": "No."}, Message("assistant", (Refusal("No."),))),
    (
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}],
        },
        Message("assistant", (Text("a"), Refusal("b"))),
    ),
    (
        {"role": "assistant", "content": "Hi", "reasoning_content": "because"},
        Message("assistant", (Thinking("because"), Text("Hi"))),
    ),
    ({"role": "user", "content": [{"type": "text", "text": "t"}]}, Message("user", (Text("t"),))),
    ({"role": "user", "content": [{"type": "input_text", "text": "t"}]}, Message("user", (Text("t"),))),
    ({"role": "user", "content": [{"type": "output_text", "text": "t"}]}, Message("user", (Text("t"),))),
    (
        {"role": "user", "content": [{"type": "text", "text": "t", "cache_control": {"type": "ephemeral"}}]},
        Message("user", (Text("t", {"type": "ephemeral"}),)),
    ),
    (
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG, "detail": "low"}}]},
        Message("user", (Image(PNG, "low"),)),
    ),
    (
        {"role": "user", "content": [{"type": "image_url", "image_url": "https://example.com/a.png"}]},
        Message("user", (Image("https://example.com/a.png"),)),
    ),
    (
        {"role": "user", "content": [{"type": "input_image", "image_url": PNG, "detail": "high"}]},
        Message("user", (Image(PNG, "high"),)),
    ),
    (
        {
            "role": "user",
            "content": [
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
                }
            ],
        },
        Message("user", (Image(PNG),)),
    ),
    (
        {
            "role": "user",
            "content": [{"type": "image", "source": {"type": "url", "url": "http://example.com/a"}}],
        },
        Message("user", (Image("http://example.com/a"),)),
    ),
]


@pytest.mark.parametrize(("wire", "expected"), MESSAGES, ids=lambda value: str(value)[:60])
async def test_a_message_in_any_spelling_reaches_the_provider(
    wire: dict[str, Any], expected: Message
) -> None:
    """Text, images and refusals of the three formats' spellings are one and the same conversation."""
    async with chat_app() as app:
        answer = await app.ask({"model": "demo", "messages": [wire, USER]})
        assert answer.status == 200, answer.text
        assert app.requests[0].messages == (expected, Message("user", (Text("Hello"),)))


async def test_tool_calls_and_results_reach_the_provider_as_they_were_written() -> None:
    """Arguments that are no JSON and results in parts, images too, are passed on untouched."""
    broken = {"id": "c2", "type": "function", "function": {"name": "weather", "arguments": '{"city": '}}
    parts = [{"type": "text", "text": "Rain"}, {"type": "image_url", "image_url": {"url": PNG}}]
    messages = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [CALL, broken]},
        {"role": "tool", "tool_call_id": "c1", "content": parts},
        {"role": "tool", "tool_call_id": "c2", "content": None},
    ]
    async with chat_app() as app:
        answer = await app.ask({"model": "demo", "messages": messages, "tools": [WEATHER]})
        assert answer.status == 200, answer.text
        assert app.requests[0].messages[1:] == (
            Message("assistant", (ToolCall("c1", "weather", "{}"), ToolCall("c2", "weather", '{"city": '))),
            Message("tool", (ToolResult("c1", (Text("Rain"), Image(PNG))),)),
            Message("tool", (ToolResult("c2", ()),)),
        )


async def test_tools_reach_the_provider_with_their_schemas() -> None:
    """`$schema`, `strict`, `additionalProperties` and caching markers are passed through."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
              "additionalProperties": False, "properties": {}}  # fmt: skip
    function = {"name": "f", "description": "does", "parameters": schema, "strict": True}
    tool = {"type": "function", "function": function, "cache_control": {"type": "ephemeral"}}
    async with chat_app() as app:
        await app.say(tools=[tool], tool_choice="none")
        assert app.requests[0].tools == (Tool("f", "does", schema, True, {"type": "ephemeral"}),)


# --- refusals -------------------------------------------------------------------------------------


def _user(part: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, part]}]}


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"model": None}, "invalid_request", "model"),
    ({"model": "demoo"}, "unknown_model", "model"),
    ({"model": 5}, "invalid_request", "model"),
    ({"messages": []}, "invalid_request", "messages"),
    ({"messages": "hi"}, "invalid_request", "messages"),
    ({"messages": [USER, 3]}, "invalid_request", "messages[1]"),
    ({"messages": [USER, {"content": "x"}]}, "invalid_request", "messages[1].role"),
    ({"messages": [USER, {"role": "function", "content": "x"}]}, "invalid_request", "messages[1].role"),
    ({"messages": [{"role": "user"}]}, "invalid_request", "messages[0].content"),
    ({"messages": [{"role": "system", "content": None}]}, "invalid_request", "messages[0].content"),
    ({"messages": [{**USER, "tool_calls": [CALL]}]}, "invalid_request", "messages[0].tool_calls"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "invalid_request", "messages[0].tool_call_id"),
    (
        {"messages": [USER, {"role": "tool", "tool_call_id": "c9", "content": "x"}]},
        "invalid_tool_results",
        "messages[1]",
    ),
    (
        {"messages": [USER, {"role": "assistant", "tool_calls": [{**CALL, "id": ""}]}]},
        "invalid_request",
        "messages[1].tool_calls[0].id",
    ),
    (
        {
            "messages": [
                USER,
                {"role": "assistant", "tool_calls": [{"id": "c", "type": "custom", "custom": {}}]},
            ]
        },
        "unsupported_parameter",
        "messages[1].tool_calls[0]",
    ),
    (_user({"type": "file", "file": {"file_id": "f"}}), "unsupported_content_type", "messages[0].content[1]"),
    (_user({"type": "input_audio", "input_audio": {}}), "unsupported_content_type", "messages[0].content[1]"),
    (_user({"type": "video"}), "unsupported_content_type", "messages[0].content[1]"),
    (_user({"type": "input_image", "file_id": "f"}), "unsupported_content_type", "messages[0].content[1]"),
    (_user({"type": "text"}), "invalid_content_part", "messages[0].content[1]"),
    (_user({"type": "text", "text": None}), "invalid_content_part", "messages[0].content[1]"),
    (_user({"type": 7}), "invalid_content_part", "messages[0].content[1]"),
    (_user({"type": ["text"]}), "invalid_content_part", "messages[0].content[1]"),
    (_user({}), "invalid_content_part", "messages[0].content[1]"),
    (_user("text"), "invalid_request", "messages[0].content[1]"),
    (_user({"type": "refusal", "refusal": "no"}), "invalid_content_part", "messages[0].content[1]"),
    (_user({"type": "image_url"}), "invalid_content_part", "messages[0].content[1]"),
    (_user({"type": "image_url", "image_url": {"url": 1}}), "invalid_content_part", "messages[0].content[1]"),
    (
        _user({"type": "image_url", "image_url": {"url": PNG, "detail": 1}}),
        "invalid_content_part",
        "messages[0].content[1]",
    ),
    (_user({"type": "image", "source": {"type": "x"}}), "invalid_content_part", "messages[0].content[1]"),
    (
        _user({"type": "text", "text": "a", "cache_control": 1}),
        "invalid_content_part",
        "messages[0].content[1]",
    ),
    (_user({"type": "image_url", "image_url": "file:///a"}), "invalid_image_url", "messages[0].content[1]"),
    (_user({"type": "image_url", "image_url": "http://"}), "invalid_image_url", "messages[0].content[1]"),
    (_user({"type": "image_url", "image_url": "http://["}), "invalid_image_url", "messages[0].content[1]"),
    (
        _user({"type": "image_url", "image_url": "data:text/plain;base64,aGk="}),
        "invalid_image_url",
        "messages[0].content[1]",
    ),
    (
        _user({"type": "image_url", "image_url": "data:image/png;base64,%%%"}),
        "invalid_image_url",
        "messages[0].content[1]",
    ),
    (
        {"messages": [{"role": "system", "content": [{"type": "image_url", "image_url": PNG}]}]},
        "invalid_content_part",
        "messages[0].content[0]",
    ),
    ({"n": 2}, "unsupported_parameter", "n"),
    ({"n": 0}, "unsupported_parameter", "n"),
    ({"logprobs": True}, "unsupported_parameter", "logprobs"),
    ({"top_logprobs": 2}, "unsupported_parameter", "logprobs"),
    ({"functions": [{"name": "f"}]}, "unsupported_parameter", "functions"),
    ({"function_call": {"name": "f"}}, "unsupported_parameter", "function_call"),
    ({"modalities": ["text", "audio"]}, "unsupported_parameter", "modalities"),
    ({"audio": {"voice": "v", "format": "wav"}}, "unsupported_parameter", "modalities"),
    ({"max_tokens": 0}, "invalid_request", "max_tokens"),
    ({"max_completion_tokens": -1}, "invalid_request", "max_completion_tokens"),
    ({"temperature": "hot"}, "invalid_request", "temperature"),
    ({"stream": "yes"}, "invalid_request", "stream"),
    ({"stop": [1]}, "invalid_request", "stop[0]"),
    ({"metadata": {"b": "x", "a": 1}}, "invalid_request", "metadata.a"),
    ({"logit_bias": {"7": 1, "8": None}}, "invalid_request", "logit_bias.8"),
    ({"top_k": "many"}, "invalid_request", "top_k"),
    ({"reasoning": "high"}, "invalid_request", "reasoning"),
    ({"reasoning": {"effort": 3}}, "invalid_request", "reasoning.effort"),
    ({"reasoning": {"max_tokens": "3"}}, "invalid_request", "reasoning.max_tokens"),
    ({"thinking": {"type": "perhaps"}}, "invalid_request", "thinking.type"),
    ({"thinking": {"budget_tokens": True, "type": "enabled"}}, "invalid_request", "thinking.budget_tokens"),
    ({"response_format": {"type": "xml"}}, "invalid_request", "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "invalid_request", "response_format.json_schema"),
    ({"tools": [WEATHER, WEATHER]}, "invalid_request", "tools[1].function.name"),
    ({"tools": [{"type": "function"}]}, "invalid_request", "tools[0].function"),
    (
        {"tools": [{"type": "function", "function": {"name": ""}}]},
        "invalid_request",
        "tools[0].function.name",
    ),
    ({"tools": [{"type": "function", "function": {}}]}, "invalid_request", "tools[0].function.name"),
    ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "unsupported_parameter", "tools[0]"),
    ({"tools": [WEATHER], "tool_choice": "sometimes"}, "invalid_request", "tool_choice"),
    ({"tools": [WEATHER], "tool_choice": {"type": "function"}}, "invalid_request", "tool_choice"),
    (
        {"tools": [WEATHER], "tool_choice": {"type": "allowed_tools", "allowed_tools": {}}},
        "unsupported_parameter",
        "tool_choice",
    ),
    (
        {"tools": [{"type": "web_search"}], "tool_choice": "required"},
        "unsupported_parameter",
        "tool_choice",
    ),
    (
        {"tools": [WEATHER, {"type": "web_search"}], "tool_choice": {"type": "web_search"}},
        "unsupported_parameter",
        "tool_choice",
    ),
    ({"model": None, "routing_hint": {"role": "poet"}}, "unknown_role", "routing_hint.role"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fields", "code", "param"), REFUSED, ids=lambda value: str(value)[:50])
async def test_what_cannot_be_honoured_is_refused_by_name(
    fields: dict[str, Any], code: str, param: str, stream: bool
) -> None:
    """A 400 names the place, says not to repeat it, and comes before any model call, streamed or not."""
    async with chat_app() as app:
        answer = await app.ask({"model": "demo", "messages": [USER], "stream": stream, **fields})
        assert answer.status == 400, answer.text
        error = answer.error
        assert (error["code"], error["param"], error["type"]) == (code, param, "invalid_request_error")
        assert error["message"]
        assert answer.headers["x-should-retry"] == "false"
        assert answer.headers["content-type"] == "application/json"
        assert (app.requests, app.store.turns) == ([], {})


async def test_an_unknown_model_is_answered_with_close_matches() -> None:
    """Clients show the message to their users, so it names the model and what was perhaps meant."""
    async with chat_app() as app:
        message = (await app.say(model="dmeo")).error["message"]
        assert "'dmeo'" in message
        assert "'demo'" in message


# --- what is left out -----------------------------------------------------------------------------


async def test_hosted_tools_are_left_out_and_said() -> None:
    """Agents send them by default: the header, and the turn's record, say what was left out."""
    tools = [{"type": "web_search"}, WEATHER, {"type": "web_search"}, {"type": "code_interpreter"}]
    async with chat_app() as app:
        answer = await app.say(tools=tools, tool_choice="none")
        assert answer.headers["x-ignored"] == "web_search, code_interpreter"
        assert [tool.name for tool in app.requests[0].tools] == ["weather"]
        (row,) = app.store.turns.values()
        assert row.notes == (
            "the hosted tool web_search was left out",
            "the hosted tool code_interpreter was left out",
        )


@pytest.mark.parametrize("stream", [False, True])
async def test_a_made_up_tool_type_cannot_forge_headers(stream: bool) -> None:
    """Line breaks, commas and other bytes of a tool's type never reach the header as they are."""
    kinds = ["a\r\nX-Evil: 1", "b,c", "ö", "x" * 5000, *(f"t{number}" for number in range(100))]
    async with chat_app() as app:
        answer = await app.say(tools=[{"type": kind} for kind in kinds], stream=stream)
        assert answer.status == 200
        shown = answer.headers["x-ignored"]
        assert shown.startswith("a??X-Evil:?1, b?c, ?, " + "x" * 40 + ", t0, ")
        assert shown.endswith("and 84 more")
        assert len(shown) < 300


async def test_a_callers_tool_hides_a_server_tool_of_its_name() -> None:
    """It is said in X-Ignored, and the call goes to the caller."""

    def weather() -> str:
        """Never called here."""
        raise AssertionError

    async with chat_app(tools=[weather]) as app:
        answer = await app.say(tools=[WEATHER])
        assert answer.headers["x-ignored"] == "weather"
        assert answer.json()["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_long_text_of_the_clients_is_not_given_back_whole() -> None:
    """An error message that quotes a request is cut."""
    async with chat_app() as app:
        answer = await app.say(model=None, routing_hint={"role": "x" * 100_000})
        assert answer.error["code"] == "unknown_role"
        assert len(answer.error["message"]) < 2100


# --- manners of the answer --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "accept", "default", "streams"),
    [
        (None, None, False, False),
        (None, "application/json", False, False),
        (None, "text/event-stream", False, True),
        (None, "application/json, Text/Event-Stream;q=0.9", False, True),
        (None, None, True, True),
        (False, "text/event-stream", True, False),
        (True, "application/json", False, True),
    ],
)
async def test_when_an_answer_is_streamed(
    said: bool | None, accept: str | None, default: bool, streams: bool
) -> None:
    """The body decides; where it is silent, the Accept header; then the configured default."""
    async with chat_app({"server": {"stream_default": default}}) as app:
        body = {"model": "demo", "messages": [USER]} | ({} if said is None else {"stream": said})
        answer = await app.ask(body, {} if accept is None else {"accept": accept})
        assert answer.headers["content-type"].startswith(
            "text/event-stream" if streams else "application/json"
        )


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "inf", "", "1e999"])
async def test_a_preflight_window_that_is_no_number_is_refused(value: str) -> None:
    """The header is the client's wish; one that makes no sense is told."""
    async with chat_app() as app:
        answer = await app.ask({"model": "demo", "messages": [USER]}, {"X-Preflight-Timeout": value})
        assert (answer.status, answer.error["param"]) == (400, "X-Preflight-Timeout")


@pytest.mark.parametrize(
    ("headers", "label"),
    [
        ({}, None),
        ({"X-Session-Id": "s1"}, "s1"),
        ({"X-Client-Session-Id": "c1", "X-Session-Id": "s1"}, "c1"),
        ({"X-Client-Session-Id": "", "X-Session-Id": "s1"}, "s1"),
        ({"Session-Id": "codex", "X-Session-Id": "s1"}, "s1"),
        ({"Session-Id": "codex"}, "codex"),
        ({"X-Client-Session-Id": "c" * 256}, "c" * 256),
    ],
)
async def test_a_session_header_labels_the_turn(headers: dict[str, str], label: str | None) -> None:
    """The first session header that is there is in the turn's record, and changes nothing else."""
    async with chat_app() as app:
        answer = await app.ask({"model": "demo", "messages": [USER]}, headers)
        assert app.store.turns[answer.headers["x-turn-id"]].session_id == label
        assert app.requests[0].messages == (Message("user", (Text("Hello"),)),)


async def test_a_session_label_has_a_limit() -> None:
    """A label of more than 256 characters is no label."""
    async with chat_app() as app:
        answer = await app.ask({"model": "demo", "messages": [USER]}, {"X-Session-Id": "s" * 257})
        assert (answer.status, answer.error["param"]) == (400, "X-Client-Session-Id")


async def test_a_role_needs_no_model() -> None:
    """`routing_hint.role` chooses among its candidates; on a named model it changes nothing."""
    async with chat_app({"routing": {"roles": {"fast": ["length"]}}}) as app:
        routed = await app.say(model=None, routing_hint={"role": "fast"})
        assert (routed.status, routed.json()["model"]) == (200, "fast")
        assert app.requests[0].model == "length"
        named = await app.say(routing_hint={"role": "fast"})
        assert (named.json()["model"], app.requests[1].model) == ("demo", "demo")
