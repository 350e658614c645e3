"""From a model call to the body of POST /v1/messages: what is sent, what is refused, what is kept."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_agent.errors import AgentError
from trio_agent.providers.anthropic_decode import MessagesDecoder
from trio_agent.providers.anthropic_encode import build_request, wire_id
from trio_agent.providers.anthropic_models import FAMILIES, UNKNOWN, describe, family
from trio_agent.providers.contract import NamedTool, Options, ProviderRequest, ResponseFormat
from trio_agent.providers.folding import fold
from trio_agent.providers.http import HttpSettings, UpstreamHttp
from trio_agent.statemachine.conversation import (
    Image,
    Message,
    Part,
    ProviderReasoning,
    RedactedThinking,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from trio_agent.wire.messages import decode_model_page
from trio_agent.wire.sse import SSEParser

FIXTURES = Path(__file__).parents[2] / "fixtures" / "upstream"
OLD, MIDDLE, NEW, NEWEST = "claude-sonnet-4-5", "claude-opus-4-6", "claude-opus-4-8", "claude-opus-5-5"
MARK = {"type": "ephemeral"}
ADD = Tool("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}})


def body(
    *messages: Message, model: str = OLD, tools: tuple[Tool, ...] = (), **options: Any
) -> dict[str, Any]:
    """The body as an upstream would decode it."""
    request = ProviderRequest(model=model, messages=messages, tools=tools, options=Options(**options))
    built = build_request(request, family(model), "anthropic")
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(built))
    return decoded


def user(*parts: Part) -> Message:
    return Message("user", parts)


def assistant(*parts: Part) -> Message:
    return Message("assistant", parts)


def system(text: str) -> Message:
    return Message("system", (Text(text),))


HELLO = user(Text("hello"))
CALL = assistant(ToolCall("toolu_1", "add", '{"a": 1}'))
RESULT = Message("tool", (ToolResult("toolu_1", (Text("1"),)),))


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def test_the_smallest_request() -> None:
    """A call is always streamed and always says how much may be generated."""
    assert body(HELLO) == {
        "model": OLD,
        "max_tokens": 25_000,
        "stream": True,
        "messages": [{"role": "user", "content": [text("hello")]}],
    }


MESSAGES: dict[str, tuple[tuple[Message, ...], list[dict[str, Any]]]] = {
    "neighbours of one role are one message": (
        (user(Text("a")), user(Text("b")), assistant(Text("c")), assistant(Text("d")), user(Text("e"))),
        [
            {"role": "user", "content": [text("a"), text("b")]},
            {"role": "assistant", "content": [text("c"), text("d")]},
            {"role": "user", "content": [text("e")]},
        ],
    ),
    "empty texts and empty messages are left out": (
        (user(Text(""), Text(" \n"), Text("a")), assistant(Text("")), user(Text("b"))),
        [{"role": "user", "content": [text("a"), text("b")]}],
    ),
    "tool results come first in their message, in their order": (
        (
            HELLO,
            assistant(ToolCall("x", "add", "{}"), ToolCall("y", "add", "")),
            user(Text("by the way")),
            Message("tool", (ToolResult("y", (Text("2"), Image("https://e.x/i.png"))),)),
            Message("tool", (ToolResult("x", (), is_error=True, cache_control=MARK),)),
        ),
        [
            {"role": "user", "content": [text("hello")]},
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "x", "name": "add", "input": {}},
                    {"type": "tool_use", "id": "y", "name": "add", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "y",
                        "content": [
                            text("2"),
                            {"type": "image", "source": {"type": "url", "url": "https://e.x/i.png"}},
                        ],
                    },
                    {"type": "tool_result", "tool_use_id": "x", "is_error": True, "cache_control": MARK},
                    text("by the way"),
                ],
            },
        ],
    ),
    "reasoning keeps its place; what is unsigned or another vendor's is not sent": (
        (
            HELLO,
            assistant(
                Thinking("unsigned"),
                Thinking(" kept\n", "SIG+/="),
                RedactedThinking("DATA"),
                ProviderReasoning("{}"),
                Refusal("I must not."),
                Thinking("", "SIG2"),
                ToolCall("t", "add", ""),
            ),
            Message("tool", (ToolResult("t", ()),)),
        ),
        [
            {"role": "user", "content": [text("hello")]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": " kept\n", "signature": "SIG+/="},
                    {"type": "redacted_thinking", "data": "DATA"},
                    text("I must not."),
                    {"type": "thinking", "thinking": "", "signature": "SIG2"},
                    {"type": "tool_use", "id": "t", "name": "add", "input": {}},
                ],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]},
        ],
    ),
    "an answer does not end with thinking, and one of nothing else is none": (
        (
            HELLO,
            assistant(Text("cut"), Thinking("off", "SIG"), RedactedThinking("DATA")),
            user(Text("go on")),
            assistant(Thinking("only", "SIG2")),
        ),
        [
            {"role": "user", "content": [text("hello")]},
            {"role": "assistant", "content": [text("cut")]},
            {"role": "user", "content": [text("go on")]},
        ],
    ),
    "a marker inside a tool result is the result's": (
        (
            HELLO,
            assistant(ToolCall("a", "add", "{}"), ToolCall("b", "add", "{}")),
            Message(
                "tool",
                (
                    ToolResult("a", (Text("1", cache_control=MARK), Text("2"))),
                    ToolResult("b", (Text("3"),), cache_control=MARK),
                ),
            ),
        ),
        [
            {"role": "user", "content": [text("hello")]},
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "a", "name": "add", "input": {}},
                    {"type": "tool_use", "id": "b", "name": "add", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "a",
                        "content": [text("1"), text("2")],
                        "cache_control": MARK,
                    },
                    {
                        "type": "tool_result",
                        "tool_use_id": "b",
                        "content": [text("3")],
                        "cache_control": MARK,
                    },
                ],
            },
        ],
    ),
    "images and markers": (
        (
            user(
                Text("look", cache_control=MARK),
                Image("data:image/png;base64,iVBORw0K", detail="low", cache_control=MARK),
                Image("data:image/jpg,%FF%D8"),
                Image("data:image/gif;base64,R0lG%2B%2F8%3D"),
            ),
        ),
        [
            {
                "role": "user",
                "content": [
                    {**text("look"), "cache_control": MARK},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0K"},
                        "cache_control": MARK,
                    },
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/jpeg", "data": "/9g="},
                    },
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/gif", "data": "R0lG+/8="},
                    },
                ],
            }
        ],
    ),
    "arguments that are no object are shown to the model as it wrote them": (
        (
            HELLO,
            assistant(
                ToolCall("a", "add", '{"a": 1'), ToolCall("b", "add", "[1]"), ToolCall("c", "add", '"x"')
            ),
        ),
        [
            {"role": "user", "content": [text("hello")]},
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "a", "name": "add", "input": {"_raw_arguments": '{"a": 1'}},
                    {"type": "tool_use", "id": "b", "name": "add", "input": {"_raw_arguments": "[1]"}},
                    {"type": "tool_use", "id": "c", "name": "add", "input": {"_raw_arguments": '"x"'}},
                ],
            },
        ],
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages(name: str) -> None:
    """Each case of the table is one rule about messages."""
    messages, expected = MESSAGES[name]
    assert body(*messages)["messages"] == expected


SYSTEM: dict[str, tuple[str, tuple[Message, ...], list[str], list[tuple[str, list[str]]]]] = {
    "at the head": (
        OLD,
        (system("a"), Message("developer", (Text("b"),)), HELLO),
        ["a", "b"],
        [("user", ["hello"])],
    ),
    "alone": (OLD, (system("a"), system("b")), [], [("user", ["a", "b"])]),
    "later, on a model that takes none there": (
        OLD,
        (HELLO, system("now")),
        [],
        [("user", ["hello", "<system-reminder>\nnow\n</system-reminder>"])],
    ),
    "later, after the user": (
        NEW,
        (system("a"), HELLO, system("now"), Message("developer", (Text("and"),)), assistant(Text("yes"))),
        ["a"],
        [("user", ["hello"]), ("system", ["now", "and"]), ("assistant", ["yes"])],
    ),
    "later, last": (NEW, (HELLO, system("now")), [], [("user", ["hello"]), ("system", ["now"])]),
    "later, after the assistant": (
        NEW,
        (HELLO, assistant(Text("yes")), system("now"), user(Text("go"))),
        [],
        [
            ("user", ["hello"]),
            ("assistant", ["yes"]),
            ("user", ["<system-reminder>\nnow\n</system-reminder>", "go"]),
        ],
    ),
    "later, between two of the user": (
        NEW,
        (HELLO, system("now"), user(Text("go"))),
        [],
        [("user", ["hello", "<system-reminder>\nnow\n</system-reminder>", "go"])],
    ),
}


@pytest.mark.parametrize("name", SYSTEM)
def test_system_messages(name: str) -> None:
    """No system text is lost or moved, wherever it stands and whatever the model takes."""
    model, messages, head, expected = SYSTEM[name]
    built = body(*messages, model=model)
    assert [block["text"] for block in built.get("system", [])] == head
    assert [
        (message["role"], [block["text"] for block in message["content"]]) for message in built["messages"]
    ] == expected


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_tool_call_ids_stay_apart_and_stay_the_same(call_id: str) -> None:
    """Any id becomes one that the wire takes, the same in the call and in the result."""
    built = body(HELLO, assistant(ToolCall(call_id, "f", "{}")), user(ToolResult(call_id, (Text("r"),))))
    sent = built["messages"][1]["content"][0]["id"]
    assert sent == built["messages"][2]["content"][0]["tool_use_id"] == wire_id(call_id)
    assert sent.replace("-", "a").replace("_", "a").isalnum()
    assert sent.isascii()
    assert wire_id(call_id + "!") != sent


@pytest.mark.parametrize(
    "arguments", ['{"a": 1.50, "n": 12345678901234567890123, "s": "\\u00e9"}', "{ }", '{"a":{"b":[]}}']
)
def test_arguments_go_back_byte_for_byte(arguments: str) -> None:
    """Numbers, escapes and blanks of a call's arguments are as the model wrote them."""
    request = ProviderRequest(model=OLD, messages=(HELLO, assistant(ToolCall("a", "f", arguments))))
    assert f'"input":{arguments}'.encode() in msgspec.json.encode(build_request(request, family(OLD), "a"))


@pytest.mark.parametrize("name", ["thinking-tool", "thinking-interleaved", "thinking-omitted", "redacted"])
def test_an_answer_goes_back_as_it_came(name: str) -> None:
    """Decoded, folded and encoded again, reasoning and its signatures are the bytes that the vendor sent."""
    decoder = MessagesDecoder(UpstreamHttp(HttpSettings(base_url="http://upstream.test")))
    data = (FIXTURES / f"messages-{name}.sse").read_bytes()
    events = decoder.feed(SSEParser().feed(data))
    answer = body(HELLO, fold(events).message)["messages"][1]["content"]
    assert [block["type"] for block in answer] == BLOCKS[name]
    for block in answer:
        for kept in (block.get("signature"), block.get("data")):
            assert kept is None or f'"{kept}"'.encode() in data
    if name == "thinking-tool":
        assert answer[0]["thinking"] == "The user wants the weather."
        assert answer[2]["input"] == {"location": "San Francisco"}


BLOCKS = {
    "thinking-tool": ["thinking", "text", "tool_use"],
    "thinking-interleaved": ["thinking", "tool_use", "thinking", "tool_use"],
    "thinking-omitted": ["thinking", "text"],
    "redacted": ["thinking", "redacted_thinking", "text"],
}


def test_tools() -> None:
    """Schemas pass untouched, `strict` where the model can guarantee it, and `type` is never missing."""
    schema = {"$schema": "x", "type": "object", "properties": {}, "additionalProperties": False}
    tools = (
        Tool("a", None, schema, strict=True, cache_control=MARK),
        Tool("b", "B", strict=False),
        Tool("c", "", {}),
    )
    assert body(HELLO, tools=tools)["tools"] == [
        {"name": "a", "input_schema": schema, "strict": True, "cache_control": MARK},
        {"name": "b", "description": "B", "input_schema": {"type": "object"}},
        {"name": "c", "description": "", "input_schema": {"type": "object"}},
    ]
    assert "strict" not in body(HELLO, tools=tools, model="claude-sonnet-4-20250514")["tools"][0]


SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}
OPTIONS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (OLD, {}, {}),
    (OLD, {"temperature": 0.0, "top_k": 5}, {"temperature": 0.0, "top_k": 5}),
    (NEW, {"temperature": 1.0, "top_p": 1.0}, {}),
    (OLD, {"top_p": 0.9}, {"top_p": 0.9}),
    (OLD, {"stop": ("END",)}, {"stop_sequences": ["END"]}),
    (OLD, {"max_output_tokens": 7}, {"max_tokens": 7}),
    (OLD, {"metadata": {"trace": "1"}, "store": True, "prompt_cache_key": "k", "verbosity": "medium"}, {}),
    (OLD, {"presence_penalty": 0.0, "frequency_penalty": 0.0, "logit_bias": {}}, {}),
    (OLD, {"user": "u"}, {"metadata": {"user_id": "u"}}),
    (OLD, {"user": "u", "safety_identifier": "s"}, {"metadata": {"user_id": "s"}}),
    (OLD, {"user": "u", "metadata": {"user_id": "m", "x": "y"}}, {"metadata": {"user_id": "m"}}),
    (OLD, {"service_tier": "default"}, {"service_tier": "standard_only"}),
    (OLD, {"response_format": ResponseFormat("text")}, {}),
    (
        OLD,
        {"response_format": ResponseFormat("json_schema", "n", SCHEMA, True)},
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    ),
    # Thinking with a budget: the limit makes room for it.
    (
        OLD,
        {"reasoning_budget": 2000},
        {"thinking": {"type": "enabled", "budget_tokens": 2000}, "max_tokens": 27_000},
    ),
    (
        OLD,
        {"reasoning_budget": 63_990},
        {"thinking": {"type": "enabled", "budget_tokens": 63_990}, "max_tokens": 64_000},
    ),
    (
        OLD,
        {"reasoning_effort": "high"},
        {"thinking": {"type": "enabled", "budget_tokens": 16_384}, "max_tokens": 41_384},
    ),
    (
        OLD,
        {"reasoning_effort": "high", "max_output_tokens": 8000},
        {"thinking": {"type": "enabled", "budget_tokens": 4000}, "max_tokens": 8000},
    ),
    (
        OLD,
        {"reasoning_effort": "low", "max_output_tokens": 100},
        {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 1124},
    ),
    (OLD, {"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
    # Adaptive thinking: effort in words, rounded down to what the model has.
    (MIDDLE, {"reasoning_effort": "high"}, {"thinking": "adaptive", "output_config": {"effort": "high"}}),
    (MIDDLE, {"reasoning_effort": "xhigh"}, {"thinking": "adaptive", "output_config": {"effort": "high"}}),
    (MIDDLE, {"reasoning_effort": "max"}, {"thinking": "adaptive", "output_config": {"effort": "max"}}),
    (NEW, {"reasoning_effort": "xhigh"}, {"thinking": "adaptive", "output_config": {"effort": "xhigh"}}),
    (NEW, {"reasoning_effort": "minimal"}, {"thinking": "adaptive", "output_config": {"effort": "low"}}),
    (NEW, {"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
    ("claude-sonnet-5-5", {"reasoning_effort": "none"}, {"thinking": {"type": "between_tools"}}),
    (
        MIDDLE,
        {"reasoning_budget": 2000, "top_p": 0.95},
        {"thinking": {"type": "enabled", "budget_tokens": 2000}, "top_p": 0.95, "max_tokens": 127_000},
    ),
    # What the Messages wire brought along.
    (
        NEW,
        {"extra": {"inference_geo": "eu", "stream": False, "model": "x"}, "extra_wire": "messages"},
        {"inference_geo": "eu"},
    ),
    (
        NEW,
        {
            "extra": {"thinking": {"type": "adaptive"}, "output_config": {"x": 1, "effort": "low"}},
            "extra_wire": "messages",
            "reasoning_effort": "high",
        },
        {"thinking": {"type": "adaptive"}, "output_config": {"x": 1, "effort": "high"}},
    ),
    (OLD, {"extra": {"frequency_penalty": 1}, "extra_wire": "chat"}, {}),
]


@pytest.mark.parametrize(("model", "options", "expected"), OPTIONS)
def test_options(model: str, options: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each option is on the wire as the module's list says, and nothing else is."""
    built = body(HELLO, model=model, **options)
    if expected.get("thinking") == "adaptive":
        expected = expected | {"thinking": {"type": "adaptive", "display": "summarized"}}
    default = {"max_tokens": 25_000 if model == OLD else 125_000}
    rest = {name: value for name, value in built.items() if name not in {"model", "messages", "stream"}}
    assert rest == default | expected
    assert (built["model"], built["stream"]) == (model, True)


CHOICES: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
    ({}, None),
    ({"tool_choice": "auto"}, {"type": "auto"}),
    ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}),
    ({"tool_choice": "required"}, {"type": "any"}),
    ({"tool_choice": NamedTool("add")}, {"type": "tool", "name": "add"}),
    ({"parallel_tool_calls": True}, None),
    ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
    (
        {"tool_choice": "required", "parallel_tool_calls": False},
        {"type": "any", "disable_parallel_tool_use": True},
    ),
]


@pytest.mark.parametrize(("options", "expected"), CHOICES)
def test_tool_choice(options: dict[str, Any], expected: dict[str, Any] | None) -> None:
    """Tool choices and parallel calls are one field; without tools it is not sent, or a demand refused."""
    assert body(HELLO, tools=(ADD,), **options).get("tool_choice") == expected
    if expected is not None and expected["type"] in ("any", "tool"):
        with pytest.raises(AgentError) as caught:
            body(HELLO, **options)
        assert caught.value.param == "tool_choice"
    else:
        assert "tool_choice" not in body(HELLO, **options)


def test_adaptive_thinking_goes_with_a_forced_call() -> None:
    """Only a budget forbids a forced call; adaptive thinking does not."""
    built = body(HELLO, model=NEW, tools=(ADD,), tool_choice="required", reasoning_effort="high")
    assert built["tool_choice"] == {"type": "any"}


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (OLD, {"seed": 0}, "seed"),
    (OLD, {"presence_penalty": 0.1}, "presence_penalty"),
    (OLD, {"frequency_penalty": -0.1}, "frequency_penalty"),
    (OLD, {"logit_bias": {"1": 1.0}}, "logit_bias"),
    (OLD, {"verbosity": "low"}, "verbosity"),
    (OLD, {"temperature": 1.5}, "temperature"),
    (NEW, {"temperature": 0.5}, "temperature"),
    (NEW, {"top_p": 0.5}, "top_p"),
    (NEW, {"top_k": 1}, "top_k"),
    (OLD, {"temperature": 0.5, "reasoning_budget": 1024}, "temperature"),
    (OLD, {"top_k": 5, "reasoning_effort": "low"}, "top_k"),
    (MIDDLE, {"top_p": 0.5, "reasoning_effort": "low"}, "top_p"),
    (
        OLD,
        {"temperature": 0.5, "extra": {"thinking": {"type": "adaptive"}}, "extra_wire": "messages"},
        "temperature",
    ),
    (OLD, {"reasoning_budget": 1023}, "reasoning_budget"),
    (NEW, {"reasoning_budget": 2000}, "reasoning_budget"),
    (OLD, {"reasoning_budget": 2000, "max_output_tokens": 2000}, "reasoning_budget"),
    (OLD, {"reasoning_effort": "enormous"}, "reasoning_effort"),
    (NEWEST, {"reasoning_effort": "none"}, "reasoning_effort"),
    ("claude-3-5-haiku-20241022", {"reasoning_effort": "low"}, "reasoning_effort"),
    (OLD, {"tool_choice": "required", "reasoning_effort": "low"}, "tool_choice"),
    (NEWEST, {"tool_choice": NamedTool("add")}, "tool_choice"),
    (OLD, {"response_format": ResponseFormat("json_object")}, "response_format"),
    (OLD, {"response_format": ResponseFormat("json_schema")}, "response_format"),
    ("claude-sonnet-4-0", {"response_format": ResponseFormat("json_schema", "n", SCHEMA)}, "response_format"),
    (OLD, {"service_tier": "flex"}, "service_tier"),
]


@pytest.mark.parametrize(("model", "options", "param"), REFUSED)
def test_refused_options(model: str, options: dict[str, Any], param: str) -> None:
    """What cannot be honoured is a 400 that names the option."""
    with pytest.raises(AgentError) as caught:
        body(HELLO, model=model, tools=(ADD,), **options)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert "anthropic" in caught.value.message


PARTS: list[tuple[Message, str, str]] = [
    (user(Image("data:image/tiff;base64,AAAA")), "unsupported_content_type", "messages[1].content[0]"),
    (user(Text("x"), Image("data:;base64,AAAA")), "unsupported_content_type", "messages[1].content[1]"),
    (user(Image("data:image/png;base64,")), "invalid_image_url", "messages[1].content[0]"),
    (user(Image("data:image/png")), "invalid_image_url", "messages[1].content[0]"),
    (user(Image("data:image/png;base64,????")), "invalid_image_url", "messages[1].content[0]"),
    (assistant(Image("https://e.x/i.png")), "unsupported_content_type", "messages[1].content[0]"),
    (
        user(ToolResult("x", (Text("a"), Image("data:image/bmp;base64,AAAA")))),
        "unsupported_content_type",
        "messages[1].content[0].content[1]",
    ),
]


@pytest.mark.parametrize(("message", "code", "param"), PARTS)
def test_refused_parts(message: Message, code: str, param: str) -> None:
    """A part that the wire cannot carry is a 400 that says where it stands."""
    with pytest.raises(AgentError) as caught:
        body(HELLO, message)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, param)


@pytest.mark.parametrize(
    "messages", [(), (user(Text("")),), (user(), assistant(Text(" \n"))), (user(Thinking("Hm", None)),)]
)
def test_a_conversation_of_nothing_is_refused(messages: tuple[Message, ...]) -> None:
    """The upstream takes no empty list; the error names what the client calls its messages."""
    with pytest.raises(AgentError) as caught:
        body(*messages)
    assert (caught.value.code, caught.value.param) == ("invalid_request", "messages")


@pytest.mark.parametrize(
    ("model", "row"),
    [
        ("claude-opus-4-20250514", "claude-opus-4"),
        ("claude-opus-4-1-20250805", "claude-opus-4"),
        ("claude-opus-4-8", "claude-opus-4-8"),
        ("claude-opus-4-5-20251101", "claude-opus-4-5"),
        ("Claude-Sonnet-5-5", "claude-sonnet-5-5"),
        ("claude-sonnet-5", "claude-sonnet-5"),
        ("claude-fable-5-2", "claude-fable"),
        ("claude-mythos-5", "claude-mythos"),
        ("claude-haiku-5-5", "claude-haiku-5-5"),
        ("claude-haiku-6", "claude-"),
        ("claude-opus-45", "claude-"),
        ("claude-3-haiku-20240307", "claude-3"),
        ("kimi-k3", None),
    ],
)
def test_families(model: str, row: str | None) -> None:
    """Dated and versioned ids fall to the row that is meant, and strangers to none."""
    assert family(model) is (UNKNOWN if row is None else dict(FAMILIES)[row])


def test_the_listing_knows_better_than_the_table() -> None:
    """Limits and capabilities that the API lists replace those of the table; silence does not."""
    supported, unsupported = {"supported": True}, {"supported": False}
    page = {
        "data": [
            {
                "id": "claude-opus-4-5-20251101",
                "max_input_tokens": 400_000,
                "capabilities": {
                    "effort": {"supported": True, "low": supported, "medium": supported, "high": unsupported},
                    "image_input": unsupported,
                    "thinking": {
                        "supported": True,
                        "types": {"adaptive": supported, "enabled": unsupported, "between_tools": supported},
                    },
                },
            },
            {"id": "claude-opus-4-5-20251101"},
        ]
    }
    rich, poor = (describe(model) for model in decode_model_page(msgspec.json.encode(page)).data)
    assert (rich.context_window, rich.max_output_tokens) == (400_000, 64_000)
    assert (rich.adaptive, rich.budget, rich.off, rich.vision) == (True, False, "between_tools", False)
    assert rich.efforts == ("low", "medium")
    assert rich.structured_outputs
    assert poor is family("claude-opus-4-5")


def test_a_long_conversation_costs_time_in_proportion() -> None:
    """Twelve thousand messages take a fraction of a second, also where they all become one on the wire."""
    messages = tuple(message for _ in range(6000) for message in (user(Text("x")), system(Text("y"))))
    begun = time.process_time()
    body(*messages, model=NEW)
    assert time.process_time() - begun < 0.7


def system(*parts: Part) -> Message:
    return Message("system", parts)
