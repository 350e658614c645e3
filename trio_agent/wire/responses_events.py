"""The event stream of the Responses format: framing and numbers. No I/O.

Over HTTP an event is one of server-sent ones; over a WebSocket it is a message, which is a line here.
Every event has `sequence_number`, counted from 0 over the whole response. The same outputs always give the
same numbers, so a client that was cut off can ask for what came after the last one it saw.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import msgspec

from trio_agent.wire.sse import frame

encode: Final = msgspec.json.Encoder(decimal_format="string").encode


class EventWriter:
    """Writes events and counts them.

    Args:
        silent: nothing is written, for an answer that is not streamed.
        after: the last number that the client has seen; events up to it are counted and left out.
        lines: each event is one line of JSON, and nothing else.
    """

    __slots__ = ("_after", "_end", "_lines", "number")

    def __init__(self, *, silent: bool = False, after: int = -1, lines: bool = False) -> None:
        self.number = 0
        self._after = sys.maxsize if silent else after
        self._lines = lines
        self._end = b"\n" if lines else b"\n\n"

    def event(self, kind: str, **members: Any) -> bytes:
        number = self.number
        self.number = number + 1
        if number <= self._after:
            return b""
        data = encode({"type": kind, "sequence_number": number, **members})
        return data + self._end if self._lines else frame(data, event=kind)

    def delta(self, head: bytes, text: str) -> bytes:
        """An event that begins with `head`, made once by `delta_head`: it costs the encoding of its text."""
        number = self.number
        self.number = number + 1
        if number <= self._after:
            return b""
        return b'%b%b,"sequence_number":%d}%b' % (head, encode(text), number, self._end)

    def delta_head(self, kind: str, **members: Any) -> bytes:
        """What all deltas of one part begin with, up to the text."""
        known = encode({"type": kind, **members})[:-1] + b',"delta":'
        return known if self._lines else b"event: %b\ndata: %b" % (kind.encode(), known)
