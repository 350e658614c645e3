"""The accept loop, and the orderly end of an HTTP server.

`serve_asgi` runs in any nursery and keeps nothing outside itself: an application can run several
servers side by side, and cancelling the scope around one ends it at once.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from .address import ListenError, close_all, open_listeners
from .connection import Connection
from .failures import log
from .guard import ASGIApp, Config, WorkerContext, protocol_config, start_draining
from .limits import HttpLimits
from .replies import RenderError, plain_error, raw_response, render
from .websocket_call import MessageRoom
from .websocket_frames import TRY_LATER, Farewell

LAST_WORDS_TIMEOUT: Final = 1.0
"""Seconds after the grace period in which turns may write their terminal events."""
ACCEPT_PAUSE: Final = 0.1
"""Seconds between attempts while the system refuses new connections (no file descriptors, no memory)."""
ACCEPT_QUIET: Final = 60.0
"""Seconds without such a refusal after which the next one is said again."""
MAX_REFUSALS: Final = 64
"""Clients over the connection limit that are told so at the same time; more are reset without a word."""
REFUSAL_TIMEOUT: Final = 1.0
_NO_ROOM: Final = Farewell(TRY_LATER, "the server has no room for more connections")


async def serve_asgi(
    app: ASGIApp,
    listeners: list[trio.SocketListener],
    *,
    limits: Callable[[], HttpLimits],
    shutdown: trio.Event,
    grace: Callable[[], float],
    on_grace_over: Callable[[], Awaitable[None] | None],
    on_draining: Callable[[], None],
    until_idle: Callable[[], Awaitable[None]] | None = None,
    render_error: RenderError = plain_error,
    watch_connections: Callable[[Callable[[], int]], None] | None = None,
    delay: Callable[[], float] = lambda: 0.0,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve HTTP/1.1 and WebSockets until `shutdown` is set and the connections are done.

    A client that leaves cancels the application's call for its request. The ASGI lifespan protocol is
    not spoken: what must live as long as the server lives in the nursery around it.

    At `shutdown` all goes on for `delay()` seconds. Then the listeners close, `on_draining` is called, idle
    connections close, and running requests go on for up to `grace()` seconds, answered with
    `Connection: close`. Is one left then, `on_grace_over` is called (and awaited, if it returns an
    awaitable), and `LAST_WORDS_TIMEOUT` later the rest is cancelled and reset. A client that never reads
    cannot delay that; an application that shields its clean-up can, by as long as it does. Cancelling
    `serve_asgi` skips all of it.

    Args:
        app: called as `app(scope, receive, send)`, for the scopes `http` and `websocket`.
        listeners: open sockets, closed when this returns.
        limits: gives the sizes and times of a connection that comes now.
        shutdown: set it to end the server in order.
        grace: gives the seconds for running requests.
        on_grace_over: tells running turns to end with a terminal event.
        on_draining: tells health checks that no new request will come.
        until_idle: waits for what the application does without a connection. It has the same time as the
            connections; what is left then is for whoever runs it to end.
        render_error: bodies of errors that reach no route.
        watch_connections: is given what tells how many connections are open.
        delay: seconds in which new connections are still accepted; asked when `shutdown` is set.
        task_status: started with the listeners once connections are accepted.
    """
    server = _Server(app, limits, render_error)
    if watch_connections is not None:
        watch_connections(lambda: server.open_connections)
    async with trio.open_nursery() as nursery:
        try:
            async with trio.open_nursery() as accepting:
                for listener in listeners:
                    accepting.start_soon(server.accept, listener, nursery)
                task_status.started(listeners)
                await shutdown.wait()
                await trio.sleep(delay())
                close_all(listeners)
                accepting.cancel_scope.cancel()
            on_draining()
            await server.drain(grace(), on_grace_over, until_idle)
        finally:
            close_all(listeners)
            server.abort()
            nursery.cancel_scope.cancel()


class _Server:
    """The connections of one `serve_asgi`."""

    def __init__(self, app: ASGIApp, limits: Callable[[], HttpLimits], render_error: RenderError) -> None:
        self._app = app
        self._limits = limits
        self._render_error = render_error
        self._configs: dict[int, Config] = {}
        """Of hypercorn's, by `max_header_bytes`: the one limit that is read there."""
        self._room = MessageRoom(limits().max_held_message_bytes)
        self._context = WorkerContext(None)
        self._connections: dict[Connection, None] = {}
        self._refusals = 0
        self._empty = trio.Event()

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    async def accept(self, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        """Accept until the listener is closed. After an error it is tried again, after a pause.

        That is said once while it goes on: it may work now and then, each time that a connection ends.
        """
        failed = -math.inf
        while True:
            try:
                stream = await listener.accept()
            except trio.ClosedResourceError:
                return
            except OSError as error:
                if trio.current_time() - failed > ACCEPT_QUIET:
                    log.error("cannot accept connections (%s): trying on", os.strerror(error.errno or 0))
                failed = trio.current_time()
                self._close_an_idle_one()
                await trio.sleep(ACCEPT_PAUSE)
                continue
            limits = self._limits()
            if len(self._connections) < limits.max_connections or self._close_an_idle_one():
                self._start(stream, limits, nursery)
            elif self._refusals < MAX_REFUSALS:
                self._refusals += 1
                nursery.start_soon(self._refuse, stream)
            else:
                stream.socket.close()

    def _start(self, stream: trio.SocketStream, limits: HttpLimits, nursery: trio.Nursery) -> None:
        app, config, context, room = self._app, self._config_for(limits), self._context, self._room
        room.most = limits.max_held_message_bytes
        connection = Connection(stream, app, config, context, limits, room, self._render_error)
        self._connections[connection] = None
        nursery.start_soon(self._run, connection)

    def _config_for(self, limits: HttpLimits) -> Config:
        most = limits.max_header_bytes
        if most not in self._configs:
            self._configs[most] = protocol_config(max_header_bytes=most, log=log)
        return self._configs[most]

    async def _run(self, connection: Connection) -> None:
        try:
            await connection.run()
        finally:
            del self._connections[connection]
            if not self._connections:
                self._empty.set()

    def _close_an_idle_one(self) -> bool:
        """Make room: end the connection that was opened first among those without a request.

        A WebSocket that waits for its next message is the last choice: its client has to connect anew.
        """
        open_ones = [connection for connection in self._connections if not connection.ending]
        upgraded = [connection for connection in open_ones if connection.websocket is not None]
        plain = [connection for connection in open_ones if connection.websocket is None]
        return any(connection.close_if_idle(_NO_ROOM) for connection in [*plain, *upgraded])

    async def _refuse(self, stream: trio.SocketStream) -> None:
        body, headers = render(self._render_error, 503)
        try:
            with trio.move_on_after(REFUSAL_TIMEOUT):
                await stream.send_all(raw_response(503, body, [*headers, (b"retry-after", b"1")]))
                await stream.send_eof()
                while await stream.receive_some(4096):
                    pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self._refusals -= 1
            stream.socket.close()

    async def drain(
        self,
        grace: float,
        on_grace_over: Callable[[], Awaitable[None] | None],
        until_idle: Callable[[], Awaitable[None]] | None,
    ) -> None:
        """Let running requests end; see `serve_asgi`."""
        for config in self._configs.values():
            await start_draining(config, self._context)
        for connection in list(self._connections):
            connection.drain()
        with trio.move_on_after(grace) as scope:
            await self._all_done(until_idle)
        if scope.cancelled_caught:
            with trio.move_on_after(LAST_WORDS_TIMEOUT):
                said = on_grace_over()
                if inspect.isawaitable(said):
                    await said
                await self._all_done(until_idle)

    async def _all_done(self, until_idle: Callable[[], Awaitable[None]] | None) -> None:
        if self._connections:
            self._empty = trio.Event()
            await self._empty.wait()
        if until_idle is not None:
            await until_idle()

    def abort(self) -> None:
        """Reset what is still connected; this also ends writes, which are shielded from cancellation."""
        for connection in list(self._connections):
            connection.abort()


__all__ = ["HttpLimits", "ListenError", "open_listeners", "serve_asgi"]
