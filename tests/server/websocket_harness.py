"""A WebSocket client over a raw one: it sends frames, right or wrong, and says what came back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from http_harness import Client, Running, get
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Event, TextMessage

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", KEY)

TEXT, BINARY, CLOSE, PING, PONG, MORE = 1, 2, 8, 9, 10, 0


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, mask: bool = True, bits: int = 0) -> bytes:
    """One frame as RFC 6455, 5.2 draws it; masked with zeros, which leave the payload as it is."""
    first = opcode | (0x80 if fin else 0) | bits
    size, masked = len(payload), 0x80 if mask else 0
    if size < 126:
        head = bytes([first, masked | size])
    elif size < 65_536:
        head = bytes([first, masked | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([first, masked | 127]) + size.to_bytes(8, "big")
    return head + (bytes(4) if mask else b"") + payload


class WebSocketClient:
    """A WebSocket whose handshake is done."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.connection = Connection(ConnectionType.CLIENT)

    async def send(self, event: Event) -> None:
        await self.client.send(self.connection.send(event))

    async def say(self, text: str) -> None:
        await self.send(TextMessage(text))

    async def receive(self) -> Event:
        with trio.fail_after(2):
            while True:
                self.connection.receive_data(self.client.buffer)
                self.client.buffer = b""
                for event in self.connection.events():
                    return event
                assert await self.client.more(), "the connection ended without a close frame"

    async def hear(self) -> str:
        """The next message, which must be a text."""
        text = ""
        while True:
            event = await self.receive()
            assert isinstance(event, TextMessage), event
            text += event.data
            if event.message_finished:
                return text

    async def farewell(self) -> tuple[int, str]:
        """Code and reason of the close frame, which must be what comes next, and last."""
        event = await self.receive()
        assert isinstance(event, CloseConnection), event
        assert await self.client.rest() == b""
        return int(event.code), event.reason or ""


@asynccontextmanager
async def websocket(server: Running, path: str = "/ws") -> AsyncIterator[WebSocketClient]:
    async with await server.connect() as client:
        await client.send(get(path, *UPGRADE))
        assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        yield WebSocketClient(client)
