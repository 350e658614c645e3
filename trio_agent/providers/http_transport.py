"""httpx's transport interface over httpcore2's connection pool.

httpx stays the client API, but its own pool does not survive cancellation while requests wait for a
connection: cancelled connects keep their slots for ever. httpcore2's pool does. HTTP/1.1 only: one lost
HTTP/2 connection would end many streams.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from operator import attrgetter
from typing import Final, cast

import httpcore2
import httpx

BODY: Final = "trio_agent.body"
"""The response extension under which the transport hands out its `ResponseBody`."""

KEEPALIVE_EXPIRY: Final = 15.0
"""Seconds that an idle connection is kept: less than what common servers and proxies keep theirs."""

_LONGEST_CHUNK_HEAD: Final = 256

_EXCEPTIONS: Final[tuple[tuple[type[Exception], type[httpx.TransportError]], ...]] = (
    (httpcore2.ConnectTimeout, httpx.ConnectTimeout),
    (httpcore2.ReadTimeout, httpx.ReadTimeout),
    (httpcore2.WriteTimeout, httpx.WriteTimeout),
    (httpcore2.PoolTimeout, httpx.PoolTimeout),
    (httpcore2.TimeoutException, httpx.TimeoutException),
    (httpcore2.ConnectError, httpx.ConnectError),
    (httpcore2.ReadError, httpx.ReadError),
    (httpcore2.WriteError, httpx.WriteError),
    (httpcore2.NetworkError, httpx.NetworkError),
    (httpcore2.UnsupportedProtocol, httpx.UnsupportedProtocol),
    (httpcore2.LocalProtocolError, httpx.LocalProtocolError),
    (httpcore2.RemoteProtocolError, httpx.RemoteProtocolError),
    (httpcore2.ProtocolError, httpx.ProtocolError),
)


@contextmanager
def mapped_exceptions() -> Iterator[None]:
    """Raise httpx's exceptions for httpcore2's; the cause is kept."""
    try:
        yield
    except Exception as error:
        for source, target in _EXCEPTIONS:
            if isinstance(error, source):
                raise target(str(error)) from error
        raise


class ResponseBody(httpx.AsyncByteStream):
    """A response body, read as it comes.

    Iterate under `aclosing`; one iteration only. Closing early closes the connection.
    """

    def __init__(self, response: httpcore2.Response) -> None:
        # The pool's body is an async iterable whose iterator is a generator; the public type is wider.
        self._stream = cast("AsyncIterable[bytes]", response.stream)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.batches()

    async def batches(self) -> AsyncGenerator[bytes, None]:
        """One item per wake-up: chunks that one network read brought are joined."""
        with mapped_exceptions():
            chunks = cast("AsyncGenerator[bytes, None]", aiter(self._stream))
            async with aclosing(chunks):
                async for chunk in chunks:
                    parts = [chunk]
                    failure: Exception | None = None
                    while failure is None and self._more_is_here():
                        try:
                            parts.append(await anext(chunks))
                        except (httpcore2.ProtocolError, httpcore2.NetworkError) as error:
                            failure = error  # what came before it is delivered first
                    yield parts[0] if len(parts) == 1 else b"".join(parts)
                    if failure is not None:
                        raise failure

    def _unread(self) -> bytes | bytearray:
        # Nobody offers this publicly. Should the names change, chunks come one by one: slower, not wrong.
        try:
            data = _RECEIVED(self._stream)
        except AttributeError:
            return b""
        return data if isinstance(data, bytearray) else b""

    def _more_is_here(self) -> bool:
        """Whether the next chunk of a chunked body can be had without reading from the network.

        After a whole chunk there remain its CRLF, the next chunk's size line, and at least a byte of it.
        The last chunk (size 0) is left for the next iteration, which may have to wait for what follows it.
        """
        unread = self._unread()
        if len(unread) < 6 or unread[:2] != b"\r\n" or unread[2] == 0x30:
            return False
        line_end = unread.find(b"\r\n", 2, _LONGEST_CHUNK_HEAD)
        return 0 < line_end < len(unread) - 2

    async def aclose(self) -> None:
        close = getattr(self._stream, "aclose", None)
        if close is not None:
            with mapped_exceptions():
                await close()


_RECEIVED: Final = attrgetter("_stream._connection._h11_state._receive_buffer._data")


class PoolTransport(httpx.AsyncBaseTransport):
    """httpx's transport over httpcore2's pool.

    Args:
        ssl_context: for `https`; one for all connections, since building one takes tens of milliseconds.
        max_connections: bound of the pool, idle connections included; requests beyond it wait.
    """

    def __init__(self, *, ssl_context: ssl.SSLContext | None, max_connections: int) -> None:
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=ssl_context,
            max_connections=max_connections,
            max_keepalive_connections=max_connections,
            keepalive_expiry=KEEPALIVE_EXPIRY,
            http1=True,
            http2=False,
            network_backend=httpcore2.TrioBackend(),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        core_request = httpcore2.Request(
            method=request.method,
            url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with mapped_exceptions():
            response = await self._pool.handle_async_request(core_request)
        body = ResponseBody(response)
        return httpx.Response(
            status_code=response.status,
            headers=response.headers,
            stream=body,
            extensions={**response.extensions, BODY: body},
        )

    async def aclose(self) -> None:
        with mapped_exceptions():
            await self._pool.aclose()
