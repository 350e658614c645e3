"""httpx's transport interface over connections of our own.

httpx stays the client API: requests, responses, URLs and exceptions are its own. Not so its client and its
stock pool. The pool keeps the slots of requests that were cancelled while they waited, until none is left
(encode/httpcore#1093). And in the layers of any general client a streamed chunk costs more than in all of
trio-agent beside them; docs/performance.md has the figures.

Here a request owns a permit and a connection from the moment it has them. Whatever way it ends, both go back
in one step without an await, so no cancellation can come in between. HTTP/1.1 only: one lost HTTP/2
connection would end many streams. Nothing here sends a request twice: one that meets a connection that the
upstream was just closing fails as `CutShort`, and whoever knows whether it may be repeated decides.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from typing import Final

import httpx
import trio

from trio_agent.providers.caller import CALLER
from trio_agent.providers.http_connection import Connection
from trio_agent.providers.http_socket import open_link

BODY: Final = "trio_agent.body"
"""The response extension under which the transport hands out its `ResponseBody`."""

KEEPALIVE_EXPIRY: Final = 15.0
"""Seconds after which an idle connection serves no more: less than what common servers and proxies keep
theirs. It is closed by the next request, or by `close_idle`."""


class ResponseBody(httpx.AsyncByteStream):
    """A response body, read as it comes; one iteration only.

    Closing early closes the connection, unless the rest of the body is here.
    """

    __slots__ = ("_connection", "_transport")

    def __init__(self, connection: Connection, transport: PoolTransport) -> None:
        self._connection: Connection | None = connection
        self._transport = transport

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.batches()

    async def batches(self) -> AsyncGenerator[bytes, None]:
        """One item per wake-up: chunks that one network read brought are joined. Iterate under `aclosing`."""
        # Asked for each time: once the body is closed, the connection may serve another request.
        while self._connection is not None:
            content = await self._connection.receive_body()
            if not content:
                return
            yield content

    def receive(self) -> Awaitable[bytes]:
        """The next item of `batches`, empty at the end. Not to be called once the body is closed."""
        if self._connection is None:
            raise RuntimeError("the response was closed")
        return self._connection.receive_body()

    async def aclose(self) -> None:
        """Be done with the response. Does not wait."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._transport.release(connection)


class PoolTransport(httpx.AsyncBaseTransport):
    """httpx's transport for requests whose body is in memory.

    A request's connect and pool timeouts are honoured; reading and writing take as long as they take,
    whoever reads has limits of its own.

    Args:
        ssl_context: for `https`; one for all connections, since building one takes tens of milliseconds.
        max_connections: bound on connections, idle ones included; requests beyond it wait.
    """

    def __init__(self, *, ssl_context: ssl.SSLContext | None, max_connections: int) -> None:
        self._ssl_context = ssl_context
        self._permits = trio.Semaphore(max_connections, max_value=max_connections)
        self._max = max_connections
        self._idle: list[Connection] = []
        self._active = 0
        self._closed = False

    def secure(self, context: ssl.SSLContext) -> None:
        """Take a context for the connections of `https` from now on."""
        self._ssl_context = context

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its response once the head is here. Close the response.

        Raises:
            httpx.TransportError: as its subclasses say.
            RuntimeError: the transport was closed.
        """
        timeouts = request.extensions.get("timeout", {})
        await self._permit(timeouts.get("pool"))
        self._active += 1
        connection: Connection | None = None
        try:
            connection = self._idle_one(_origin_of(request.url))
            if connection is None:
                connection = await self._connect(request.url, timeouts.get("connect"))
            caller = CALLER.get()
            if caller is not None and caller.gone:
                raise httpx.ConnectError("the client left before the request was sent")
            sending = connection.send(request)
            del request  # a large one should not be kept for as long as the answer takes
            head = await sending
        except BaseException:
            self._drop(connection)
            raise
        body = ResponseBody(connection, self)
        return httpx.Response(
            head.status_code, headers=head.headers.raw_items(), stream=body, extensions={BODY: body}
        )

    async def _permit(self, seconds: float | None) -> None:
        try:
            self._permits.acquire_nowait()
            return
        except trio.WouldBlock:
            pass
        limit = math.inf if seconds is None else seconds
        with trio.move_on_after(limit):
            await self._permits.acquire()
            return
        raise httpx.PoolTimeout(f"no connection was free within {limit:g} s")

    def _idle_one(self, origin: object) -> Connection | None:
        """The connection that was used last, if it is still good. Those that are too old are closed."""
        if self._closed:
            raise RuntimeError("the transport is closed")
        self.close_idle()
        for index in range(len(self._idle) - 1, -1, -1):
            if self._idle[index].origin == origin:
                connection = self._idle.pop(index)
                if connection.silent():
                    return connection
                connection.close()
        return None

    def close_idle(self) -> None:
        """Close the connections that have been idle for too long."""
        oldest = trio.current_time() - KEEPALIVE_EXPIRY
        while self._idle and self._idle[0].idle_since < oldest:  # they are in the order of their release
            self._idle.pop(0).close()

    async def _connect(self, url: httpx.URL, seconds: float | None) -> Connection:
        scheme, host, port = origin = _origin_of(url)
        if scheme != "http" and (scheme != "https" or self._ssl_context is None):
            raise httpx.UnsupportedProtocol(f"not spoken here: {scheme}")
        while self._idle and len(self._idle) + self._active > self._max:
            self._idle.pop(0).close()  # of another origin
        context = self._ssl_context if scheme == "https" else None
        return Connection(await open_link(host, port, context=context, seconds=seconds), origin)

    def release(self, connection: Connection) -> None:
        """A response is done with: keep its connection where it can serve again."""
        if self._closed or not connection.reusable():
            self._drop(connection)
            return
        connection.idle_since = trio.current_time()
        self._idle.append(connection)
        self._active -= 1
        self._permits.release()

    def _drop(self, connection: Connection | None) -> None:
        if connection is not None:
            connection.close()
        self._active -= 1
        self._permits.release()

    async def aclose(self) -> None:
        """Close what is idle; what is in use closes when it is released."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()


def _origin_of(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)
