"""One WebSocket on a connection: the ASGI messages on one side, frames on the other, and its limits.

It takes the place of hypercorn's stream, which knows neither the time nor how a WebSocket ends in order.
The connection reads, writes and keeps the time; this says what is due.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol
from urllib.parse import unquote

import trio
from hypercorn.protocol.events import Body, Data, EndBody, Event, Request, Response, StreamClosed
from wsproto.utilities import generate_accept_token

from .limits import HttpLimits
from .websocket_call import MessageRoom, WebSocketCall
from .websocket_frames import (
    FAILED,
    GOING_AWAY,
    NORMAL,
    POLICY,
    TRY_LATER,
    Farewell,
    Frames,
    Pinged,
)

STREAM_ID: Final = 1
_STEPS: Final = 64
"""Frames between two chances for other connections: a read can hold ten thousand empty ones."""
_BARE_ERROR: Final = ((b"content-length", b"0"), (b"connection", b"close"))
"""How a stream begins an error that has no body of its own; `guard.py` makes one."""


class Owner(Protocol):
    """What a WebSocket needs from its connection."""

    def spawn_websocket(self, app: Any, scope: Any, send: Callable[[Any], Awaitable[None]]) -> WebSocketCall:
        """Start the application for it."""

    def end(self) -> None:
        """Read no more, cancel the application, say farewell, close."""


class WebSocket:
    """One WebSocket, from its handshake to its end.

    Args:
        owner: the connection.
        app: an ASGI application.
        limits: of the server.
        room: of the server.
        scope: what the ASGI scope holds beside the request.
        send: where responses and bytes go.
    """

    def __init__(
        self,
        owner: Owner,
        app: Any,
        limits: HttpLimits,
        room: MessageRoom,
        *,
        scope: dict[str, Any],
        send: Callable[[Event], Awaitable[None]],
    ) -> None:
        self._owner = owner
        self._app = app
        self._limits = limits
        self._room = room
        self._scope = scope
        self._send = send
        self._call: WebSocketCall
        self._key = b""
        self._frames = Frames(limits.max_message_bytes)
        self._rejection: dict[str, Any] | None = None
        self._held = 0
        self._began = 0.0
        self._pinged = 0.0
        self._farewell: Farewell | None = None
        self.accepted = False
        self.over = False
        """Whether the connection is about to end, and nothing is read or written but the farewell."""

    @property
    def idle(self) -> bool:
        """Whether ending now would cut nothing that has been asked: the application waits for a message."""
        return self.accepted and self._call.idle_since is not None

    # What the protocol brings

    async def handle(self, event: Event) -> None:
        """The request, then bytes, then the end."""
        if isinstance(event, Request):
            await self._begin(event)
        elif isinstance(event, Data) and not self.over:
            await self._receive(event.data)
        elif isinstance(event, StreamClosed):
            self.over = True
            self._hold(0)

    async def _begin(self, request: Request) -> None:
        path, _, query = request.raw_path.partition(b"?")
        self._key = next(value for name, value in request.headers if name == b"sec-websocket-key")
        scope = {
            **self._scope,
            "type": "websocket",
            "asgi": {"spec_version": "2.3", "version": "3.0"},
            "http_version": request.http_version,
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "headers": request.headers,
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}},
        }
        self._call = self._owner.spawn_websocket(self._app, scope, self.app_send)
        await self._call.put({"type": "websocket.connect"})

    async def _receive(self, data: bytes) -> None:
        ping: Pinged | None = None
        for step, arrived in enumerate(self._frames.receive(data), 1):
            if isinstance(arrived, Pinged):
                ping = arrived  # RFC 6455, 5.5.3: of several, the last one may be answered alone
            elif isinstance(arrived, Farewell):
                self.leave(arrived)
                return
            else:
                self._count()
                if self._room.held > self._room.most:
                    self.leave(Farewell(TRY_LATER, "the server holds as many bytes of messages as it may"))
                    return
                if arrived is not None:
                    await self._call.put(_message(arrived))
            if step % _STEPS == 0:
                await trio.lowlevel.checkpoint()
        if ping is not None:
            await self._send(Data(STREAM_ID, self._frames.pong(ping)))

    def _count(self) -> None:
        if self._frames.in_message and not self._held:
            self._began = trio.current_time()
        # An empty part counts as a byte, so that a message that has begun is never nothing.
        self._hold(max(1, self._frames.partial_bytes) if self._frames.in_message else 0)

    def _hold(self, held: int) -> None:
        self._room.held += held - self._held
        self._held = held

    # What the application sends

    async def app_send(self, message: dict[str, Any] | None) -> None:
        """ASGI messages; `None` says that the application has returned.

        Raises:
            RuntimeError: the message does not fit the state, which is an error of the application's.
        """
        if self.over:
            return
        kind = "end" if message is None else message["type"]
        if message is None:
            await self._end_of_app()
        elif self.accepted and kind == "websocket.send":
            text = message.get("text")
            frame = self._frames.binary(message["bytes"]) if text is None else self._frames.text(text)
            await self._send(Data(STREAM_ID, frame))
        elif self.accepted and kind == "websocket.close":
            self.leave(Farewell(message.get("code", NORMAL), message.get("reason") or ""))
        elif not self.accepted and kind == "websocket.accept":
            await self._accept(message)
        elif not self.accepted and kind == "websocket.close":
            await self._fail(403)
        elif not self.accepted and kind == "websocket.http.response.start":
            self._rejection = message
            await self._send(Response(STREAM_ID, list(message["headers"]), message["status"]))
        elif self._rejection is not None and kind == "websocket.http.response.body":
            await self._send(Body(STREAM_ID, message.get("body", b"")))
            if not message.get("more_body", False):
                self.over = True
                await self._send(EndBody(STREAM_ID))
        else:
            raise RuntimeError(f"An ASGI message of type {kind!r} has no place here.")

    async def _accept(self, message: dict[str, Any]) -> None:
        headers = [
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-accept", generate_accept_token(self._key)),
            *message.get("headers", ()),
        ]
        self._pinged = trio.current_time()
        self.accepted = True
        await self._send(Response(STREAM_ID, headers, 101))

    async def _end_of_app(self) -> None:
        if self.accepted:
            self.leave(Farewell(FAILED, "the server failed; its log says why"))
        elif self._rejection is None:
            await self._fail(500)
        else:
            self._owner.end()

    async def _fail(self, status: int) -> None:
        self.over = True
        await self._send(Response(STREAM_ID, list(_BARE_ERROR), status))
        await self._send(EndBody(STREAM_ID))

    # The end, and the time

    def leave(self, farewell: Farewell) -> None:
        """End the connection, and tell the client why. The first reason counts."""
        if self._farewell is None:
            self._farewell = farewell
        self.over = True
        self._hold(0)
        self._owner.end()

    def last_frame(self) -> bytes:
        """The close frame; empty where none is due."""
        if not self.accepted or self._farewell is None:
            return b""
        return self._frames.close(self._farewell)

    @property
    def due(self) -> float:
        """When `on_due` wants to be called, in trio's time."""
        if not self.accepted or self.over:
            return math.inf
        due = self._pinged + self._limits.websocket_ping_interval
        if self._held:
            return min(due, self._began + self._limits.message_timeout)
        if self._call.idle_since is not None:
            return min(due, self._call.idle_since + self._limits.websocket_idle_timeout)
        return due

    async def on_due(self) -> None:
        """Do what the time asks for: a ping, or the end of a connection that is idle or stuck."""
        now, limits = trio.current_time(), self._limits
        if self._held and now >= self._began + limits.message_timeout:
            self.leave(Farewell(POLICY, f"a message did not arrive within {limits.message_timeout:g} s"))
        elif not self._held and self._idle_for(now) >= limits.websocket_idle_timeout:
            self.leave(Farewell(GOING_AWAY, f"no message for {limits.websocket_idle_timeout:g} s"))
        elif now >= self._pinged + limits.websocket_ping_interval:
            self._pinged = now
            await self._send(Data(STREAM_ID, self._frames.ping()))

    def _idle_for(self, now: float) -> float:
        return 0.0 if self._call.idle_since is None else now - self._call.idle_since


def _message(arrived: str | bytes) -> dict[str, Any]:
    text = isinstance(arrived, str)
    return {
        "type": "websocket.receive",
        "text": arrived if text else None,
        "bytes": None if text else arrived,
    }
