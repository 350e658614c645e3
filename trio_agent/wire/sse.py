"""Server-sent events: an incremental parser, and the framing of our own output. No I/O.

The rules are those of the HTML standard, "Server-sent events", section "Interpreting an event stream":
lines end with CR, LF or CRLF and with nothing else (U+2028 and U+2029 are ordinary text), one space
after the colon is dropped, several `data` lines are joined by LF, a blank line completes the event,
an event without data is none, and what is incomplete at the end is discarded.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

MAX_EVENT_BYTES: Final = 8 * 1024 * 1024
"""Default bound of one event: larger than any model's chunk, small enough to hold for every stream."""

COMMENT: Final = b": keepalive\n\n"
"""A comment: keeps a client's idle timer quiet and is seen by no event handler."""

DONE: Final = b"data: [DONE]\n\n"
"""The end marker of a Chat Completions stream."""

_BOM: Final = b"\xef\xbb\xbf"


class SSEError(ValueError):
    """The bytes cannot be an event stream of ours: one event is larger than the bound."""


class SSEEvent(Struct, frozen=True, gc=False):
    """One event. `data` is UTF-8 as it came; `id` is the last event id, which holds until it is changed."""

    event: str | None
    data: bytes
    id: str | None


class SSEParser:
    """Turns bytes, split anywhere, into events.

    Args:
        max_event_bytes: bound on the bytes held for one event that is not complete yet.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._line: list[bytes] = []  # pieces of a line whose end has not come
        self._line_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._event: str | None = None
        self._id: str | None = None
        self._at_start = True  # a byte order mark may only come first
        self._skip_lf = False  # the last byte was CR: an LF that follows belongs to it

    @property
    def pending(self) -> bool:
        """Whether an event has begun and is not complete. At the end of a stream: whether it was cut."""
        return bool(self._line or self._data or self._event is not None)

    def feed(self, chunk: bytes) -> list[SSEEvent]:
        """The events that `chunk` completes, in order.

        Raises:
            SSEError: an event is larger than the bound. The parser is of no use afterwards.
        """
        if b"\r" in chunk or len(chunk) > self._max:
            return self._feed_lines(chunk)
        events: list[SSEEvent] = []
        if self._at_start or self._skip_lf or self.pending:
            begun = chunk.find(b"\n\n") + 2
            if begun < 2:
                return self._feed_lines(chunk)
            events += self._feed_lines(chunk[:begun])
            chunk = chunk[begun:]
        # Nothing is pending and no CR in sight, so that events are what lies between blank lines.
        blocks = chunk.split(b"\n\n")
        rest = blocks.pop()
        last_id = self._id
        for block in blocks:
            if block.startswith(b"data: ") and b"\n" not in block:
                events.append(SSEEvent(None, block[6:], last_id))
                continue
            name, _, data = block.partition(b"\n")
            if name.startswith(b"event: ") and data.startswith(b"data: ") and b"\n" not in data:
                events.append(SSEEvent(name[7:].decode("utf-8", "replace") or None, data[6:], last_id))
                continue
            events += self._feed_lines(block + b"\n\n")
            last_id = self._id
        if rest:
            events += self._feed_lines(rest)
        return events

    def end(self) -> None:
        """The stream is over. What is incomplete stays unsaid; `pending` tells whether there is any."""
        self._skip_lf = False

    def _feed_lines(self, chunk: bytes) -> list[SSEEvent]:
        if not chunk:
            return []
        if self._skip_lf:
            self._skip_lf = False
            if chunk.startswith(b"\n"):
                chunk = chunk[1:]
        if b"\r" in chunk:
            self._skip_lf = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        first, *others = chunk.split(b"\n")
        if first:
            self._line.append(first)
            self._line_bytes += len(first)
            self._check_size(self._line_bytes)
        if not others:
            return []
        events: list[SSEEvent] = []
        whole = self._line[0] if len(self._line) == 1 else b"".join(self._line)
        rest = others.pop()
        self._line = [rest] if rest else []
        self._line_bytes = len(rest)
        self._take_line(whole, events)
        for line in others:
            self._take_line(line, events)
        self._check_size(self._line_bytes)
        return events

    def _check_size(self, more: int) -> None:
        if self._data_bytes + more > self._max:
            raise SSEError(f"one event is larger than {self._max} bytes")

    def _take_line(self, line: bytes, events: list[SSEEvent]) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            if self._data:
                events.append(SSEEvent(self._event, b"\n".join(self._data), self._id))
                self._data = []
                self._data_bytes = 0
            self._event = None
            return
        name, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            self._data.append(value)
            self._data_bytes += len(value) + 1
            self._check_size(0)
        elif name == b"event":
            self._check_size(len(value))
            self._event = value.decode("utf-8", "replace") or None
        elif name == b"id" and b"\0" not in value:
            self._check_size(len(value))
            self._id = value.decode("utf-8", "replace") or None


def frame(data: bytes, event: str | None = None) -> bytes:
    """One event on the wire. Line ends inside `data` become several `data` lines, read back as LF."""
    head = b"" if event is None else b"event: " + event.encode() + b"\n"
    if b"\n" in data or b"\r" in data:
        lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        return head + b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"
    return head + b"data: " + data + b"\n\n"
