"""A scripted upstream: a real TCP server on loopback that says exactly what a test tells it to say."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import h11
import msgspec
import trio


@dataclass
class UpstreamRequest:
    """A request as it arrived. Header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


@dataclass
class Reply:
    """What a script may do with one request: say raw bytes, wait, watch the client leave, hang up."""

    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]
    request: UpstreamRequest
    keep_alive: bool = False

    async def raw(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def head(self, status: int = 200, *, chunked: bool = True, **headers: str) -> None:
        """Status line and headers; names with `_` for `-`."""
        lines = [f"HTTP/1.1 {status} Because"]
        headers.setdefault("content_type", "text/event-stream")
        if chunked:
            headers["transfer_encoding"] = "chunked"
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.raw("\r\n".join([*lines, "", ""]).encode())

    async def chunk(self, data: bytes) -> None:
        await self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def end(self) -> None:
        """The end of a chunked body; the connection stays open for another request."""
        self.keep_alive = True
        await self.raw(b"0\r\n\r\n")

    async def sse(self, *datas: bytes | str, done: bool = True) -> None:
        """A whole event stream, an event per chunk, with `[DONE]`."""
        await self.head()
        for data in datas:
            await self.chunk(b"data: " + (data if isinstance(data, bytes) else data.encode()) + b"\n\n")
        if done:
            await self.chunk(b"data: [DONE]\n\n")
        await self.end()

    async def json(self, value: Any, status: int = 200, **headers: str) -> None:
        """A whole JSON response; bytes are sent as they are."""
        body = value if isinstance(value, bytes) else msgspec.json.encode(value)
        headers.setdefault("content_type", "application/json")
        await self.head(status, chunked=False, content_length=str(len(body)), **headers)
        await self.raw(body)
        self.keep_alive = True

    async def until_client_leaves(self) -> None:
        """Return once the client has closed its side."""
        while True:
            try:
                if not await self.stream.receive_some():
                    return
            except trio.BrokenResourceError:
                return


Script: TypeAlias = Callable[[Reply], Awaitable[None]]


@dataclass
class Upstream:
    """The running server. `requests` has every request; `connections` counts what was accepted, `open`
    what has not ended."""

    port: int = 0
    requests: list[UpstreamRequest] = field(default_factory=list)
    connections: int = 0
    open: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def scripted_upstream(
    script: Script, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Upstream]:
    """Serve `script`, called once a request, until the block ends.

    A script that returns without having ended a response closes the connection: that is how an answer
    is cut off. With `tls`, a connection is counted once its handshake is done.
    """
    upstream = Upstream()

    async def serve(stream: trio.SocketStream) -> None:
        if tls is None:
            await _serve_connection(upstream, script, stream)
            return
        secure = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        try:
            await secure.do_handshake()
        except trio.BrokenResourceError:
            await trio.aclose_forcefully(stream)  # the client did not like us
        else:
            await _serve_connection(upstream, script, secure)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host=host))
        upstream.port = listeners[0].socket.getsockname()[1]
        yield upstream
        nursery.cancel_scope.cancel()


async def _serve_connection(
    upstream: Upstream, script: Script, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]
) -> None:
    upstream.connections += 1
    upstream.open += 1
    try:
        rest = b""
        while True:
            request, rest = await _receive_request(stream, rest)
            if request is None:
                return
            upstream.requests.append(request)
            reply = Reply(stream, request)
            await script(reply)
            if not reply.keep_alive:
                return
    except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
        pass  # the client left: what a test about leaving wants
    finally:
        upstream.open -= 1
        await trio.aclose_forcefully(stream)


async def _receive_request(
    stream: trio.abc.ReceiveStream, rest: bytes
) -> tuple[UpstreamRequest | None, bytes]:
    """One request and what was read beyond it; `None` where the client left."""
    connection = h11.Connection(h11.SERVER)
    if rest:
        connection.receive_data(rest)
    request: UpstreamRequest | None = None
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some())
        elif isinstance(event, h11.Request):
            headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
            request = UpstreamRequest(event.method.decode(), event.target.decode(), headers, b"")
        elif isinstance(event, h11.Data) and request is not None:
            request.body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return request, connection.trailing_data[0]
        else:
            return None, b""
