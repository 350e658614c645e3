"""Where a response body ends: any split gives the same, and h11 agrees."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trio_agent.providers.http_body import (
    MAX_LINE_BYTES,
    MAX_TRAILER_BYTES,
    BodyReader,
    ChunkedBody,
    LengthBody,
    UntilCloseBody,
)


@dataclass(frozen=True)
class Seen:
    """What a reader made of its input."""

    content: bytes
    complete: bool
    rest: bytes = b""
    broken: str | None = None


def read(body: BodyReader, pieces: list[bytes]) -> Seen:
    """Feed a reader as a connection does: nothing after the end or a failure."""
    content = b""
    for number, piece in enumerate(pieces):
        if piece:
            content += body.feed(piece)
        if body.complete or body.broken:
            later = b"".join(pieces[number + 1 :])
            return Seen(content, body.complete, body.rest + later if body.complete else b"", body.broken)
    return Seen(content, body.complete, body.rest, body.broken)


def by_h11(raw: bytes) -> Seen:
    """What h11 makes of a chunked body."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=10**6)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + raw)
    content = b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            return Seen(content, False, broken=str(error))
        if isinstance(event, h11.Data):
            content += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return Seen(content, True, connection.trailing_data[0])
        elif event is h11.NEED_DATA:
            return Seen(content, False)


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(raw) + 1) for place in places), len(raw)]
    return [raw[start:end] for start, end in pairwise(edges)]


SIZES = st.sampled_from(["%x", "%X", "0%x", "%019x"])
EXTENSIONS = st.sampled_from(["", ";a", ";a=b", '; a = "b c" ', " \t", ";" + "x" * 300])
CHUNKS = st.lists(st.tuples(st.binary(min_size=1, max_size=40), SIZES, EXTENSIONS), max_size=6)
TRAILERS = st.lists(st.sampled_from(["a: b", "expires: never", "x-long: " + "y" * 500]), max_size=3)
PLACES = st.lists(st.integers(0, 10**6), max_size=30)


def chunked(chunks: list[tuple[bytes, str, str]], trailers: list[str]) -> bytes:
    raw = b""
    for content, size, extension in chunks:
        raw += (size % len(content) + extension).encode() + b"\r\n" + content + b"\r\n"
    return raw + b"0\r\n" + "".join(f"{line}\r\n" for line in trailers).encode() + b"\r\n"


@settings(max_examples=300, deadline=None)
@given(CHUNKS, TRAILERS, PLACES, st.binary(max_size=20))
def test_any_split_of_a_chunked_body_gives_its_content(
    chunks: list[tuple[bytes, str, str]], trailers: list[str], places: list[int], after: bytes
) -> None:
    """However the network cut it, the content is the chunks', the end is found, and the rest is left over."""
    raw = chunked(chunks, trailers) + after
    seen = read(ChunkedBody(), cut(raw, places))
    assert seen == Seen(b"".join(content for content, _, _ in chunks), True, after)
    assert seen == by_h11(raw)


@settings(max_examples=400, deadline=None)
@given(CHUNKS, PLACES, st.integers(0, 10**6), st.binary(max_size=3), st.integers(0, 4))
@example([(b"a", "%x", "")], [], 3, b"\n", 0)
@example([], [2], 1, b"0", 0)
def test_a_damaged_body_is_never_read_otherwise_than_h11_reads_it(
    chunks: list[tuple[bytes, str, str]], places: list[int], place: int, put: bytes, taken: int
) -> None:
    """The split makes no difference to what is delivered, and no more is taken for content than h11 takes."""
    raw = chunked(chunks, [])
    place %= len(raw) + 1
    raw = raw[:place] + put + raw[place + taken :]
    seen = read(ChunkedBody(), cut(raw, places))
    assert seen == read(ChunkedBody(), [raw])
    theirs = by_h11(raw)
    assert theirs.content.startswith(seen.content)
    if seen.complete and theirs.complete:
        assert seen == theirs
    if theirs.complete and not seen.complete:
        assert seen.broken or seen.content == theirs.content  # stricter about line ends and extensions


CONTENT = b"5\r\nhello\r\n"
MALFORMED = {
    "no size": b"\r\n",
    "not hexadecimal": b"zz\r\n",
    "a sign": b"+5\r\nhello\r\n",
    "a prefix": b"0x5\r\nhello\r\n",
    "an underscore": b"1_0\r\n",
    "digits of another script": "٥\r\n".encode(),
    "a blank before the size": b" 5\r\nhello\r\n",
    "21 digits": b"0" * 20 + b"5\r\nhello\r\n",
    "a line feed alone": b"5\nhello\n0\n\n\r\n",
    "a carriage return in the line": b"5;\rx\r\nhello\r\n",
    "a chunk longer than its size": b"4\r\nhello\r\n",
    "a chunk shorter than its size": b"5\r\nhell\r\n0\r\n\r\n",
    "an endless line": b"5;" + b"x" * (MAX_LINE_BYTES + 1),
    "an endless line that ends": b"5;" + b"x" * MAX_LINE_BYTES + b"\r\nhello\r\n",
    "endless trailers": b"0\r\n" + b"a: b\r\n" * (MAX_TRAILER_BYTES // 6 + 1),
    "an endless trailer": b"0\r\na: " + b"b" * (MAX_LINE_BYTES + 1),
}


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("whole", [True, False])
def test_a_malformed_body_is_broken_after_what_came_before(name: str, whole: bool) -> None:
    """Content before the fault is delivered, the fault is told, and what follows is not read."""
    raw = CONTENT + MALFORMED[name]
    pieces = [raw] if whole else [raw[at : at + 1] for at in range(len(raw))]
    seen = read(ChunkedBody(), pieces)
    assert seen.broken
    assert not seen.complete
    assert seen.content.startswith(b"hello")


def test_the_longest_line_is_read() -> None:
    """A line as long as allowed passes, in one piece and byte by byte."""
    raw = b"5;" + b"x" * (MAX_LINE_BYTES - 2) + b"\r\nhello\r\n0\r\n\r\n"
    for pieces in ([raw], [raw[at : at + 1] for at in range(len(raw))]):
        assert read(ChunkedBody(), pieces) == Seen(b"hello", True)


def test_what_is_held_back_is_bounded() -> None:
    """However much comes, no more than the beginning of a line is kept."""
    body = ChunkedBody()
    body.feed(b"ffffffff\r\n")
    for _ in range(50):
        assert len(body.feed(b"x" * 65_536)) == 65_536
    assert not body._held


@given(st.binary(max_size=50), PLACES, st.binary(max_size=9))
def test_a_body_of_known_length(content: bytes, places: list[int], after: bytes) -> None:
    """A length is kept to the byte; what follows is left over."""
    body = LengthBody(len(content))
    if content:
        assert read(body, cut(content + after, places)) == Seen(content, True, after)
    assert body.complete
    assert body.end()


def test_a_connection_that_ends_too_early() -> None:
    """Only a body that has no other end is whole when its connection ends."""
    for body, raw in (
        (LengthBody(5), b"hell"),
        (ChunkedBody(), CONTENT),
        (ChunkedBody(), CONTENT + b"0\r\n"),
    ):
        read(body, [raw])
        assert not body.end()
    until_close = UntilCloseBody()
    assert read(until_close, [b"hel", b"lo"]) == Seen(b"hello", False)
    assert until_close.end()
    assert until_close.complete
