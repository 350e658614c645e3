"""The decoder of Anthropic's stream, against written fixtures (fixtures/upstream/README-messages.md)."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_agent.providers.answer_decoder import WholeBody
from trio_agent.providers.anthropic_decode import ERROR_STATUS, FINISH_REASONS, MessagesDecoder
from trio_agent.providers.contract import UpstreamError
from trio_agent.providers.http import HttpSettings, UpstreamHttp
from trio_agent.statemachine.conversation import Usage
from trio_agent.statemachine.events import (
    CallEvent,
    CallFinished,
    FinishReason,
    ReasoningDelta,
    ReasoningEnded,
    ReasoningSigned,
    RedactedReasoning,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    UsageReported,
)
from trio_agent.statemachine.failure import FailureKind
from trio_agent.wire.sse import SSEEvent, SSEParser

FIXTURES = Path(__file__).parents[2] / "fixtures" / "upstream"
HTTP = UpstreamHttp(HttpSettings(base_url="http://upstream.test"))
SIGNATURE = "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds/+fixture=="
SIGNATURE_2 = "EuYBCkQYAiJAf0Second+Signature/With=Padding=="
MODEL = "claude-sonnet-4-5-20250929"


def used(inputs: int, outputs: int, **classes: int) -> UsageReported:
    return UsageReported(Usage(input_tokens=inputs, output_tokens=outputs, **classes))


def finished(reason: FinishReason) -> CallFinished:
    return CallFinished(reason, "msg_01Fixture", MODEL)


WHOLE: dict[str, list[CallEvent]] = {
    "text": [
        used(12, 1),
        TextDelta("Grüße"),
        TextDelta(" aus\u2028Köln 👋"),
        used(12, 9),
        finished("stop"),
    ],
    "thinking-tool": [
        used(472, 2),
        ReasoningDelta("The user wants"),
        ReasoningDelta(" the weather."),
        ReasoningSigned(SIGNATURE),
        TextDelta("Let me look."),
        ToolCallStarted(0, "toolu_01A", "get_weather"),
        ToolCallDelta(0, '{"location"'),
        ToolCallDelta(0, ': "San Francisco"'),
        ToolCallDelta(0, "}"),
        used(472, 89, reasoning_tokens=31),
        finished("tool_calls"),
    ],
    "thinking-interleaved": [
        used(30, 1),
        ReasoningDelta("First, the list."),
        ReasoningSigned(SIGNATURE),
        ToolCallStarted(0, "toolu_01B", "list_files"),
        ToolCallDelta(0, "{}"),
        ReasoningDelta("Then the second look."),
        ReasoningSigned(SIGNATURE_2),
        ToolCallStarted(1, "toolu_01C", "read_file"),
        ToolCallDelta(1, '{"path": "a.txt"}'),
        used(30, 64),
        finished("tool_calls"),
    ],
    "thinking-omitted": [
        used(30, 1),
        ReasoningSigned(SIGNATURE),
        TextDelta("42"),
        used(30, 20),
        finished("stop"),
    ],
    "redacted": [
        used(25, 1),
        ReasoningDelta("Some of it is plain."),
        ReasoningSigned(SIGNATURE),
        RedactedReasoning("EmwKAhgBEgy3va3pzix/LafPsn4aDFIT2Xlxh0L5L8rLVyIwxtE3rAFBa8cr3qpP"),
        TextDelta("Done."),
        used(25, 40),
        finished("stop"),
    ],
    "parallel-tools": [
        used(50, 1),
        ToolCallStarted(0, "toolu_01D", "add"),
        ToolCallStarted(1, "toolu_01E", "multiply"),
        ToolCallDelta(0, '{"a": 1,'),
        ToolCallDelta(1, '{"a": 3,'),
        ToolCallDelta(0, ' "b": 2}'),
        ToolCallDelta(1, ' "b": 4}'),
        ToolCallStarted(2, "toolu_01F", "whole"),
        ToolCallDelta(2, '{"x": 1.5, "y": ["é"]}'),
        ToolCallStarted(3, "toolu_01G", "nothing"),
        ToolCallDelta(3, "{}"),
        used(50, 77),
        finished("tool_calls"),
    ],
    "cache": [
        used(189_607, 1, cached_input_tokens=188_086, cache_write_tokens=1500, cache_write_1h_tokens=1000),
        TextDelta("Cached."),
        used(189_607, 393, cached_input_tokens=188_086, cache_write_tokens=1500, cache_write_1h_tokens=1000),
        finished("stop"),
    ],
    "ping": [used(12, 1), TextDelta("Still here."), used(12, 4), finished("stop")],
    "crlf": [
        used(12, 1),
        TextDelta("Line"),
        TextDelta("s end\nwith CRLF."),
        used(12, 8),
        finished("stop"),
    ],
    "refusal": [
        used(12, 1),
        TextDelta("I will"),
        RefusalDelta("This request was declined."),
        used(12, 3),
        finished("content_filter"),
    ],
    "length": [used(12, 1), TextDelta("And then"), used(12, 2), finished("length")],
    "unknown": [used(12, 1), TextDelta("Found."), used(12, 30), finished("stop")],
}

BROKEN: dict[str, tuple[list[CallEvent], FailureKind]] = {
    "no-stop": ([used(12, 1), TextDelta("The end is missing."), used(12, 6)], "truncated"),
    "overloaded": ([used(12, 1), TextDelta("As I was")], "unavailable"),
    "cut": ([used(12, 1), TextDelta("Cut in mid")], "truncated"),
    "broken-json": ([used(12, 1)], "malformed"),
}


def decoder() -> MessagesDecoder:
    return MessagesDecoder(HTTP)


def read(data: bytes, cuts: list[int], out: list[CallEvent]) -> None:
    parser, messages = SSEParser(), decoder()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for begin, end in pairwise(edges):
        out += messages.feed(parser.feed(data[begin:end]))
        if messages.over:
            break
    out += messages.end()
    if messages.failure is not None:
        raise messages.failure


def test_every_fixture_is_in_the_tables() -> None:
    """A fixture that no test reads would prove nothing."""
    names = {path.stem.removeprefix("messages-") for path in FIXTURES.glob("messages-*.sse")}
    assert names == WHOLE.keys() | BROKEN.keys()


@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 4000), max_size=12))
def test_a_whole_stream_gives_its_events_however_it_is_split(name: str, cuts: list[int]) -> None:
    """The network's cuts do not show in the events."""
    out: list[CallEvent] = []
    read((FIXTURES / f"messages-{name}.sse").read_bytes(), cuts, out)
    assert out == WHOLE[name]


@pytest.mark.parametrize("name", BROKEN)
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 4000), max_size=8))
def test_a_broken_stream_gives_what_came_and_then_fails(name: str, cuts: list[int]) -> None:
    """No answer that broke off looks complete, and what came before is not lost."""
    out: list[CallEvent] = []
    with pytest.raises(UpstreamError) as caught:
        read((FIXTURES / f"messages-{name}.sse").read_bytes(), cuts, out)
    events, kind = BROKEN[name]
    assert out == events
    assert caught.value.failure.kind == kind


def sse(value: object) -> SSEEvent:
    return SSEEvent(None, msgspec.json.encode(value), None)


def fed(*events: object, to: MessagesDecoder | None = None) -> list[CallEvent]:
    """The call events of these events; values are encoded, bytes are sent as they are."""
    sent = [SSEEvent(None, event, None) if isinstance(event, bytes) else sse(event) for event in events]
    messages = to or decoder()
    out = messages.feed(sent)
    if messages.failure is not None:
        raise messages.failure
    return out


def whole(body: bytes) -> list[CallEvent]:
    """The call events of an answer that came in one piece."""
    messages = decoder()
    out = messages.feed([WholeBody(None, body, None)])
    if messages.failure is not None:
        raise messages.failure
    return out


def test_a_ping_gives_an_empty_batch() -> None:
    """A ping says that the upstream lives, and nothing else."""
    assert fed({"type": "ping"}) == []


def test_what_came_before_an_error_in_one_read_is_not_lost() -> None:
    """Content and the error behind it may arrive together; the content still counts."""
    out: list[CallEvent] = []
    with pytest.raises(UpstreamError):
        read((FIXTURES / "messages-overloaded.sse").read_bytes(), [], out)
    assert out == BROKEN["overloaded"][0]


def test_nothing_after_the_end_is_read() -> None:
    """Garbage behind message_stop does not spoil an answer that is complete."""
    messages = decoder()
    assert fed({"type": "message_stop"}, b"[DONE]", to=messages) == [CallFinished("stop", None, None)]
    assert fed(b"garbage", to=messages) == []
    assert messages.end() == []
    assert messages.failure is None


@pytest.mark.parametrize(
    ("reason", "calls", "expected"),
    [(reason, False, expected) for reason, expected in FINISH_REASONS.items()]
    + [
        ("end_turn", True, "tool_calls"),
        ("max_tokens", True, "length"),
        (None, False, "stop"),
        (None, True, "tool_calls"),
        ("a_new_reason", False, "stop"),
    ],
)
def test_stop_reasons(reason: str | None, calls: bool, expected: str) -> None:
    """Each stop reason has its finish reason, and calls are never hidden behind `stop`."""
    events: list[object] = [
        {"type": "message_delta", "delta": {"stop_reason": reason}},
        {"type": "message_stop"},
    ]
    if calls:
        block = {"type": "tool_use", "id": "t", "name": "n", "input": {}}
        events.insert(0, {"type": "content_block_start", "index": 0, "content_block": block})
    out = fed(*events)
    last = out[-1]
    assert isinstance(last, CallFinished)
    assert last.finish_reason == expected


KINDS: list[tuple[str, str, FailureKind, str]] = [
    ("overloaded_error", "Overloaded", "unavailable", "overloaded_error"),
    ("rate_limit_error", "slow down", "rate_limited", "rate_limit_error"),
    ("invalid_request_error", "messages: no", "rejected", "invalid_request_error"),
    ("invalid_request_error", "prompt is too long: 2 > 1", "rejected", "context_length_exceeded"),
    ("request_too_large", "32 MB", "rejected", "request_too_large"),
    ("authentication_error", "invalid x-api-key", "unauthorized", "authentication_error"),
    ("permission_error", "no", "unauthorized", "permission_error"),
    ("billing_error", "no funds", "unexpected", "billing_error"),
    ("not_found_error", "model: x", "unexpected", "not_found_error"),
    ("api_error", "Internal server error", "unavailable", "api_error"),
    ("timeout_error", "too slow", "unavailable", "timeout_error"),
    ("a_new_error", "?", "unavailable", "a_new_error"),
]


@pytest.mark.parametrize(("name", "message", "kind", "code"), KINDS)
def test_errors_in_the_stream(name: str, message: str, kind: FailureKind, code: str) -> None:
    """An error event fails the call with the kind that its type means."""
    with pytest.raises(UpstreamError) as caught:
        fed({"type": "error", "error": {"type": name, "message": message}})
    failure = caught.value.failure
    assert (failure.kind, failure.code, failure.status) == (kind, code, ERROR_STATUS.get(name))
    assert message in failure.message


MALFORMED: list[bytes] = [
    b"",
    b"null",
    b"[]",
    b"\xff",
    b'{"type": "message_start", "message": 7}',
    b'{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 7}}',
    b'{"type": "content_block_delta", "index": 5, "delta": {"type": "text_delta", "text": "x"}}',
    b'{"type": "content_block_start", "index": "zero", "content_block": {"type": "text"}}',
    b'{"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "name": "n"}}',
    b'{"type": "content_block_start", "index": 0, "content_block": '
    b'{"type": "tool_use", "id": "t", "name": "n", "input": {"a": "\xff"}}}',
    b'{"type": "ping", "x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
]


@pytest.mark.parametrize("data", MALFORMED)
def test_broken_events_are_malformed(data: bytes) -> None:
    """What is not the format fails the call, and does not crash the decoder."""
    with pytest.raises(UpstreamError) as caught:
        fed(data)
    assert caught.value.failure.kind == "malformed"


def test_a_text_delta_for_a_tool_block_is_malformed() -> None:
    """Content of one kind in a block of another is refused, since nobody could say what it means."""
    block = {"type": "tool_use", "id": "t", "name": "n", "input": {}}
    delta = {"type": "text_delta", "text": "x"}
    with pytest.raises(UpstreamError) as caught:
        fed(
            {"type": "content_block_start", "index": 0, "content_block": block},
            {"type": "content_block_delta", "index": 0, "delta": delta},
        )
    assert caught.value.failure.kind == "malformed"


def test_blocks_that_are_never_stopped_are_closed_at_the_end() -> None:
    """A signature is passed on before the next block, and an unsigned block ends with the message."""
    out = fed(
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "thinking", "thinking": "a"},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "signature_delta", "signature": "S"},
        },
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "thinking", "thinking": "b"},
        },
        {"type": "message_stop"},
    )
    assert out[:-1] == [ReasoningDelta("a"), ReasoningSigned("S"), ReasoningDelta("b"), ReasoningEnded()]


def test_a_whole_message_gives_the_events_of_its_stream() -> None:
    """An upstream that ignores `stream` is understood all the same."""
    body = {
        "type": "message",
        "id": "msg_1",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "S"},
            {"type": "text", "text": "hi"},
            {"type": "mystery", "text": {}},
            {"type": "tool_use", "id": "t", "name": "n", "input": {"a": [1.50]}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 3, "output_tokens": 4},
    }
    assert whole(msgspec.json.encode(body)) == [
        ReasoningDelta("hm"),
        ReasoningSigned("S"),
        TextDelta("hi"),
        ToolCallStarted(0, "t", "n"),
        ToolCallDelta(0, '{"a":[1.5]}'),
        used(3, 4),
        CallFinished("tool_calls", "msg_1", "m"),
    ]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"type": "error", "error": {"type": "overloaded_error", "message": "x"}}', "unavailable"),
        (b'{"type": "message", "content": 7}', "malformed"),
        (b'{"choices": []}', "malformed"),
        (b"{", "malformed"),
    ],
)
def test_a_whole_answer_that_is_none(body: bytes, kind: FailureKind) -> None:
    """An error or another vendor's format in a whole answer fails the call."""
    with pytest.raises(UpstreamError) as caught:
        whole(body)
    assert caught.value.failure.kind == kind


def test_two_calls_with_one_id_are_malformed() -> None:
    """Results could not be told apart, so the answer is refused before anyone runs a tool."""
    block = {"type": "tool_use", "id": "t", "name": "n", "input": {}}
    with pytest.raises(UpstreamError) as caught:
        fed(*({"type": "content_block_start", "index": index, "content_block": block} for index in (0, 1)))
    assert caught.value.failure.kind == "malformed"


def test_counts_never_fall() -> None:
    """A server whose last report has zeros where it counted before does not make the prompt free."""
    out = fed(
        {"type": "message_start", "message": {"usage": {"input_tokens": 40, "cache_read_input_tokens": 9}}},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 5},
        },
    )
    assert out[-1] == UsageReported(Usage(input_tokens=49, output_tokens=5, cached_input_tokens=9))


def test_fewer_tokens_than_none_are_none() -> None:
    """A server that counts below zero makes nothing cheaper."""
    counts = {"input_tokens": -7, "cache_read_input_tokens": -1, "output_tokens": 4}
    out = fed({"type": "message_start", "message": {"usage": counts}})
    assert out == [used(0, 4)]


def test_an_error_in_another_vendors_shape_is_still_an_error() -> None:
    """A server that merely speaks the format says why it failed in words of its own, and is understood."""
    event = SSEEvent("error", b'{"error": {"message": "no room", "code": 429}}', None)
    messages = decoder()
    assert messages.feed([event]) == []
    assert messages.failure is not None
    assert messages.failure.failure.kind == "rate_limited"
    assert "no room" in messages.failure.failure.message


def test_the_stop_sequence_is_named() -> None:
    """In a stream, and in an answer that came in one piece."""
    change = {"stop_reason": "stop_sequence", "stop_sequence": "END"}
    wanted = CallFinished("stop", None, None, "END")
    assert fed({"type": "message_delta", "delta": change}, {"type": "message_stop"}) == [wanted]
    assert whole(msgspec.json.encode({"type": "message", "content": [], **change})) == [wanted]
