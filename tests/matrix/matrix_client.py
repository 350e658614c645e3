"""A client on a raw socket: it waits for bytes, and leaves in every way in which a client can leave."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import Literal, Self, TypeAlias, get_args

import h11
import trio

FAIL_S = 60.0
"""How long anything that must happen may take before a test gives up, in seconds."""

Leaving: TypeAlias = Literal["FIN", "half-close", "RST"]
LEAVINGS: tuple[Leaving, ...] = get_args(Leaving)


class Client:
    """One connection to the server. `seen` has what was read and not handed out."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.seen = b""

    @classmethod
    async def connect(cls, port: int, *, buffer: int | None = None) -> Self:
        """Connect. With `buffer`, the kernel keeps about so many bytes for a client that does not read."""
        sock = trio.socket.socket()
        if buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        await sock.connect(("127.0.0.1", port))
        return cls(trio.SocketStream(sock))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stream.socket.close()

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def read(self) -> bytes:
        data = await self.stream.receive_some(65_536)
        self.seen += data
        return data

    async def until(self, wanted: bytes) -> None:
        """Read until `wanted` has come."""
        with trio.fail_after(FAIL_S):
            while wanted not in self.seen:
                assert await self.read(), f"closed before {wanted!r} came: {self.seen!r}"

    async def answer(self) -> tuple[int, bytes]:
        """One whole response: its status and its body. Interim responses are passed over."""
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method="GET", target="/", headers=[("host", "localhost")]))
        connection.send(h11.EndOfMessage())
        if self.seen:  # nothing would mean the end
            connection.receive_data(self.seen)
            self.seen = b""
        status, body = 0, []
        with trio.fail_after(FAIL_S):
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await self.stream.receive_some(65_536))
                elif isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    body.append(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    self.seen = connection.trailing_data[0]
                    return status, b"".join(body)
                else:
                    assert isinstance(event, h11.InformationalResponse), event

    def leave(self, how: Leaving, *, unread: bool = False) -> float:
        """Leave, and say when. Without `unread` all that has come is read first, so that FIN is a FIN.

        (The kernel resets a connection that is closed with unread input.)
        """
        sock = self.stream.socket
        if not unread:
            with contextlib.suppress(BlockingIOError):
                while data := os.read(sock.fileno(), 65_536):
                    self.seen += data
        left_at = trio.current_time()
        if how == "half-close":
            sock.shutdown(socket.SHUT_WR)
            return left_at
        if how == "RST":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        return left_at

    async def rest(self) -> bytes:
        """All that comes up to the end of the connection; a reset is an end, too."""
        with trio.fail_after(FAIL_S):
            try:
                while await self.read():
                    pass
            except trio.BrokenResourceError:
                pass
        return self.seen


async def ask(port: int, request: bytes) -> tuple[int, bytes]:
    """One request on a connection of its own, which the server has closed as well when this returns."""
    async with await Client.connect(port) as client:
        await client.send(request)
        answer = await client.answer()
        client.leave("half-close")
        await client.rest()
    return answer


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()
