"""The event-stream parser and the framing of our own events."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_agent.wire.sse import COMMENT, DONE, SSEError, SSEEvent, SSEParser, frame


def parse(*chunks: bytes) -> list[SSEEvent]:
    parser = SSEParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


CASES = {
    "one event": (b"data: a\n\n", [(None, b"a", None)]),
    "no space after the colon": (b"data:a\n\n", [(None, b"a", None)]),
    "only one space is dropped": (b"data:  a\n\n", [(None, b" a", None)]),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\n\r\n", [(None, b"a", None), (None, b"b", None)]),
    "CR": (b"data: a\r\rdata: b\r\r", [(None, b"a", None), (None, b"b", None)]),
    "mixed line ends": (b"event: x\rdata: a\r\n\ndata: b\n\r\n", [("x", b"a", None), (None, b"b", None)]),
    "several data lines": (b"data: a\ndata\ndata: b\n\n", [(None, b"a\n\nb", None)]),
    "comments": (b": hi\n\ndata: a\n: there\n\n:\n", [(None, b"a", None)]),
    "named": (b"event: ping\ndata: {}\n\n", [("ping", b"{}", None)]),
    "name after data": (b"data: {}\nevent: ping\n\n", [("ping", b"{}", None)]),
    "a name does not outlive its event": (b"event: x\n\ndata: a\n\n", [(None, b"a", None)]),
    "an event without data is none": (b"event: x\nid: 1\n\n", []),
    "empty data is an event": (b"data\n\n", [(None, b"", None)]),
    "the id stays": (b"id: 7\ndata: a\n\ndata: b\n\n", [(None, b"a", "7"), (None, b"b", "7")]),
    "an id with NUL is ignored": (b"id: 7\0\ndata: a\n\n", [(None, b"a", None)]),
    "unknown fields and retry": (b"retry: 5\nfoo: bar\ndata: a\n\n", [(None, b"a", None)]),
    "byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [(None, b"a", None)]),
    "a mark later on is text": (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [(None, b"a", None)]),
    "blank lines between": (b"\n\n\ndata: a\n\n\n\ndata: b\n\n", [(None, b"a", None), (None, b"b", None)]),
    "line separators are text": (
        "data: a\u2028b\u2029c\x85d\x0be\n\n".encode(),
        [(None, "a\u2028b\u2029c\x85d\x0be".encode(), None)],
    ),
    "an incomplete event is discarded": (b"data: a\n\ndata: b\n", [(None, b"a", None)]),
    "the end marker": (COMMENT + DONE, [(None, b"[DONE]", None)]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_stream_has_its_events_however_it_is_split(name: str) -> None:
    """Each rule of the standard holds for the whole stream, byte by byte, and for every cut in two."""
    stream, expected = CASES[name]
    events = [SSEEvent(*event) for event in expected]
    assert parse(stream) == events
    assert parse(*(stream[i : i + 1] for i in range(len(stream)))) == events
    for cut in range(len(stream)):
        assert parse(stream[:cut], b"", stream[cut:]) == events


lines = st.sampled_from(
    [
        b"data: {}",
        b"data:x",
        b"data",
        b"event: e",
        b"id: 1",
        b"id",
        b": c",
        b"",
        "data: \u2028é😀".encode(),
        b"zz",
        b"\xef\xbb\xbf",
    ]
)
ends = st.sampled_from([b"\n", b"\n\n", b"\r\n", b"\r", b"\r\n\r\n"])
streams = st.lists(st.tuples(lines, ends).map(b"".join), max_size=20).map(b"".join)


@settings(deadline=None)
@given(streams | st.binary(max_size=60), st.data())
def test_any_split_of_any_stream_gives_the_same_events(stream: bytes, data: st.DataObject) -> None:
    """Where the network cuts makes no difference, not even to `pending`."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    whole, split = SSEParser(), SSEParser()
    expected = whole.feed(stream)
    bounds = [0, *cuts, len(stream)]
    events = [event for a, b in pairwise(bounds) for event in split.feed(stream[a:b])]
    whole.end()
    split.end()
    assert events == expected
    assert split.pending == whole.pending


@settings(deadline=None)
@given(st.binary(max_size=80), st.sampled_from([None, "ping"]))
def test_what_we_frame_is_read_back(data: bytes, event: str | None) -> None:
    """Framing and parsing are inverse, but for the kind of line end."""
    expected = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    assert parse(frame(data, event)) == [SSEEvent(event, expected, None)]


@pytest.mark.parametrize(
    ("stream", "pending"),
    [
        (b"", False),
        (b"data: a\n\n", False),
        (b"data: a\n", True),
        (b"data: a", True),
        (b": c\n", False),
        (b"event: x\n", True),
    ],
)
def test_pending_tells_whether_the_stream_was_cut_in_an_event(stream: bytes, pending: bool) -> None:
    """An event that has begun and was not completed is pending at the end."""
    parser = SSEParser()
    parser.feed(stream)
    parser.end()
    assert parser.pending is pending


@pytest.mark.parametrize(
    "pieces",
    [
        [b"data: " + b"x" * 200],
        [b"data: ", *[b"x" * 10] * 20],
        [b"data: xxxxxxxxx\n"] * 20,
        [b": " + b"c" * 200 + b"\n"],
    ],
    ids=["one chunk", "many chunks", "many lines", "a comment"],
)
def test_an_event_is_bounded(pieces: list[bytes]) -> None:
    """Neither an endless line nor endless lines are held beyond the bound."""
    parser = SSEParser(max_event_bytes=100)
    with pytest.raises(SSEError, match="100 bytes"):
        [parser.feed(piece) for piece in pieces]


def test_the_bound_is_for_an_event_and_not_for_a_stream() -> None:
    """Many small events pass a small bound, in one chunk or in many."""
    parser = SSEParser(max_event_bytes=100)
    assert len(parser.feed(b"data: 0123456789\n\n" * 1000)) == 1000
    assert sum(len(parser.feed(b"data: 0123456789\n\n")) for _ in range(1000)) == 1000


def test_the_common_case_costs_about_a_microsecond() -> None:
    """A batch of whole events is split without a loop over bytes or lines (bound: ten times the usual)."""
    parser = SSEParser()
    batch = (b"data: " + b"x" * 250 + b"\n\n") * 200
    parser.feed(batch)
    best = min(_seconds(parser, batch) for _ in range(20))
    assert best / 200 < 5e-6


def _seconds(parser: SSEParser, batch: bytes) -> float:
    start = time.perf_counter()
    parser.feed(batch)
    return time.perf_counter() - start
