"""Chat Completions streams, from the bytes to the events, cut at every place."""

from __future__ import annotations

import time
from collections.abc import Iterable
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_agent.providers.answer_decoder import WholeBody
from trio_agent.providers.contract import UpstreamError
from trio_agent.providers.http import HttpSettings, UpstreamHttp
from trio_agent.providers.openai_compatible import CHAT_COMPLETIONS
from trio_agent.providers.openai_decode import FINISH_REASONS, ChatDecoder
from trio_agent.providers.openai_quirks import Quirks
from trio_agent.providers.openai_reasoning import MAX_CHARS, ReasoningBlocks
from trio_agent.providers.presets import GEMINI, OPENROUTER, XAI
from trio_agent.statemachine.conversation import Usage
from trio_agent.statemachine.events import (
    CallEvent,
    CallFinished,
    ReasoningData,
    ReasoningDelta,
    ReasoningEnded,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    UsageReported,
)
from trio_agent.wire.chat import decode_chunk
from trio_agent.wire.sse import SSEEvent, SSEParser

FIXTURES = Path(__file__).parents[2] / "fixtures" / "upstream"
HTTP = UpstreamHttp(HttpSettings(base_url="http://upstream.test"))

OSLO = '{"city":"Oslo"}'
ROME = '{"city":"Rome"}'


def decode(
    chunks: Iterable[bytes], quirks: Quirks = CHAT_COMPLETIONS.quirks
) -> tuple[list[CallEvent], str | None]:
    """The events of a stream, and the kind and code of its failure if it fails."""
    ids = count(1)
    decoder = ChatDecoder(HTTP, quirks, lambda: f"made_{next(ids)}")
    parser = SSEParser()
    events: list[CallEvent] = []
    for chunk in chunks:
        events += decoder.feed(parser.feed(chunk))
        if decoder.over:
            break
    if not decoder.over:
        events += decoder.end()
    return events, _kind(decoder.failure)


def _kind(error: UpstreamError | None) -> str | None:
    if error is None:
        return None
    failure = error.failure
    return failure.kind if failure.code is None else f"{failure.kind} {failure.code}"


def done(reason: str = "stop", id_: str = "chatcmpl-1", model: str = "gpt-test-1") -> CallFinished:
    return CallFinished(reason, id_, model)  # type: ignore[arg-type]


def call(index: int, id_: str, name: str, *arguments: str, data: str | None = None) -> list[CallEvent]:
    return [ToolCallStarted(index, id_, name, data), *(ToolCallDelta(index, piece) for piece in arguments)]


def think(*pieces: str) -> list[CallEvent]:
    return [*(ReasoningDelta(piece) for piece in pieces), ReasoningEnded()]


def used(cost: str | None = None, **tokens: int) -> UsageReported:
    return UsageReported(Usage(**tokens), None if cost is None else Decimal(cost))


EXPECTED: dict[str, tuple[list[CallEvent], str | None]] = {
    "text": ([TextDelta("Hello"), TextDelta(", wörld \u2028 😀"), done()], None),
    "usage": (
        [TextDelta("Hi"), used(input_tokens=19, output_tokens=7, cached_input_tokens=16), done()],
        None,
    ),
    "usage-on-finish": (
        [TextDelta("Hi"), used(input_tokens=19, output_tokens=7, cached_input_tokens=16), done()],
        None,
    ),
    "refusal": ([RefusalDelta("I can"), RefusalDelta("not."), done()], None),
    "reasoning": (
        [
            *think("Let me", " think."),
            TextDelta("42"),
            used(input_tokens=5, output_tokens=9, reasoning_tokens=6),
            done(),
        ],
        None,
    ),
    "tool-call": ([*call(0, "call_a", "get_weather", '{"ci', 'ty":"Oslo"}'), done("tool_calls")], None),
    "tool-calls-interleaved": (
        [
            TextDelta("Both."),
            *call(0, "call_a", "get_weather"),
            *call(1, "call_b", "get_time"),
            ToolCallDelta(0, '{"city":'),
            ToolCallDelta(1, '{"zone":"UTC"'),
            ToolCallDelta(0, '"Oslo"}'),
            ToolCallDelta(1, "}"),
            done("tool_calls"),
        ],
        None,
    ),
    "tool-call-whole": ([*call(0, "call_a", "get_weather", OSLO), done("tool_calls")], None),
    "tool-calls-no-index": (
        [
            *call(0, "call_a", "get_weather", '{"ci', 'ty":"Oslo"}'),
            *call(1, "call_b", "get_time", "{}"),
            done("tool_calls"),
        ],
        None,
    ),
    "tool-calls-repeated-names": (
        [*call(0, "call_a", "get_weather", '{"ci', 'ty":"Oslo"}'), done("tool_calls")],
        None,
    ),
    "tool-calls-empty-ids": (
        [
            *call(0, "made_1", "get_weather", OSLO),
            *call(1, "made_2", "get_weather", ROME),
            done("tool_calls"),
        ],
        None,
    ),
    "tool-call-object-arguments": (
        [*call(0, "call_a", "get_weather", '{"city":"Oslo","days":1.5}'), done("tool_calls")],
        None,
    ),
    "crlf-comments": ([TextDelta("a"), TextDelta("b"), done()], None),
    "no-done": ([TextDelta("Hi"), done()], None),
    "no-done-no-blank-line": ([TextDelta("Hi"), done()], None),
    "no-finish": ([TextDelta("Hi")], "truncated"),
    "broken-json": ([TextDelta("Hi")], "malformed"),
    "cut": ([TextDelta("Hi")], "truncated"),
    "error": ([TextDelta("Hi")], "unavailable server_error"),
    "empty": ([], "truncated"),
    "only-done": ([], "truncated"),
    "length": ([TextDelta("Once upon"), done("length")], None),
    "content-filter": ([TextDelta("Well"), done("content_filter")], None),
    "unknown-finish": ([TextDelta("Hi")], "unavailable"),
    "odd-types": ([TextDelta("Hi"), used(input_tokens=3, output_tokens=1), done()], None),
    "ollama": (
        [
            *think("Need", " weather."),
            *call(0, "call_x1", "get_weather", OSLO),
            used(input_tokens=158, output_tokens=23),
            done("tool_calls", "chatcmpl-713", "qwen3:8b"),
        ],
        None,
    ),
    "vllm": (
        [
            *think("Hm"),
            *call(0, "chatcmpl-tool-1", "get_weather", '{"city":', ' "Oslo"}'),
            used(input_tokens=100, output_tokens=20),
            done("tool_calls", "chatcmpl-77", "Qwen/Qwen3-8B"),
        ],
        None,
    ),
    "openrouter": (
        [
            *think("Let", " me"),
            TextDelta("Hi"),
            used(
                "0.00014725",
                input_tokens=40,
                output_tokens=12,
                cached_input_tokens=8,
                cache_write_tokens=4,
                reasoning_tokens=5,
            ),
            ReasoningData(
                '{"reasoning_details":[{"type":"reasoning.text","text":"Let me",'
                '"format":"anthropic-claude-v1","index":0,"signature":"c2ln"},{"type":"reasoning.encrypted","data":"ZW5j","id":"rs_1",'
                '"format":"anthropic-claude-v1","index":1}]}'
            ),
            done("stop", "gen-1", "anthropic/claude-test"),
        ],
        None,
    ),
    "openrouter-error": ([TextDelta("Hi")], "unavailable"),
    "gemini": (
        [
            TextDelta("Looking."),
            used(input_tokens=50, output_tokens=41, reasoning_tokens=30),
            *call(
                0,
                "function-call-1",
                "get_weather",
                OSLO,
                data='{"extra_content":{"google":{"thought_signature":"CvQB+/="}}}',
            ),
            *call(1, "function-call-2", "get_weather", ROME),
            done("tool_calls", "abc123", "gemini-test"),
        ],
        None,
    ),
    "mistral-thinking": (
        [
            *think("Hm."),
            TextDelta("Yes"),
            used(input_tokens=4, output_tokens=3),
            done("stop", "m1", "magistral-test"),
        ],
        None,
    ),
    "xai": (
        [
            *think("Hm"),
            TextDelta("Hi"),
            used(
                "0.0000563500",
                input_tokens=32,
                output_tokens=103,
                cached_input_tokens=6,
                reasoning_tokens=94,
            ),
            done("stop", "x1", "grok-test"),
        ],
        None,
    ),
}
QUIRKS = {
    "openrouter": OPENROUTER.quirks,
    "openrouter-error": OPENROUTER.quirks,
    "gemini": GEMINI.quirks,
    "xai": XAI.quirks,
}


def test_every_stream_has_an_expectation() -> None:
    """No fixture is forgotten, and each is described."""
    names = {path.name.removeprefix("chat-").removesuffix(".sse") for path in FIXTURES.glob("chat-*.sse")}
    assert names == set(EXPECTED)
    readme = (FIXTURES / "README.md").read_text("utf-8")
    assert [name for name in sorted(names) if f"`chat-{name}`" not in readme] == []


@pytest.mark.parametrize("name", EXPECTED)
def test_a_stream_becomes_its_events_however_it_is_cut(name: str) -> None:
    """The events are those of the table for the whole stream, byte by byte, and for every cut in two."""
    stream = (FIXTURES / f"chat-{name}.sse").read_bytes()
    quirks = QUIRKS.get(name, CHAT_COMPLETIONS.quirks)
    assert decode([stream], quirks) == EXPECTED[name]
    assert decode((stream[i : i + 1] for i in range(len(stream))), quirks) == EXPECTED[name]
    for cut in range(len(stream)):
        assert decode([stream[:cut], stream[cut:]], quirks) == EXPECTED[name]


@pytest.mark.parametrize("name", [name for name, (_, failure) in EXPECTED.items() if failure is None])
def test_a_stream_that_ends_early_never_looks_complete(name: str) -> None:
    """Every proper beginning of a good stream fails as `truncated`, until its `finish_reason` has come."""
    stream = (FIXTURES / f"chat-{name}.sse").read_bytes()
    finish = max(stream.find(f'"finish_reason":"{reason}"'.encode()) for reason in FINISH_REASONS)
    if finish < 0:
        finish = stream.find(b'"finish_reason": "stop"')
    assert finish > 0
    for cut in range(finish):
        events, failure = decode([stream[:cut]], QUIRKS.get(name, CHAT_COMPLETIONS.quirks))
        assert failure == "truncated"
        assert not any(isinstance(event, CallFinished) for event in events)


def stream_of(*values: Any) -> list[bytes]:
    return [b"data: " + msgspec.json.encode(value) + b"\n\n" for value in values]


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **extra: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}], **extra}


def test_nothing_after_the_end_marker_is_read() -> None:
    """`[DONE]` ends the answer, whatever the upstream still says."""
    stream = [
        *stream_of(chunk({"content": "a"}, "stop")),
        b"data: [DONE]\n\n",
        *stream_of({"error": {"message": "x"}}),
    ]
    assert decode([b"".join(stream)]) == ([TextDelta("a"), CallFinished("stop")], None)


def test_only_the_first_choice_is_the_answer() -> None:
    """Chunks of a second choice, which nobody asked for, are not mixed in."""
    second = {"choices": [{"index": 1, "delta": {"content": "B"}, "finish_reason": "length"}]}
    assert decode(stream_of(chunk({"content": "A"}), second, chunk({}, "stop"))) == (
        [TextDelta("A"), CallFinished("stop")],
        None,
    )


FINISHES = [
    ("stop", "stop"),
    ("eos", "stop"),
    ("end_turn", "stop"),
    ("STOP", "stop"),
    ("length", "length"),
    ("model_length", "length"),
    ("content_filter", "content_filter"),
    ("SAFETY", "content_filter"),
    ("content_filter: PROHIBITED_CONTENT", "content_filter"),
    ("BLOCKLIST", "content_filter"),
    ("function_call_filter: MALFORMED_FUNCTION_CALL", "unavailable"),
    ("insufficient_system_resource", "unavailable"),
    ("function_call", "stop"),  # there is no call: what was said is the answer
    ("error", "unavailable"),
    ("abort", "unavailable"),
    ("who_knows", "malformed"),
    ("", "truncated"),
]


@pytest.mark.parametrize(("word", "outcome"), FINISHES)
def test_words_for_the_end(word: str, outcome: str) -> None:
    """What means an end is mapped, and what does not clearly mean one is a failure."""
    events, failure = decode(stream_of(chunk({"content": "a"}), chunk({}, word)))
    last = events[-1]
    assert outcome == (failure or (last.finish_reason if isinstance(last, CallFinished) else None))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "m", "code": 429}, "rate_limited"),
        ({"message": "m", "code": "429"}, "rate_limited"),
        ({"message": "m", "code": 400, "type": "BadRequestError"}, "rejected BadRequestError"),
        ({"message": "m", "code": "rate_limit_exceeded"}, "rate_limited rate_limit_exceeded"),
        ({"message": "m", "type": "insufficient_quota"}, "unauthorized insufficient_quota"),
        ({"message": "m", "type": "invalid_request_error"}, "rejected invalid_request_error"),
        ({"message": "m", "type": "authentication_error"}, "unauthorized authentication_error"),
        ({"message": "maximum context length is 5"}, "rejected context_length_exceeded"),
        ({"message": "m", "code": 1234}, "unavailable"),
        ("it broke", "unavailable"),
        ({"strange": 1}, "unavailable"),
    ],
)
def test_an_error_in_the_stream_fails_by_what_it_says(error: Any, kind: str) -> None:
    """An error object ends the call with the kind that its status, code or type stands for."""
    assert decode(stream_of(chunk({"content": "a"}), {"error": error})) == ([TextDelta("a")], kind)


@pytest.mark.parametrize("nothing", [None, {}, "", False])
def test_an_empty_error_is_none(nothing: Any) -> None:
    """`"error": null` on every chunk, as some servers send it, is no failure."""
    assert decode(stream_of(chunk({"content": "a"}, "stop", error=nothing)))[1] is None


def test_an_error_event_without_json_is_an_error() -> None:
    """`event: error` fails the call even if its data is plain text."""
    assert decode([b"event: error\ndata: boom\n\n"])[1] == "unavailable"
    assert decode([b'event: error\ndata: {"message": "slow down", "code": 429}\n\n'])[1] == "rate_limited"


def test_usage_repeated_is_reported_once_and_replaced() -> None:
    """The same usage again says nothing; a later one stands."""
    first = {"prompt_tokens": 5, "completion_tokens": 1}
    later = {"prompt_tokens": 5, "completion_tokens": 2}
    events, _ = decode(
        stream_of(chunk(usage=first), chunk(usage=first), chunk({"content": "a"}, "stop", usage=later))
    )
    reports = [event for event in events if isinstance(event, UsageReported)]
    assert reports == [used(input_tokens=5, output_tokens=1), used(input_tokens=5, output_tokens=2)]


USAGES: list[tuple[dict[str, Any], Quirks, UsageReported | None]] = [
    ({"prompt_tokens": 0, "completion_tokens": 0}, Quirks(), None),
    (
        {"prompt_tokens": 9, "completion_tokens": 2, "prompt_cache_hit_tokens": 4},
        Quirks(),
        used(input_tokens=9, output_tokens=2, cached_input_tokens=4),
    ),
    (
        {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 20},
        Quirks(),
        used(input_tokens=9, output_tokens=2),
    ),
    ({"prompt_tokens": 1, "cost": 0.5}, Quirks(), used(input_tokens=1)),
    (
        {"prompt_tokens": 1, "completion_tokens": 1, "cost_usd": "0.000001"},
        Quirks(),
        used("0.000001", input_tokens=1, output_tokens=1),
    ),
    (
        {
            "prompt_tokens": 1,
            "completion_tokens": 1,
            "cost": 0.05,
            "is_byok": True,
            "cost_details": {"upstream_inference_cost": 1.1},
        },
        Quirks(cost=True),
        used("1.15", input_tokens=1, output_tokens=1),
    ),
    (
        {"prompt_tokens": -5, "completion_tokens": 3, "cost_usd": "NaN"},
        Quirks(),
        used(output_tokens=3),
    ),
]


@pytest.mark.parametrize(("usage", "quirks", "report"), USAGES)
def test_usage_by_server(usage: dict[str, Any], quirks: Quirks, report: UsageReported | None) -> None:
    """Token classes and costs are taken where a server has them, and never made up."""
    events, _ = decode(stream_of(chunk({"content": "a"}, "stop", usage=usage)), quirks)
    assert [event for event in events if isinstance(event, UsageReported)] == ([report] if report else [])


def test_an_answer_in_one_piece() -> None:
    """A server that ignores streaming gives the events that a stream would have given."""
    body = {
        "id": "c1",
        "object": "chat.completion",
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Hi",
                    "reasoning_content": "Hm",
                    "tool_calls": [
                        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                        {"id": "b", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                    ],
                },
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    }
    decoder = ChatDecoder(HTTP, Quirks(), lambda: "never")
    assert decoder.feed([WholeBody(None, msgspec.json.encode(body), None)]) == [
        *think("Hm"),
        TextDelta("Hi"),
        *call(0, "a", "f", "{}"),
        *call(1, "b", "f", "{}"),
        used(input_tokens=1, output_tokens=2),
        CallFinished("tool_calls", "c1", "m"),
    ]
    assert decoder.finished


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"choices": []}', b'{"choices": [{}]}', b'{"cho'])
def test_json_that_is_no_answer_is_a_failure(body: bytes) -> None:
    """Whatever else comes as a whole body is never an empty success."""
    decoder = ChatDecoder(HTTP, Quirks(), lambda: "never")
    assert decoder.feed([WholeBody(None, body, None)]) == []
    assert _kind(decoder.failure) in ("malformed", "truncated")


def fragment(
    index: int | None = None, id_: str | None = None, name: str | None = None, arguments: Any = None
) -> dict[str, Any]:
    wired: dict[str, Any] = {"function": {"name": name, "arguments": arguments}}
    return wired | {key: value for key, value in (("index", index), ("id", id_)) if value is not None}


FRAGMENTS: dict[str, tuple[list[dict[str, Any]], list[CallEvent]]] = {
    "the name comes after the id": (
        [fragment(0, "a"), fragment(0, None, None, "{"), fragment(0, None, "f", "}")],
        call(0, "a", "f", "{}"),
    ),
    "no index and no id after the first": (
        [fragment(None, "a", "f", ""), fragment(None, None, None, "{}")],
        call(0, "a", "f", "{}"),
    ),
    "index 0 for all, ids differ": (
        [fragment(0, "a", "f", "{}"), fragment(0, "b", "f", "{}")],
        [*call(0, "a", "f", "{}"), *call(1, "b", "f", "{}")],
    ),
    "one id for two calls": (
        [fragment(0, "a", "f", "{}"), fragment(1, "a", "g", "{}")],
        [*call(0, "a", "f", "{}"), *call(1, "made_1", "g", "{}")],
    ),
    "no ids, no arguments, two names": (
        [fragment(0, "", "f", ""), fragment(0, "", "g", "")],
        [
            *call(0, "made_1", "f"),
            *call(1, "made_2", "g"),
            ToolCallDelta(0, "{}"),
            ToolCallDelta(1, "{}"),
        ],
    ),
    "indexes with gaps": (
        [fragment(3, "a", "f", "{}"), fragment(7, "b", "g", "{}")],
        [*call(0, "a", "f", "{}"), *call(1, "b", "g", "{}")],
    ),
    "arguments that are not JSON": ([fragment(0, "a", "f", "{oops")], call(0, "a", "f", "{oops")),
}


@pytest.mark.parametrize("name", FRAGMENTS)
def test_tool_calls_from_servers_with_ways_of_their_own(name: str) -> None:
    """Fragments find their call, no call is lost or doubled, and ids are unique."""
    fragments, expected = FRAGMENTS[name]
    chunks = [chunk({"tool_calls": [piece]}) for piece in fragments]
    assert decode(stream_of(*chunks, chunk({}, "tool_calls"))) == (
        [*expected, CallFinished("tool_calls")],
        None,
    )


def test_a_tool_call_without_a_name_is_a_failure() -> None:
    """Arguments for nothing cannot be acted on."""
    assert (
        decode(stream_of(chunk({"tool_calls": [fragment(0, "a", None, "{}")]}, "tool_calls")))[1]
        == "malformed"
    )


def test_tool_calls_announced_and_not_made_are_a_failure() -> None:
    """An answer that ends for a tool call but holds nothing is not an empty success."""
    assert decode(stream_of(chunk({}, "tool_calls"))) == ([], "malformed")


def test_an_empty_answer_that_says_it_is_complete_is_one() -> None:
    """After a tool result a model may have nothing to add; it says `stop`, and that is an answer."""
    assert decode(stream_of(chunk({}, "stop"))) == ([CallFinished("stop")], None)


def test_good_events_of_a_batch_are_delivered_before_its_failure() -> None:
    """One read may hold text and the error after it: the text comes out, then the failure."""
    decoder = ChatDecoder(HTTP, Quirks(), lambda: "never")
    events = [SSEEvent(None, msgspec.json.encode(chunk({"content": "a"})), None), SSEEvent(None, b"{", None)]
    assert decoder.feed(events) == [TextDelta("a")]
    assert _kind(decoder.failure) == "malformed"


@pytest.mark.parametrize("data", [b"", b"[]", b"1", b'"x"', b"{", b"\xff", b'{"id": "\xff"}', b"null"])
def test_what_is_no_object_is_not_decoded(data: bytes) -> None:
    """Only a JSON object is a chunk; the error is always the same one."""
    with pytest.raises(msgspec.DecodeError):
        decode_chunk(data)


KEYS = st.sampled_from(
    [
        "id",
        "model",
        "object",
        "choices",
        "usage",
        "error",
        "x_groq",
        "index",
        "delta",
        "message",
        "finish_reason",
        "content",
        "refusal",
        "reasoning",
        "reasoning_content",
        "reasoning_details",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "extra_content",
        "type",
        "text",
        "thinking",
        "summary",
        "code",
        "details",
        "metadata",
        "raw",
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "prompt_tokens_details",
        "cached_tokens",
        "cost",
        "cost_details",
        "is_byok",
        "upstream_inference_cost",
        "retryDelay",
    ]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "stop", "tool_calls", "error", "a", "429", "NaN", "sNaN", "1e999"])
)
JUNK = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)
DELTAS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("content", "reasoning", "reasoning_details", "tool_calls"), JUNK)
)
CHUNKS = JUNK | st.fixed_dictionaries(
    {
        "choices": st.lists(
            st.fixed_dictionaries({"delta": DELTAS | JUNK, "finish_reason": LEAVES}), max_size=2
        )
    },
    optional={"usage": JUNK, "error": JUNK, "x_groq": JUNK},
)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(CHUNKS, max_size=4), st.sampled_from([Quirks(), OPENROUTER.quirks, GEMINI.quirks]), st.booleans()
)
def test_no_answer_however_odd_crashes_the_adapter(values: list[Any], quirks: Quirks, whole: bool) -> None:
    """Any JSON gives events and one end, or a failure with a kind; nothing else escapes."""
    decoder = ChatDecoder(HTTP, quirks, lambda: "made")
    kind = WholeBody if whole else SSEEvent
    events = decoder.feed([kind(None, msgspec.json.encode(value), None) for value in values])
    if not decoder.over:
        events += decoder.end()
    finished = [event for event in events if isinstance(event, CallFinished)]
    assert len(finished) == (1 if decoder.failure is None else 0)
    assert not any(
        event.text == "" for event in events if isinstance(event, (TextDelta, ReasoningDelta, RefusalDelta))
    )
    assert not any(event.arguments == "" for event in events if isinstance(event, ToolCallDelta))


UNREADABLE = {
    "not UTF-8 in what goes back untouched": (
        b'{"choices":[{"delta":{"tool_calls":[{"extra_content":{"a":"\xff"},"function":{"name":"f"}}]}}]}'
    ),
    "not UTF-8 in an error": b'{"error":{"code":500,"\xff":1}}',
    "not UTF-8 in an error event": b'event: error\ndata: {"\xff":1}',
    "nested too deep": b'{"choices":' + b"[" * 100_000,
    "nested too deep where nobody looks": b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_malformed(name: str) -> None:
    """It fails the call, and does not crash the provider."""
    raw = UNREADABLE[name]
    data = raw if raw.startswith(b"event") else b"data: " + raw
    assert decode([data + b"\n\n"]) == ([], "malformed")


def test_an_id_that_the_conversation_has_already_is_not_given_again() -> None:
    """Servers that count from `call_0` in every answer would make two calls of a turn the same."""
    decoder = ChatDecoder(HTTP, Quirks(), lambda: "made", {"call_0"})
    piece = chunk({"tool_calls": [fragment(0, "call_0", "f", "{}"), fragment(1, "call_1", "f", "{}")]})
    assert decoder.feed([SSEEvent(None, msgspec.json.encode(piece), None)]) == [
        *call(0, "made", "f", "{}"),
        *call(1, "call_1", "f", "{}"),
    ]


def test_long_answers_cost_time_in_proportion() -> None:
    """Twenty thousand fragments take a fraction of a second, in the forms that invite to do worse."""
    details = {"reasoning_details": [{"type": "reasoning.text", "text": "word " * 20, "index": 0}]}
    named = {"tool_calls": [{"function": {"name": "f", "arguments": '{"a": "' + "b" * 100}}]}

    for delta in (details, named):
        decoder = ChatDecoder(HTTP, Quirks(), lambda: "made")
        event = SSEEvent(None, msgspec.json.encode(chunk(delta)), None)
        begun = time.process_time()
        decoder.feed([event] * 20_000)
        assert time.process_time() - begun < 0.7


def test_reasoning_blocks_are_bounded() -> None:
    """They are kept until the answer ends, where nothing else counts them."""
    blocks = ReasoningBlocks()
    piece = {"type": "reasoning.text", "text": "x" * (MAX_CHARS // 4)}
    with pytest.raises(UpstreamError, match="characters of reasoning"):
        blocks.take([piece] * 5)


@pytest.mark.parametrize(("by", "named"), [("END", "END"), (128009, None), (None, None), ([1], None)])
def test_vllm_names_the_stop_sequence(by: Any, named: str | None) -> None:
    """Its `stop_reason` is the caller's text, or the number of a token of the model's own."""
    choice = {"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop", "stop_reason": by}
    stream = b"data: %s\n\ndata: [DONE]\n\n" % msgspec.json.encode({"choices": [choice]})
    events, failure = decode([stream])
    assert failure is None
    assert events[-1] == CallFinished("stop", None, None, named)
