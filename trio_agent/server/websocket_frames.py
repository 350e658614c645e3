"""Frames of one WebSocket (RFC 6455): bytes in, whole messages out, and back. Pure.

wsproto knows the framing. What is added here: messages are put together under a limit in bytes, and every
way in which a WebSocket can end comes with the code and the words that the other side is to be told.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeAlias

from msgspec import Struct
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
INVALID_TEXT: Final = 1007
POLICY: Final = 1008
TOO_BIG: Final = 1009
FAILED: Final = 1011
TRY_LATER: Final = 1013

_WORDS: Final = {
    PROTOCOL_ERROR: "the frames do not follow RFC 6455",
    INVALID_TEXT: "a text message is not UTF-8",
}


class Pinged(Struct, frozen=True):
    """The client asks for a sign of life, and for this payload back."""

    payload: bytes


class Farewell(Struct, frozen=True):
    """Nothing more is read: the client said goodbye, or broke a rule. The code is what it is to be told."""

    code: int
    reason: str = ""


Arrived: TypeAlias = str | bytes | Pinged | Farewell | None
"""A whole message, a ping, the end; or `None` for a part of a message and whatever needs no answer."""


class Frames:
    """The frames of one connection, on the server's side.

    Args:
        max_message_bytes: a longer message ends the connection, as soon as its limit is passed.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self._protocol = Connection(ConnectionType.SERVER)
        self._most = max_message_bytes
        self._parts: list[str | bytes] = []
        self.partial_bytes = 0
        """Bytes of a message that has begun and is not whole."""
        self.in_message = False
        """Whether a message has begun and is not whole. Its bytes so far may be none."""

    def receive(self, data: bytes) -> Iterator[Arrived]:
        """What these bytes complete, one by one. After a `Farewell` there is nothing more to ask."""
        self._protocol.receive_data(data)
        for event in self._protocol.events():
            if isinstance(event, Message):
                yield self._add(event)
                if self.partial_bytes > self._most:
                    return
            elif isinstance(event, Ping):
                yield Pinged(bytes(event.payload))
            elif isinstance(event, CloseConnection):
                yield self._farewell(event)
                return
            else:
                yield None

    def _add(self, event: Message[Any]) -> Arrived:
        self.in_message = True
        self.partial_bytes += _size(event.data)
        if self.partial_bytes > self._most:
            self._parts.clear()
            return Farewell(TOO_BIG, f"a message is longer than {self._most} bytes")
        self._parts.append(event.data if isinstance(event, TextMessage) else bytes(event.data))
        if not event.message_finished:
            return None
        whole = _joined(self._parts, text=isinstance(event, TextMessage))
        self._parts = []
        self.partial_bytes, self.in_message = 0, False
        return whole

    def _farewell(self, event: CloseConnection) -> Farewell:
        if self._protocol.state is ConnectionState.REMOTE_CLOSING:
            return Farewell(int(event.code))
        return Farewell(int(event.code), _WORDS.get(int(event.code), ""))

    def text(self, message: str) -> bytes:
        """One text message. Empty once a close frame has been made: nothing may follow it."""
        return self._made(TextMessage(message))

    def binary(self, message: bytes) -> bytes:
        """One binary message, as `text`."""
        return self._made(BytesMessage(message))

    def ping(self) -> bytes:
        """A ping without payload."""
        return self._made(Ping())

    def pong(self, ping: Pinged) -> bytes:
        """The answer to a ping."""
        return self._made(Pong(ping.payload))

    def close(self, farewell: Farewell) -> bytes:
        """The close frame; empty if one was made before."""
        if self._protocol.state not in {ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING}:
            return b""
        without = farewell.code == CloseReason.NO_STATUS_RCVD  # a close frame without a code stands for it
        code = CloseReason.NO_STATUS_RCVD if without else farewell.code
        return self._protocol.send(CloseConnection(code, farewell.reason or None))

    def _made(self, event: Message[Any] | Ping | Pong) -> bytes:
        return self._protocol.send(event) if self._protocol.state is ConnectionState.OPEN else b""


def _size(data: str | bytes) -> int:
    return len(data) if isinstance(data, bytes | bytearray) or data.isascii() else len(data.encode())


def _joined(parts: list[str | bytes], *, text: bool) -> str | bytes:
    if len(parts) == 1:
        return parts[0]
    return "".join(map(str, parts)) if text else b"".join(part for part in parts if isinstance(part, bytes))
