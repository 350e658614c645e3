"""One client connection: a nursery that reads, runs the application, and ends with the socket.

One task reads; each request is one more. Timers are deadlines on the read, so an idle connection
costs one task, a running request two. Whatever ends the connection (the client's FIN or RST, a write
that nobody takes, a malformed request) cancels the application's call, unless its response is whole.
An exception ends this connection and no other.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.utils import parse_socket_addr

from .call import Call
from .failures import describe_errors, log
from .guard import ASGIApp, Config, ConnectionOver, GuardedProtocol, WorkerContext
from .limits import HttpLimits
from .replies import RenderError
from .sockets import detect_dead_peer
from .websocket import WebSocket
from .websocket_call import MessageRoom, WebSocketCall
from .websocket_frames import GOING_AWAY, Farewell
from .writing import Writer

READ_BYTES: Final = 65_536
READ_AHEAD_BYTES: Final = 65_536
_SHUTTING_DOWN: Final = Farewell(GOING_AWAY, "the server is shutting down")
LINGER_TIMEOUT: Final = 2.0
"""Seconds for which input is thrown away after an early answer, so that closing does not destroy it."""


class Connection:
    """Serve one client.

    Args:
        stream: the accepted connection; closed when `run` returns.
        app: an ASGI application.
        config, context: of the server, from `guard.py`.
        limits: times and sizes.
        room: of the server, for WebSocket messages.
        render_error: bodies of errors that have no route.
    """

    def __init__(
        self,
        stream: trio.SocketStream,
        app: ASGIApp,
        config: Config,
        context: WorkerContext,
        limits: HttpLimits,
        room: MessageRoom,
        render_error: RenderError,
    ) -> None:
        self._stream = stream
        self._app = app
        self._config = config
        self._context = context
        self._limits = limits
        self._room = room
        self._render_error = render_error
        self._nursery: trio.Nursery
        self._protocol: GuardedProtocol | None = None
        self._calls: set[Call | WebSocketCall] = set()
        self._writer = Writer(stream, limits.write_timeout, self._give_up)
        self._ahead = bytearray()
        self._waiting: trio.CancelScope | None = None
        self._deadline = trio.current_time() + limits.header_timeout
        self._in_request = False
        self._in_header = True
        self._draining = False
        self._gone = False
        self.ending = False

    @property
    def idle(self) -> bool:
        """Whether closing now would cut no request that has been received."""
        if self.websocket is not None:
            return self.websocket.idle
        return not self._in_request and not self._calls

    @property
    def websocket(self) -> WebSocket | None:
        """What this connection has become, if it was upgraded."""
        return self._protocol.websocket if self._protocol is not None else None

    def drain(self) -> None:
        """Close now if idle, else as soon as the running request is answered."""
        self._draining = True
        self.close_if_idle(_SHUTTING_DOWN)

    def close_if_idle(self, farewell: Farewell) -> bool:
        """Begin to close if no request runs; says whether it does.

        Args:
            farewell: what the client of a WebSocket is told.
        """
        idle = self.idle
        if idle and self.websocket is not None:
            self.websocket.leave(farewell)
        elif idle:
            self.end()
        return idle

    def abort(self) -> None:
        """Close at once with RST: drops what the kernel holds for the client, makes blocked writes return."""
        self.ending = True
        with contextlib.suppress(OSError):  # closed before
            self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._stream.socket.close()

    async def run(self) -> None:
        """Serve until either side ends the connection. Raises nothing but cancellation."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                try:
                    self._protocol = protocol = self._make_protocol()
                    await self._read(protocol)
                    self.ending = True
                    self._cancel_calls()
                    if not self._gone:
                        await protocol.say_farewell()
                        await self._linger(protocol)
                finally:
                    self._stream.socket.close()  # also ends a write, which no cancellation reaches
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as errors:
            log.debug("connection ended: %s", describe_errors(errors))
        except* Exception as errors:  # noqa: BLE001 - whatever it is, it ends this connection only
            log.warning("connection closed after an error: %s", describe_errors(errors))

    def _make_protocol(self) -> GuardedProtocol:
        sock = self._stream.socket
        if sock.family in {socket.AF_INET, socket.AF_INET6}:
            detect_dead_peer(self._stream)
        return GuardedProtocol(
            self,
            self._app,
            self._config,
            self._context,
            client=parse_socket_addr(sock.family, sock.getpeername()),
            server=parse_socket_addr(sock.family, sock.getsockname()),
            limits=self._limits,
            room=self._room,
            render_error=self._render_error,
        )

    # Reading

    async def _read(self, protocol: GuardedProtocol) -> None:
        """Feed the protocol until the client ends its side, a limit is reached or `end` was called."""
        while not self.ending:
            if self._ahead:
                data, self._ahead = bytes(self._ahead), bytearray()
            else:
                with trio.CancelScope(deadline=self._deadline) as self._waiting:
                    data = await self._receive()
                if self._waiting.cancelled_caught:
                    await self._time_out(protocol)
                    continue
                if not data:
                    return
            try:
                await protocol.handle(RawData(data))
            except ConnectionOver:
                return
            del data  # the next bytes may be minutes away
            if protocol.websocket is not None:
                self._deadline = protocol.websocket.due
            elif not self._in_request and not self._in_header and protocol.has_partial_request:
                # Counted from the first byte: later ones do not buy more time.
                self._in_header = True
                self._deadline = trio.current_time() + self._limits.header_timeout

    async def _receive(self) -> bytes:
        """The next bytes; empty if the client has ended its side, by FIN or RST, or we closed ours."""
        sock = self._stream.socket
        data: bytes | None = None
        try:
            # Not the stream's own reading, which tries before it waits: that is in vain nearly every time.
            while data is None and sock.fileno() >= 0:
                await trio.lowlevel.wait_readable(sock)
                try:
                    # Asked for anew: the descriptor of a closed socket may be another one's by now.
                    data = os.read(sock.fileno(), READ_BYTES)
                except BlockingIOError:
                    continue
        except (OSError, trio.ClosedResourceError):
            pass
        self._gone = not data
        return data or b""

    async def _time_out(self, protocol: GuardedProtocol) -> None:
        """The deadline has passed, or `end` was called."""
        if protocol.websocket is not None:
            if not self.ending:
                await protocol.websocket.on_due()
            self._deadline = protocol.websocket.due
            return
        if not self.ending and protocol.has_partial_request:
            await protocol.refuse(408)
        self.ending = True

    async def park(self, wake: trio.Event) -> None:
        """Wait in the reading task for `wake`, and watch for the client's end meanwhile.

        Up to `READ_AHEAD_BYTES` are kept for later; beyond that the client's end shows only in a write.

        Raises:
            ConnectionOver: the connection ended, by whichever side.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_ahead, nursery.cancel_scope)
            await wake.wait()
            nursery.cancel_scope.cancel()
        if self.ending:
            raise ConnectionOver

    async def _read_ahead(self, parked: trio.CancelScope) -> None:
        while len(self._ahead) < READ_AHEAD_BYTES:
            data = await self._receive()
            if not data:
                self.ending = True
                parked.cancel()
                return
            self._ahead += data

    # The application

    async def spawn_app(
        self, app: ASGIApp, config: Config, scope: Any, send: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Any], Awaitable[None]]:
        assert self._protocol is not None  # noqa: S101 - it is what calls
        call = Call(self.park, self._protocol.send_continue, send, self._protocol.chunk, self._writer.write)
        self._start(call, app, scope)
        return call.put

    def spawn_websocket(
        self, app: ASGIApp, scope: Any, send: Callable[[Any], Awaitable[None]]
    ) -> WebSocketCall:
        call = WebSocketCall(self.park, self._websocket_asks, self._room, send)
        self._start(call, app, scope)
        return call

    def _start(self, call: Call | WebSocketCall, app: ASGIApp, scope: Any) -> None:
        scope["extensions"][CANCELS_ON_DISCONNECT] = {}
        self._calls.add(call)
        self._nursery.start_soon(self._run_app, call, app, scope)

    def _websocket_asks(self) -> None:
        """The application wants the next message: the moment to end it, and to count its idle time."""
        if self._draining:
            self.close_if_idle(_SHUTTING_DOWN)
        elif self.websocket is not None and self._waiting is not None:
            self._waiting.deadline = self.websocket.due

    async def _run_app(self, call: Call | WebSocketCall, app: ASGIApp, scope: Any) -> None:
        try:
            with call.scope:
                await app(scope, call.receive, call.send)
        except* Exception as errors:  # noqa: BLE001 - as above
            log.warning("the application failed on a request: %s", describe_errors(errors))
        finally:
            self._calls.discard(call)
            call.finish()
        if not call.scope.cancelled_caught:
            await call.end()
        if self._draining:
            self.close_if_idle(_SHUTTING_DOWN)

    def _cancel_calls(self) -> None:
        for call in self._calls:
            if not call.answered:
                call.scope.cancel()

    # What the protocol asks for

    async def on_event(self, event: Event) -> None:
        if isinstance(event, RawData):
            if event.data:
                await self._writer.write(event.data)
        elif isinstance(event, Closed):
            self.end()
        elif isinstance(event, Updated):
            self._in_request, self._in_header = not event.idle, False
            self._deadline = trio.current_time() + self._limits.idle_timeout if event.idle else math.inf
            if self._waiting is not None:
                self._waiting.deadline = self._deadline

    def _give_up(self) -> None:
        """A write was not taken whole: nothing could follow it."""
        self.abort()
        self._cancel_calls()

    def end(self) -> None:
        """Begin to close: nothing more is read, and what runs is cancelled."""
        self.ending = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def _linger(self, protocol: GuardedProtocol) -> None:
        """After an answer that came before the request was whole: read on, else the client may lose it.

        Closing with unread input makes the kernel send RST, which throws away what the client has not read.
        """
        if self._draining or not protocol.input_open:
            return
        with trio.move_on_after(LINGER_TIMEOUT):
            await self._writer.send_eof()
            while await self._receive():
                pass


CANCELS_ON_DISCONNECT: Final = "trio_agent.cancels_on_disconnect"
"""ASGI scope extension: this server cancels the call when the client leaves, so nobody need wait for it."""
