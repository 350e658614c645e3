"""One end of the socket between a supervisor and a worker: messages out and in, never waited for."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import trio

from .framing import FrameReader, frame
from .messages import Message, encode

T = TypeVar("T")

MOST_WAITING_BYTES: Final = 64 << 20
"""What may wait for the other end. Questions beyond it are not sent."""
_READ_BYTES: Final = 65_536


class Channel(Generic[T]):
    """Messages over one stream socket. `post` never waits: a process that hangs must not hold up another.

    Args:
        end: this process's end of a socket pair; closed with `close`.
        decode: makes a message of what comes in.
    """

    def __init__(self, end: socket.socket, decode: Callable[[bytes], T]) -> None:
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(end))
        self._decode = decode
        self._frames = FrameReader()
        self._read: deque[bytes] = deque()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._news = trio.lowlevel.ParkingLot()
        self._sent = trio.lowlevel.ParkingLot()
        self._over = False

    def post(self, message: Message, *, droppable: bool = False) -> bool:
        """Put a message in the row of those that go out; whether it is there.

        Args:
            droppable: whether it is left out where too much waits already.

        Raises:
            FrameError: it is longer than allowed.
        """
        data = frame(encode(message))
        if self._over or (droppable and self._waiting_bytes + len(data) > MOST_WAITING_BYTES):
            return False
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        self._news.unpark_all()
        return True

    async def write(self) -> None:
        """Send what is posted, until the other end is gone. To be run in a task of its own."""
        try:
            while True:
                while not self._waiting:
                    await self._news.park()
                await self._stream.send_all(self._waiting[0])
                self._waiting_bytes -= len(self._waiting.popleft())
                self._sent.unpark_all()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._over = True
            self._waiting.clear()
            self._sent.unpark_all()

    async def flush(self) -> None:
        """Wait until all that was posted is sent, or nothing can be sent any more."""
        while self._waiting:
            await self._sent.park()

    async def receive(self) -> T | None:
        """The next message; None when the other process has ended.

        Raises:
            FrameError: what came is no message's frame.
            msgspec.DecodeError: what came is no message.
        """
        while not self._read:
            try:
                data = await self._stream.receive_some(_READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return None
            if not data:
                return None
            self._read += self._frames.feed(bytes(data))
        return self._decode(self._read.popleft())

    def close(self) -> None:
        """Close the socket; the other end learns of it."""
        self._over = True
        self._stream.socket.close()


__all__ = ["Channel"]
