"""The event stream of the Responses format: framing and numbers. No I/O.

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
    """

    __slots__ = ("_after", "number")

    def __init__(self, *, silent: bool = False, after: int = -1) -> None:
        self.number = 0
        self._after = sys.maxsize if silent else after

    def event(self, kind: str, **members: Any) -> bytes:
        number = self.number
        self.number = number + 1
        if number <= self._after:
            return b""
        return frame(encode({"type": kind, "sequence_number": number, **members}), event=kind)

    def delta(self, head: bytes, text: str) -> bytes:
        """An event that begins with `head`, made once by `delta_head`: it costs the encoding of its text."""
        number = self.number
        self.number = number + 1
        if number <= self._after:
            return b""
        return b'%b%b,"sequence_number":%d}\n\n' % (head, encode(text), number)


def delta_head(kind: str, **members: Any) -> bytes:
    """What all deltas of one part begin with, up to the text."""
    known = encode({"type": kind, **members})
    return b"event: %b\ndata: %b" % (kind.encode(), known[:-1] + b',"delta":')
