"""Responses streams, from the bytes to the events, cut at every place."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_agent.providers.answer_decoder import WholeBody
from trio_agent.providers.contract import UpstreamError
from trio_agent.providers.folding import fold
from trio_agent.providers.http import HttpSettings, UpstreamHttp
from trio_agent.providers.openai_responses_decode import MAX_ITEMS, ResponsesDecoder
from trio_agent.providers.openai_responses_usage import usage_of
from trio_agent.statemachine.conversation import (
    ProviderReasoning,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    Usage,
)
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
from trio_agent.wire import responses as wire
from trio_agent.wire.sse import SSEEvent, SSEParser

FIXTURES = Path(__file__).parents[2] / "fixtures" / "upstream"
HTTP = UpstreamHttp(HttpSettings(base_url="http://upstream.test"))
RS_0A = (
    '{"id": "rs_0a", "type": "reasoning", "encrypted_content": "gAAAAAB+fixture/enc==", "summary": '
    '[{"type": "summary_text", "text": "**Looking upthe weather**"}, '
    '{"type": "summary_text", "text": "One call will do."}]}'
)


def decoder(*taken: str, custom: bool = False) -> ResponsesDecoder:
    ids = count(1)
    return ResponsesDecoder(HTTP, lambda: f"made_{next(ids)}", taken, custom=custom)


def decode(chunks: Iterable[bytes], *taken: str, custom: bool = False) -> tuple[list[CallEvent], str | None]:
    """The events of a stream, and the kind and code of its failure if it fails."""
    reader, parser = decoder(*taken, custom=custom), SSEParser()
    events: list[CallEvent] = []
    for chunk in chunks:
        events += reader.feed(parser.feed(chunk))
        if reader.over:
            break
    if not reader.over:
        events += reader.end()
    return events, _kind(reader.failure)


def _kind(error: UpstreamError | None) -> str | None:
    if error is None:
        return None
    failure = error.failure
    return failure.kind if failure.code is None else f"{failure.kind} {failure.code}"


def done(reason: str = "stop", model: str = "gpt-5.5-2026-04-23") -> CallFinished:
    return CallFinished(reason, "resp_0fixture", model)  # type: ignore[arg-type]


def call(index: int, id_: str, name: str, *arguments: str, item: str | None = None) -> list[CallEvent]:
    data = None if item is None else f'{{"item_id":"{item}"}}'
    return [ToolCallStarted(index, id_, name, data), *(ToolCallDelta(index, piece) for piece in arguments)]


def think(*pieces: str) -> list[CallEvent]:
    return [*(ReasoningDelta(piece) for piece in pieces), ReasoningEnded()]


def used(input_tokens: int, output_tokens: int, **more: int) -> UsageReported:
    return UsageReported(Usage(input_tokens=input_tokens, output_tokens=output_tokens, **more))


EXPECTED: dict[str, tuple[list[CallEvent], str | None]] = {
    "text": (
        [TextDelta("Grüße"), TextDelta(" aus\u2028"), TextDelta("Köln 👋"), used(12, 9), done()],
        None,
    ),
    "reasoning-tool": (
        [
            *think("**Looking up", "the weather**", "\n\n", "One call", " will do."),
            ReasoningData(RS_0A),
            TextDelta("Let me look."),
            ReasoningData('{"type":"message","id":"msg_0b","phase":"commentary"}'),
            *call(0, "call_0Fixture1", "get_weather", '{"city":', '"Oslo"}', item="fc_0c"),
            used(75, 64, reasoning_tokens=32),
            done("tool_calls"),
        ],
        None,
    ),
    "reasoning-interleaved": (
        [
            ReasoningData(
                '{"id": "rs_0a", "type": "reasoning", "encrypted_content": "gAAAAAB+second==", "summary": []}'
            ),
            *call(0, "call_0Fixture2", "get_weather", "{}", item="fc_0d"),
            *think("Then the other."),
            ReasoningData(
                '{"id": "rs_0e", "type": "reasoning", "encrypted_content": "gAAAAAB+third==", "summary": '
                '[{"type": "summary_text", "text": "Then the other."}]}'
            ),
            *call(1, "call_0Fixture3", "get_time", '{"zone":"CET"}', item="fc_0f"),
            used(80, 40, reasoning_tokens=16),
            done("tool_calls"),
        ],
        None,
    ),
    "open-reasoning": (
        [
            *think("We need ", "to answer. "),
            ReasoningData(
                '{"id": "rs_9", "type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", '
                '"text": "We need to answer. "}], "encrypted_content": null, "status": "completed"}'
            ),
            *call(0, "call_9", "get_weather", "{}", item="fc_9"),
            used(60, 20, reasoning_tokens=8),
            done("tool_calls", "gpt-oss-120b"),
        ],
        None,
    ),
    "parallel-tools": (
        [
            *call(0, "call_1", "get_weather", '{"city":'),
            *call(1, "call_2", "get_weather", '{"city":"Ro'),
            ToolCallDelta(0, '"Oslo"}'),
            ToolCallDelta(1, 'me"}'),
            *call(2, "call_3", "get_time", "{}"),
            used(50, 30),
            done("tool_calls"),
        ],
        None,
    ),
    "whole-items": (
        [
            *think("One.", "\n\n", "Two."),
            ReasoningData(
                '{"id": "rs_0a", "type": "reasoning", "encrypted_content": "gAAAAAB+whole==", "summary": '
                '[{"type": "summary_text", "text": "One."}, {"type": "summary_text", "text": "Two."}]}'
            ),
            TextDelta("Both "),
            RefusalDelta("or neither."),
            ReasoningData('{"type":"message","id":"msg_0b"}'),
            *call(0, "call_0c", "get_weather", '{"city":"Oslo"}', item="fc_0c"),
            used(40, 20, reasoning_tokens=10),
            done("tool_calls"),
        ],
        None,
    ),
    "refusal": (
        [RefusalDelta("I can't"), RefusalDelta(" help with that."), used(20, 8), done()],
        None,
    ),
    "cache": (
        [
            TextDelta("Cached."),
            used(2048, 5, cached_input_tokens=1024, cache_write_tokens=900, cache_write_1h_tokens=300),
            done(),
        ],
        None,
    ),
    "crlf": ([TextDelta("Well"), TextDelta("."), used(3, 2), done()], None),
    "unknown": ([TextDelta("Found."), used(30, 5), done()], None),
    "empty": ([used(5, 0), done()], None),
    "length": ([TextDelta("Once upon"), used(9, 16), done("length")], None),
    "content-filter": ([TextDelta("Once"), used(9, 3), done("content_filter")], None),
    "unknown-reason": ([TextDelta("Once"), used(9, 3)], "truncated"),
    "failed": ([TextDelta("As I was"), used(11, 4)], "unavailable server_error"),
    "rate-limited": ([], "rate_limited rate_limit_exceeded"),
    "error": ([], "rejected context_length_exceeded"),
    "error-nested": ([TextDelta("As I was")], "unavailable server_is_overloaded"),
    "no-completed": ([TextDelta("The end is missing.")], "truncated"),
    "cut": ([TextDelta("Cut in mid")], "truncated"),
    "broken-json": ([TextDelta("Half")], "malformed"),
    "out-of-order": ([], "malformed"),
    "after-done": ([TextDelta("Said.")], "malformed"),
    "custom-tool": ([], "malformed"),
}


def test_every_stream_has_an_expectation() -> None:
    """No fixture is forgotten, and each is described."""
    names = {path.stem.removeprefix("responses-") for path in FIXTURES.glob("responses-*.sse")}
    assert names == set(EXPECTED)
    readme = (FIXTURES / "README-responses.md").read_text("utf-8")
    assert [name for name in sorted(names) if f"`responses-{name}.sse`" not in readme] == []


@pytest.mark.parametrize("name", EXPECTED)
def test_a_stream_becomes_its_events_however_it_is_cut(name: str) -> None:
    """The events are those of the table for the whole stream, byte by byte, and for cuts in two."""
    stream = (FIXTURES / f"responses-{name}.sse").read_bytes()
    assert decode([stream]) == EXPECTED[name]
    assert decode(stream[i : i + 1] for i in range(len(stream))) == EXPECTED[name]
    for cut in range(0, len(stream), 7):
        assert decode([stream[:cut], stream[cut:]]) == EXPECTED[name]


@pytest.mark.parametrize("name", [name for name, (_, failure) in EXPECTED.items() if failure is None])
def test_a_stream_that_ends_early_never_looks_complete(name: str) -> None:
    """Every proper beginning of a good stream fails as `truncated`, until its last event has come."""
    stream = (FIXTURES / f"responses-{name}.sse").read_bytes()
    end = max(stream.find(f'"type": "response.{word}"'.encode()) for word in ("completed", "incomplete"))
    assert end > 0
    for cut in range(0, end, 5):
        events, failure = decode([stream[:cut]])
        assert failure == "truncated"
        assert not any(isinstance(event, CallFinished) for event in events)


def stream_of(*values: Any) -> list[bytes]:
    return [b"data: " + msgspec.json.encode(value) + b"\n\n" for value in values]


def added(index: int, kind: str = "message", **item: Any) -> dict[str, Any]:
    return {
        "type": "response.output_item.added",
        "output_index": index,
        "item": {"type": kind, "id": f"x_{index}", **item},
    }


def ended(index: int, kind: str = "message", **item: Any) -> dict[str, Any]:
    return added(index, kind, **item) | {"type": "response.output_item.done"}


def said(index: int, text: str, kind: str = "output_text") -> dict[str, Any]:
    return {"type": f"response.{kind}.delta", "output_index": index, "delta": text}


def completed(*output: Any, **response: Any) -> dict[str, Any]:
    return {"type": "response.completed", "response": {"id": "r", "output": list(output), **response}}


END = CallFinished("stop", "r", None)


def test_nothing_after_the_last_event_is_read() -> None:
    """`response.completed` ends the answer, whatever the upstream still says."""
    stream = stream_of(said(0, "a"), completed(), {"type": "error", "message": "x"})
    assert decode([b"".join(stream)]) == ([TextDelta("a"), END], None)


def test_words_without_an_item_are_words() -> None:
    """A server that does not announce its items loses nothing, and nothing is told twice at the end."""
    output = [{"type": "message", "content": [{"type": "output_text", "text": "ab"}]}]
    stream = stream_of(said(0, "a"), said(0, "b"), completed(*output))
    assert decode(stream) == ([TextDelta("a"), TextDelta("b"), END], None)


def test_an_answer_that_comes_only_at_the_end() -> None:
    """A server without item events gives all of its output in the last one."""
    output = [
        {"type": "message", "content": [{"type": "output_text", "text": "Hi"}, {"type": "new"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a":1}'},
    ]
    assert decode(stream_of(completed(*output))) == (
        [TextDelta("Hi"), *call(0, "c", "f", '{"a":1}'), CallFinished("tool_calls", "r", None)],
        None,
    )


def test_an_output_that_counts_its_items_otherwise_tells_nothing_twice() -> None:
    """Where items came in the stream, the last event's list says nothing new, whatever its places are."""
    content = [{"type": "output_text", "text": "a"}]
    stream = stream_of(
        added(1),
        said(1, "a"),
        ended(1, content=content),
        completed({"type": "message", "content": content}),
    )
    assert decode(stream) == ([TextDelta("a"), END], None)


@pytest.mark.parametrize(
    ("following", "expected"),
    [
        (said(1, "a"), TextDelta("a")),
        (added(1, "function_call", call_id="a", name="f"), ToolCallStarted(0, "a", "f")),
    ],
    ids=["words", "a call"],
)
def test_reasoning_ends_before_what_follows_it(following: dict[str, Any], expected: CallEvent) -> None:
    """Also where the server does not say that its reasoning item is done."""
    stream = stream_of(said(0, "Hm.", "reasoning_summary_text"), following, completed())
    assert decode(stream)[0][:3] == [*think("Hm."), expected]


def test_items_that_were_not_ended_are_ended_at_the_end() -> None:
    """Arguments that only the last event has are told; a call that has none at all gets an empty object."""
    stream = stream_of(
        added(0, "function_call", call_id="a", name="f"),
        added(1, "function_call", call_id="b", name="g"),
        completed({"type": "function_call", "call_id": "a", "name": "f", "arguments": '{"x":2}'}),
    )
    assert decode(stream) == (
        [
            *call(0, "a", "f"),
            *call(1, "b", "g"),
            ToolCallDelta(0, '{"x":2}'),
            ToolCallDelta(1, "{}"),
            CallFinished("tool_calls", "r", None),
        ],
        None,
    )


def test_a_call_that_was_cut_short_gets_no_arguments() -> None:
    """An answer that ends at its limit before a call's arguments came does not make that call look whole."""
    details = {"incomplete_details": {"reason": "max_output_tokens"}}
    stream = stream_of(
        added(0, "function_call", call_id="a", name="f"),
        {"type": "response.incomplete", "response": {"id": "r", "status": "incomplete", **details}},
    )
    assert decode(stream) == ([*call(0, "a", "f"), CallFinished("length", "r", None)], None)


def test_the_rest_of_the_arguments_comes_with_the_item() -> None:
    """Where the deltas stop early, what the whole item has beyond them is not lost."""
    facts = {"call_id": "a", "name": "f"}
    stream = stream_of(
        added(0, "function_call", **facts),
        said(0, '{"x":', "function_call_arguments"),
        ended(0, "function_call", **facts, arguments='{"x":1}'),
        completed(),
    )
    assert decode(stream)[0][1:3] == [ToolCallDelta(0, '{"x":'), ToolCallDelta(0, "1}")]


CUSTOM = {"call_id": "a", "name": "patch"}
TOOL = "custom_tool_call"
PIECES = ['*** "Begin"', "\n\\", "é👋\u2028", "\t"]
WRITTEN = ['{"input":"*** \\"Begin\\"', "\\n\\\\", "é👋\u2028", "\\t", '"}']
END_CALLS = CallFinished("tool_calls", "r", None)

CUSTOM_CALLS: list[tuple[str, list[dict[str, Any]], list[str], CallFinished]] = [
    (
        "in pieces",
        [
            added(0, TOOL, **CUSTOM, input=""),
            *(said(0, piece, "custom_tool_call_input") for piece in PIECES),
            ended(0, TOOL, **CUSTOM, input="".join(PIECES), status="completed"),
            completed(),
        ],
        WRITTEN,
        END_CALLS,
    ),
    (
        "whole with its item",
        [added(0, TOOL, **CUSTOM), ended(0, TOOL, **CUSTOM, input="x"), completed()],
        ['{"input":"x"}'],
        END_CALLS,
    ),
    (
        "the rest with its item",
        [
            added(0, TOOL, **CUSTOM),
            said(0, "x", "custom_tool_call_input"),
            ended(0, TOOL, **CUSTOM, input="xy"),
            completed(),
        ],
        ['{"input":"x', 'y"}'],
        END_CALLS,
    ),
    ("empty", [ended(0, TOOL, **CUSTOM, input=""), completed()], ['{"input":""}'], END_CALLS),
    (
        "only in the last event",
        [completed({"type": TOOL, **CUSTOM, "input": "x"})],
        ['{"input":"x"}'],
        END_CALLS,
    ),
    (
        "not ended",
        [added(0, TOOL, **CUSTOM), said(0, "x", "custom_tool_call_input"), completed()],
        ['{"input":"x', '"}'],
        END_CALLS,
    ),
    (
        "cut short",
        [
            added(0, TOOL, **CUSTOM),
            said(0, "x", "custom_tool_call_input"),
            ended(0, TOOL, **CUSTOM, input="xy", status="incomplete"),
            {
                "type": "response.incomplete",
                "response": {"id": "r", "incomplete_details": {"reason": "max_output_tokens"}},
            },
        ],
        ['{"input":"x', "y"],
        CallFinished("length", "r", None),
    ),
]


@pytest.mark.parametrize(
    ("events", "pieces", "end"), [row[1:] for row in CUSTOM_CALLS], ids=[row[0] for row in CUSTOM_CALLS]
)
def test_a_custom_tools_text_becomes_arguments(
    events: list[Any], pieces: list[str], end: CallFinished
) -> None:
    """As it comes, escaped, and closed only where the model was not stopped within it."""
    assert decode(stream_of(*events), custom=True) == ([*call(0, "a", "patch", *pieces), end], None)


def test_a_custom_call_beside_reasoning_is_known_again() -> None:
    """Its item's id is kept, and that it was one of a custom tool."""
    stream = stream_of(
        ended(0, "reasoning", encrypted_content="e"), ended(1, TOOL, id="ctc_1", **CUSTOM), completed()
    )
    (started,) = [event for event in decode(stream, custom=True)[0] if isinstance(event, ToolCallStarted)]
    assert started.provider_data == '{"item_id":"ctc_1","kind":"custom_tool_call"}'


def test_call_ids_stay_unique() -> None:
    """An absent id, one that comes twice, and one that the conversation holds are replaced."""
    stream = stream_of(
        *(ended(i, "function_call", call_id=id_, name="f") for i, id_ in enumerate(["a", "", "a", "old"])),
        completed(),
    )
    events, failure = decode(stream, "old")
    assert failure is None
    ids = [event.id for event in events if isinstance(event, ToolCallStarted)]
    assert ids == ["a", "made_1", "made_2", "made_3"]


BROKEN = [
    [added(0), added(0)],
    [added(0), ended(0), ended(0)],
    [added(0), said(0, "{}", "function_call_arguments")],
    [added(0, "function_call", call_id="a", name="f"), said(0, "Hi")],
    [added(0, "function_call", call_id="a", name="f"), ended(0)],
    [said(0, "{}", "function_call_arguments")],
    [said(0, "Hi"), said(0, "Hm", "reasoning_text")],
    [added(0, "function_call", call_id="a")],
    [added(0, "mcp_approval_request")],
    [added(0, "computer_call")],
    [added(0, "custom_tool_call", call_id="a", name="f")],
    [added("0")],  # type: ignore[arg-type]
    [added(0, "message", content="Hi")],
    [{"type": "response.output_text.delta", "output_index": 0, "delta": 7}],
    [{"type": "response.completed", "response": []}],
]


@pytest.mark.parametrize("events", BROKEN)
def test_what_does_not_fit_together_is_malformed(events: list[Any]) -> None:
    """Events out of order, of two minds about an item, or of another shape end the call."""
    assert decode(stream_of(*events, completed()))[1] == "malformed"


@pytest.mark.parametrize(
    ("events", "failure"),
    [
        ([{"error": {"message": "no", "type": "server_error"}}], "unavailable server_error"),
        ([{"type": "response.failed", "response": {"status": "failed"}}], "unavailable"),
        ([completed(status="failed", error={"code": "invalid_prompt"})], "rejected invalid_prompt"),
        ([completed(status="cancelled")], "unavailable"),
        ([{"type": "response.incomplete", "response": {}}], "truncated"),
        ([{"type": "response.in_progress"}], "truncated"),
        ([], "truncated"),
    ],
)
def test_failures_in_other_forms(events: list[Any], failure: str) -> None:
    """An error object alone, a failure without a reason, a last event that says it is none."""
    assert decode(stream_of(*events))[1] == failure


CODES = [
    ("server_error", "unavailable"),
    ("vector_store_timeout", "unavailable"),
    ("server_is_overloaded", "unavailable"),
    ("rate_limit_exceeded", "rate_limited"),
    ("slow_down", "rate_limited"),
    ("insufficient_quota", "unauthorized"),
    ("invalid_api_key", "unauthorized"),
    ("invalid_prompt", "rejected"),
    ("invalid_encrypted_content", "rejected"),
    ("context_length_exceeded", "rejected"),
    ("bio_policy", "rejected"),
    ("misalignment_policy_violation", "rejected"),
    ("data_residency_mismatch", "rejected"),
    ("invalid_image_url", "rejected"),
    ("image_too_small", "rejected"),
    ("image_parse_error", "rejected"),
    ("empty_image_file", "rejected"),
    ("failed_to_download_image", "rejected"),
    ("unsupported_image_media_type", "rejected"),
    ("something_new", "unavailable"),
]


@pytest.mark.parametrize(("code", "kind"), CODES)
def test_codes_of_failures(code: str, kind: str) -> None:
    """Each documented code (SDK type `ResponseError`) is a failure of the kind that it means."""
    failed = {"type": "response.failed", "response": {"error": {"code": code, "message": "m"}}}
    assert decode(stream_of(failed))[1] == f"{kind} {code}"


def whole(value: Any) -> tuple[list[CallEvent], str | None]:
    reader = decoder()
    events = reader.feed([WholeBody(None, msgspec.json.encode(value), None)])
    return events, _kind(reader.failure)


def test_an_answer_in_one_piece() -> None:
    """A response as one JSON object gives what a stream of it would have given."""
    item = {"type": "reasoning", "id": "rs_1", "summary": [{"text": "Hm."}], "encrypted_content": "e"}
    body = {
        "id": "r",
        "object": "response",
        "status": "completed",
        "model": "o3-pro",
        "error": None,
        "output": [item, {"type": "message", "content": [{"type": "output_text", "text": "42"}]}],
        "usage": {"input_tokens": 3, "output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 3}},
    }
    assert whole(body) == (
        [
            *think("Hm."),
            ReasoningData(msgspec.json.encode(item).decode()),
            TextDelta("42"),
            used(3, 4, reasoning_tokens=3),
            CallFinished("stop", "r", "o3-pro"),
        ],
        None,
    )


@pytest.mark.parametrize(
    ("body", "failure"),
    [
        ({}, "malformed"),
        ([], "malformed"),
        ({"choices": []}, "malformed"),
        ({"object": "response", "status": "queued"}, "truncated"),
        ({"object": "response", "status": "in_progress"}, "truncated"),
        (
            {"object": "response", "status": "failed", "error": {"code": "server_error"}},
            "unavailable server_error",
        ),
        ({"object": "response", "status": "incomplete"}, "truncated"),
    ],
)
def test_json_that_is_no_whole_answer(body: Any, failure: str) -> None:
    """Another body, or a response that is not over, never looks complete."""
    events, kind = whole(body)
    assert kind == failure
    assert not any(isinstance(event, CallFinished) for event in events)


def test_an_answer_folds_to_its_parts_in_order() -> None:
    """Reasoning, words and calls stand in the order in which the model wrote them."""
    events, _ = decode([(FIXTURES / "responses-reasoning-tool.sse").read_bytes()])
    answer = fold(events)
    assert answer.message.parts == (
        Thinking("**Looking upthe weather**\n\nOne call will do."),
        ProviderReasoning(RS_0A),
        Text("Let me look."),
        ProviderReasoning('{"type":"message","id":"msg_0b","phase":"commentary"}'),
        ToolCall("call_0Fixture1", "get_weather", '{"city":"Oslo"}', '{"item_id":"fc_0c"}'),
    )
    assert answer.finish_reason == "tool_calls"


def test_a_phase_is_kept_without_reasoning() -> None:
    """Models that set a phase want it back, whether they reasoned or not; an id alone is of no use."""
    stream = stream_of(ended(0, phase="final_answer", content=[{"type": "refusal", "refusal": "No."}]))
    events, _ = decode([*stream, *stream_of(completed())])
    assert fold(events).message.parts == (
        Refusal("No."),
        ProviderReasoning('{"type":"message","phase":"final_answer"}'),
    )


def test_reasoning_that_cannot_go_back_is_only_shown() -> None:
    """An item with a summary and nothing else would be looked up by its id, in a memory that is not used."""
    stream = stream_of(ended(0, "reasoning", summary=[{"text": "Hm."}]), said(1, "a"), completed())
    assert decode(stream)[0] == [*think("Hm."), TextDelta("a"), END]


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({}, Usage()),
        ({"input_tokens": -1, "output_tokens": None}, Usage()),
        (
            {"input_tokens": 4, "input_tokens_details": {"cached_tokens": 9, "cache_write_tokens": 9}},
            Usage(input_tokens=4, cached_input_tokens=4),
        ),
        (
            {"output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 9}},
            Usage(output_tokens=4, reasoning_tokens=4),
        ),
    ],
)
def test_odd_usage_is_kept_within_bounds(usage: dict[str, Any], expected: Usage) -> None:
    """Parts are never larger than the whole, and nothing is negative."""
    assert usage_of(msgspec.convert(usage, wire.ResponseUsage)) == expected


def test_a_flood_of_items_is_bounded() -> None:
    """An upstream that never stops beginning items is cut off, soon."""
    reader = decoder()
    begun = time.perf_counter()
    for index in range(MAX_ITEMS + 1):
        reader.feed([SSEEvent(None, msgspec.json.encode(added(index, "web_search_call")), None)])
    assert _kind(reader.failure) == "malformed"
    assert time.perf_counter() - begun < 5


NAMES = sorted(EXPECTED)


@given(st.sampled_from(NAMES), st.lists(st.tuples(st.integers(0, 20_000), st.binary(max_size=3)), max_size=4))
@settings(max_examples=300, deadline=None)
def test_garbage_never_crashes_and_never_finishes_twice(name: str, dirt: list[tuple[int, bytes]]) -> None:
    """Whatever bytes are changed, the decoder ends with an answer or with a failure of its own."""
    stream = bytearray((FIXTURES / f"responses-{name}.sse").read_bytes())
    for place, data in dirt:
        place %= len(stream)
        stream[place : place + len(data)] = data
    events, failure = decode([bytes(stream)])
    finished = [event for event in events if isinstance(event, CallFinished)]
    assert len(finished) == (failure is None)
