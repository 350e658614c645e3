"""A WebSocket client of the Responses face, without sockets: ASGI messages on channels."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio
from responses_app import PATH, asked, check_event, check_response
from support.chat_app import ChatApp
from support.shapes import faults

from trio_agent.server.connection import CANCELS_ON_DISCONNECT

LAST = {"response.completed", "response.incomplete", "response.failed", "error"}


class SocketClient:
    """One connection. `closed` has the code that closed it, `refused` the HTTP answer to its handshake."""

    def __init__(self) -> None:
        self.to_app, self._from_client = trio.open_memory_channel[dict[str, Any]](math.inf)
        self._to_client, self.from_app = trio.open_memory_channel[dict[str, Any]](0)
        self.scope = trio.CancelScope()
        self.closed: int | None = None
        self.refused: tuple[int, dict[str, Any]] | None = None
        self.over = trio.Event()

    async def run(self, app: ChatApp, headers: Mapping[str, str]) -> None:
        scope = {
            "type": "websocket", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
            "scheme": "ws", "path": PATH, "raw_path": PATH.encode(), "query_string": b"", "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "subprotocols": [],
            "extensions": {CANCELS_ON_DISCONNECT: {}, "websocket.http.response": {}},
        }  # fmt: skip
        with self.scope:
            await app.app(scope, self._from_client.receive, self._to_client.send)  # type: ignore[arg-type]
        self.over.set()

    async def open(self) -> None:
        await self.to_app.send({"type": "websocket.connect"})
        message = await self.from_app.receive()
        if message["type"] == "websocket.http.response.start":
            body = await self.from_app.receive()
            self.refused = message["status"], json.loads(body["body"])

    async def send(self, message: str | bytes | Mapping[str, Any]) -> None:
        if isinstance(message, Mapping):
            message = json.dumps(message)
        kind = "text" if isinstance(message, str) else "bytes"
        await self.to_app.send({"type": "websocket.receive", "text": None, "bytes": None, kind: message})

    async def hear(self) -> dict[str, Any] | None:
        """The next event, checked; `None` once the connection is closed."""
        message = await self.from_app.receive()
        if message["type"] == "websocket.close":
            self.closed = message["code"]
            return None
        event: dict[str, Any] = json.loads(message["text"])
        if event["type"] == "error":
            assert faults(event, "WebSocketErrorEvent") == []
        else:
            check_event(event)
        return event

    async def answer(self) -> list[dict[str, Any]]:
        """The events up to and with the one that ends an answer."""
        events: list[dict[str, Any]] = []
        while not events or events[-1]["type"] not in LAST:
            event = await self.hear()
            assert event is not None, "closed in the middle"
            events.append(event)
        if events[-1]["type"] != "error":
            assert [event["sequence_number"] for event in events] == [*range(len(events))]
            check_response(events[-1]["response"])
        else:
            assert len(events) == 1, "an error is an answer of its own"
        return events

    async def ask(self, text: Any = "Hello", **fields: Any) -> dict[str, Any]:
        """Send a request; returns what it came to: the response, or the error event."""
        await self.send({"type": "response.create", **asked(text, **fields)})
        last = (await self.answer())[-1]
        return last if last["type"] == "error" else last["response"]


@asynccontextmanager
async def connected(app: ChatApp, headers: Mapping[str, str] | None = None) -> AsyncIterator[SocketClient]:
    """A connection, whose end is a client that leaves."""
    client = SocketClient()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run, app, {"host": "localhost", **(headers or {})})
        await client.open()
        yield client
        client.scope.cancel()
