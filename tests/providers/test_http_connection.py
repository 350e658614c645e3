"""The upstream transport over loopback: what a response may look like, and what each way of ending leaves."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from support.upstream import Reply, Script, Upstream, scripted_upstream

from trio_agent.providers.http_connection import MAX_HEAD_BYTES, CutShort
from trio_agent.providers.http_socket import Link
from trio_agent.providers.http_transport import BODY, KEEPALIVE_EXPIRY, PoolTransport


@asynccontextmanager
async def pool_of(script: Script, *, size: int = 4) -> AsyncIterator[tuple[PoolTransport, Upstream]]:
    async with scripted_upstream(script) as upstream:
        transport = PoolTransport(ssl_context=None, max_connections=size)
        try:
            yield transport, upstream
        finally:
            await transport.aclose()


async def ask(
    transport: PoolTransport, url: str, method: str = "GET", content: bytes | None = None, **timeouts: float
) -> tuple[int, bytes]:
    """One request and its whole response."""
    request = httpx.Request(method, url, content=content, extensions={"timeout": timeouts})
    response = await transport.handle_async_request(request)
    try:
        async with aclosing(response.extensions[BODY].batches()) as batches:
            return response.status_code, b"".join([batch async for batch in batches])
    finally:
        await response.aclose()


def nothing_is_held(transport: PoolTransport, size: int = 4) -> bool:
    return (transport._active, transport._permits.value) == (0, size)


OK = b"HTTP/1.1 200 OK\r\n"
HI = OK + b"Content-Length: 2\r\n\r\nhi"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n"
RESPONSES: dict[str, tuple[str, bytes, int, bytes, bool]] = {
    # method, response, status, content, whether the connection serves again
    "length": ("GET", HI, 200, b"hi", True),
    "no content": ("GET", OK + b"Content-Length: 0\r\n\r\n", 200, b"", True),
    "chunks": ("GET", CHUNKED + b"\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n", 200, b"hi", True),
    "chunk extensions": ("GET", CHUNKED + b'\r\n2;a="b"\r\nhi\r\n0;c\r\n\r\n', 200, b"hi", True),
    "sizes in capitals, with zeros": (
        "GET",
        CHUNKED + b"\r\n00A\r\n0123456789\r\n00\r\n\r\n",
        200,
        b"0123456789",
        True,
    ),
    "trailers": ("GET", CHUNKED + b"Trailer: X\r\n\r\n2\r\nhi\r\n0\r\nX: y\r\n\r\n", 200, b"hi", True),
    "interim responses": (
        "GET",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + HI,
        200,
        b"hi",
        True,
    ),
    "HEAD with a length": ("HEAD", OK + b"Content-Length: 500\r\n\r\n", 200, b"", True),
    "HEAD with chunks": ("HEAD", CHUNKED + b"\r\n", 200, b"", True),
    "204": ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "304 with a length": ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b"", True),
    "no reason": ("GET", b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi", True),
    "a folded header": ("GET", OK + b"X-Long: a\r\n  b\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi", True),
    "keep-alive": ("GET", OK + b"Connection: Keep-Alive\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi", True),
    "close": ("GET", OK + b"Connection: x, Close\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi", False),
    "close in a second line": (
        "GET",
        OK + b"Connection: x\r\nConnection:\tclose\r\nContent-Length: 2\r\n\r\nhi",
        200,
        b"hi",
        False,
    ),
    "length and chunks": (
        "GET",
        CHUNKED + b"Content-Length: 9\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        200,
        b"hi",
        False,
    ),
    "HTTP/1.0": ("GET", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi", False),
    "HTTP/1.0 keep-alive": (
        "GET",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
        200,
        b"hi",
        False,
    ),
    "more than was asked for": ("GET", OK + b"Content-Length: 2\r\n\r\nhi" + OK, 200, b"hi", False),
    "more after chunks": ("GET", CHUNKED + b"\r\n0\r\n\r\n" + OK, 200, b"", False),
    "more after HEAD": ("HEAD", HI, 200, b"", False),
}


@pytest.mark.parametrize("name", RESPONSES)
@pytest.mark.parametrize("pieces", ["whole", "byte by byte"])
async def test_responses(name: str, pieces: str) -> None:
    """Each response is read to its own end, and its connection serves again only where that is safe."""
    method, raw, status, content, again = RESPONSES[name]

    said = trio.Event()

    async def script(reply: Reply) -> None:
        reply.keep_alive = True
        try:
            for piece in [raw] if pieces == "whole" else [raw[at : at + 1] for at in range(len(raw))]:
                await reply.raw(piece)
                await trio.testing.wait_all_tasks_blocked()
        finally:
            said.set()

    async with pool_of(script) as (transport, upstream):
        for _ in range(2):
            assert await ask(transport, upstream.url, method) == (status, content)
            await said.wait()  # also what nobody asked for
            said = trio.Event()
        assert upstream.connections == (1 if again else 2)
        assert nothing_is_held(transport)


async def test_a_body_that_ends_with_its_connection() -> None:
    """Without a length or chunks, the body is what comes until the end, and that end is no failure."""

    async def script(reply: Reply) -> None:
        await reply.raw(OK + b"\r\nhello ")
        await reply.raw(b"you")

    async with pool_of(script) as (transport, upstream):
        assert await ask(transport, upstream.url) == (200, b"hello you")
        assert nothing_is_held(transport)


FAILURES: dict[str, tuple[bytes, type[httpx.TransportError]]] = {
    "nothing": (b"", CutShort),
    "half a head": (OK + b"Content-Le", CutShort),
    "an interim response only": (b"HTTP/1.1 100 Continue\r\n\r\n", CutShort),
    "less than its length": (OK + b"Content-Length: 5\r\n\r\nhell", CutShort),
    "no last chunk": (CHUNKED + b"\r\n2\r\nhi\r\n", CutShort),
    "half a chunk": (CHUNKED + b"\r\n5\r\nhi", CutShort),
    "no end of trailers": (CHUNKED + b"\r\n0\r\nX: y\r\n", CutShort),
    "not HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", httpx.RemoteProtocolError),
    "HTTP/2": (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\r\n\r\n", httpx.RemoteProtocolError),
    "two lengths": (OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nhi", httpx.RemoteProtocolError),
    "a negative length": (OK + b"Content-Length: -1\r\n\r\nhi", httpx.RemoteProtocolError),
    "another coding": (OK + b"Transfer-Encoding: gzip\r\n\r\nhi", httpx.RemoteProtocolError),
    "two codings": (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\nhi", httpx.RemoteProtocolError),
    "an upgrade unasked for": (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", httpx.RemoteProtocolError),
    "an endless line": (OK + b"X: " + b"y" * 500_000, httpx.RemoteProtocolError),
    "endless headers": (OK + b"X: y\r\n" * 80_000, httpx.RemoteProtocolError),
    "endless interim responses": (b"HTTP/1.1 102 Processing\r\n\r\n" * 20_000, httpx.RemoteProtocolError),
    "broken chunks": (CHUNKED + b"\r\nzz\r\n", httpx.RemoteProtocolError),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_failures(name: str) -> None:
    """What is no whole response fails as what it is, in bounded memory, and its connection is closed."""
    raw, expected = FAILURES[name]

    async def script(reply: Reply) -> None:
        await reply.raw(raw)

    async with pool_of(script) as (transport, upstream):
        with pytest.raises(httpx.RemoteProtocolError) as caught:
            await ask(transport, upstream.url)
        assert type(caught.value) is expected
        assert len(str(caught.value)) < 2 * MAX_HEAD_BYTES
        assert nothing_is_held(transport)
        assert not transport._idle


async def test_the_request_line_and_host_are_right() -> None:
    """`Host` has the port and an address' brackets; path and query go as they are; a body has its length."""
    if not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")

    async def script(reply: Reply) -> None:
        await reply.json(b"{}")

    transport = PoolTransport(ssl_context=None, max_connections=2)
    try:
        async with scripted_upstream(script, host="::1") as upstream:
            await ask(transport, f"http://[::1]:{upstream.port}/a%20b?c=d", "POST", b"body")
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    request = upstream.requests[0]
    assert (request.method, request.path, request.body) == ("POST", "/a%20b?c=d", b"body")
    assert request.headers["host"] == f"[::1]:{upstream.port}"
    assert request.headers["content-length"] == "4"
    await transport.aclose()


@pytest.mark.parametrize(
    "host",
    ["nowhere.invalid", "a" * 64 + ".example", "a..b", "127.0.0.1:1"],
)
async def test_what_cannot_be_connected_to(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is unknown or no name, and a port where nobody listens, are a ConnectError."""

    class Nowhere(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *_: Any) -> Any:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        async def getnameinfo(self, *_: Any) -> Any:
            raise AssertionError

    if host == "nowhere.invalid":
        trio.socket.set_custom_hostname_resolver(Nowhere())
    transport = PoolTransport(ssl_context=None, max_connections=4)
    with pytest.raises(httpx.ConnectError):
        await ask(transport, f"http://{host}/")
    assert nothing_is_held(transport)


async def test_other_schemes_are_refused() -> None:
    """What is neither http nor https with a context is not guessed at; what cannot be sent is not sent."""

    async def script(reply: Reply) -> None:
        raise AssertionError("no request was to come")

    async with pool_of(script) as (transport, upstream):
        with pytest.raises(httpx.UnsupportedProtocol):
            await ask(transport, upstream.url.replace("http", "https"))
        request = httpx.Request("GET", upstream.url, headers=[("bad name", "x")])
        with pytest.raises(httpx.LocalProtocolError):
            await transport.handle_async_request(request)
        assert nothing_is_held(transport)


async def test_an_answer_that_comes_before_the_request_is_whole() -> None:
    """An upstream that refuses a large body and hangs up is understood; its connection is not used again."""

    async def script(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(1000)
            await stream.send_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, script, 0, host="127.0.0.1"))
        transport = PoolTransport(ssl_context=None, max_connections=4)
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        assert await ask(transport, url, "POST", b"x" * 20_000_000) == (413, b"big")
        assert nothing_is_held(transport)
        assert not transport._idle
        nursery.cancel_scope.cancel()


async def test_an_idle_connection_that_the_upstream_closed_is_not_used() -> None:
    """Between two requests the upstream hangs up: the second one goes over a new connection."""

    async def script(reply: Reply) -> None:
        await reply.json(b"{}")
        reply.keep_alive = False

    async with pool_of(script) as (transport, upstream):
        for _ in range(3):
            assert await ask(transport, upstream.url, "POST", b"x") == (200, b"{}")
            while upstream.open:
                await trio.testing.wait_all_tasks_blocked()
        assert (upstream.connections, len(upstream.requests)) == (3, 3)


async def test_a_request_is_never_sent_twice() -> None:
    """An upstream that hangs up on the second request of a connection got it once, and the caller is told."""

    async def script(reply: Reply) -> None:
        if reply.request.body == b"first":
            await reply.json(b"{}")

    async with pool_of(script) as (transport, upstream):
        await ask(transport, upstream.url, "POST", b"first")
        with pytest.raises(CutShort):
            await ask(transport, upstream.url, "POST", b"second")
        assert [request.body for request in upstream.requests] == [b"first", b"second"]
        assert upstream.connections == 1


async def test_an_idle_connection_grows_too_old(autojump_clock: trio.testing.MockClock) -> None:
    """A connection is not kept for longer than servers keep theirs."""

    async def script(reply: Reply) -> None:
        await reply.json(b"{}")

    async with pool_of(script) as (transport, upstream):
        await ask(transport, upstream.url)
        await trio.sleep(KEEPALIVE_EXPIRY - 1)
        await ask(transport, upstream.url)
        await trio.sleep(KEEPALIVE_EXPIRY + 1)
        await ask(transport, upstream.url)
        assert upstream.connections == 2


async def test_idle_connections_of_another_origin_make_room() -> None:
    """The bound holds over all origins: an idle connection is closed where another one is needed."""

    async def script(reply: Reply) -> None:
        await reply.json(b"{}")

    async with pool_of(script, size=1) as (transport, one), scripted_upstream(script) as two:
        for url in (one.url, two.url, one.url):
            assert (await ask(transport, url))[0] == 200
            assert len(transport._idle) == 1
        assert (one.connections, two.connections) == (2, 1)


async def test_a_pool_that_stays_full(autojump_clock: trio.testing.MockClock) -> None:
    """A request that gets no connection in time fails, and takes nothing from those that come later."""
    go = trio.Event()

    async def script(reply: Reply) -> None:
        await go.wait()
        await reply.json(b"{}")

    async with pool_of(script, size=1) as (transport, upstream), trio.open_nursery() as nursery:
        nursery.start_soon(ask, transport, upstream.url)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(httpx.PoolTimeout):
            await ask(transport, upstream.url, pool=5.0)
        nursery.start_soon(ask, transport, upstream.url)
        await trio.testing.wait_all_tasks_blocked()
        go.set()
    assert nothing_is_held(transport, 1)
    assert len(upstream.requests) == 2


async def test_a_connect_that_takes_too_long(autojump_clock: trio.testing.MockClock) -> None:
    """The limit on connecting counts from the name's look-up."""

    class Slow(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *_: Any) -> Any:
            await trio.sleep_forever()

        async def getnameinfo(self, *_: Any) -> Any:
            raise AssertionError

    trio.socket.set_custom_hostname_resolver(Slow())
    transport = PoolTransport(ssl_context=None, max_connections=4)
    with pytest.raises(httpx.ConnectTimeout):
        await ask(transport, "http://slow.example/", connect=3.0)
    assert trio.current_time() == 3.0
    assert nothing_is_held(transport)


async def test_cancelled_at_every_step() -> None:
    """Whenever a request is cancelled, its socket and its permit come back, and the next one is served."""

    async def script(reply: Reply) -> None:
        await reply.head()
        await reply.chunk(b"a")
        await trio.lowlevel.checkpoint()
        await reply.chunk(b"b")
        await reply.end()

    async def cancel_after(steps: int, scope: trio.CancelScope) -> None:
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async with pool_of(script, size=1) as (transport, upstream):
        steps = 0
        while True:
            async with trio.open_nursery() as nursery:
                # The second one waits for the first one's permit.
                nursery.start_soon(ask, transport, upstream.url)
                with trio.CancelScope() as scope:
                    nursery.start_soon(cancel_after, steps, scope)
                    await ask(transport, upstream.url, "POST", b"x" * 100_000)
            assert nothing_is_held(transport, 1)
            assert await ask(transport, upstream.url) == (200, b"ab")
            if not scope.cancelled_caught:
                break
            steps += 1
        assert steps > 2
        await transport.aclose()
        with trio.fail_after(2):
            while upstream.open:
                await trio.lowlevel.checkpoint()


async def test_cancelled_while_the_upstream_does_not_read() -> None:
    """A request that is half out is given up with its connection."""
    closed = trio.Event()

    async def script(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(1)
            await scope_made.wait()
            scope.cancel()
            with suppress(trio.BrokenResourceError):  # RST, or FIN
                while await stream.receive_some(100_000):
                    pass
            closed.set()

    scope_made = trio.Event()
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, script, 0, host="127.0.0.1"))
        transport = PoolTransport(ssl_context=None, max_connections=4)
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        with trio.CancelScope() as scope:
            scope_made.set()
            await ask(transport, url, "POST", b"x" * 20_000_000)
        assert scope.cancelled_caught
        assert nothing_is_held(transport)
        with trio.fail_after(2):
            await closed.wait()
        nursery.cancel_scope.cancel()


async def test_a_response_that_was_closed_reads_no_further() -> None:
    """Its connection may serve another request by then; an old reader gets nothing of that."""

    async def script(reply: Reply) -> None:
        await reply.raw(CHUNKED + b"\r\n2\r\nhi\r\n0\r\n\r\n")
        reply.keep_alive = True

    async with pool_of(script) as (transport, upstream):
        response = await transport.handle_async_request(httpx.Request("GET", upstream.url))
        async with aclosing(response.extensions[BODY].batches()) as old:
            assert await anext(old) == b"hi"
            await response.aclose()
            await response.aclose()
            second = await transport.handle_async_request(httpx.Request("GET", upstream.url))
            assert upstream.connections == 1
            assert [batch async for batch in old] == []
            assert b"".join([batch async for batch in second.extensions[BODY]]) == b"hi"
            await second.aclose()
        assert nothing_is_held(transport)


async def test_closing_early_keeps_the_connection_where_the_rest_is_here() -> None:
    """A reader that stops before the end costs a connection only if the end has not come yet."""
    told = trio.Event()

    async def script(reply: Reply) -> None:
        await reply.head()
        await reply.chunk(b"first")
        await go.wait()
        await reply.chunk(b"last")
        await (reply.end() if reply.request.body == b"whole" else reply.chunk(b"and more"))
        told.set()
        if not reply.keep_alive:
            await reply.until_client_leaves()

    async with pool_of(script) as (transport, upstream):
        for content, connections in ((b"whole", 1), (b"whole", 1), (b"partly", 1), (b"whole", 2)):
            told, go = trio.Event(), trio.Event()
            request = httpx.Request("POST", upstream.url, content=content)
            response = await transport.handle_async_request(request)
            async with aclosing(response.extensions[BODY].batches()) as batches:
                assert await anext(batches) == b"first"
            go.set()
            await told.wait()
            await response.aclose()
            assert upstream.connections == connections
            assert nothing_is_held(transport)


async def test_a_closed_transport_keeps_nothing() -> None:
    """What is in use when the transport is closed ends with its own response, and nothing begins any more."""

    async def script(reply: Reply) -> None:
        await reply.json(b"{}")

    async with pool_of(script) as (transport, upstream):
        response = await transport.handle_async_request(httpx.Request("GET", upstream.url))
        await transport.aclose()
        assert await response.aread() == b"{}"
        await response.aclose()
        assert not transport._idle
        with pytest.raises(RuntimeError):
            await ask(transport, upstream.url)
        assert nothing_is_held(transport)


async def test_a_closed_link_never_reads_what_took_its_descriptor() -> None:
    """Descriptors are numbers that the system gives out again: a closed link fails, and reads nothing."""
    ours, theirs = trio.socket.socketpair()
    link = Link(trio.SocketStream(ours))
    number = ours.fileno()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await link.receive()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        link.close()
        with pytest.raises(trio.ClosedResourceError):
            await link.receive()
        reader, writer = os.pipe()
        try:
            if reader != number:
                os.dup2(reader, number)
            os.write(writer, b"another one's secret")
            assert not link.silent()
            with pytest.raises(OSError):
                link.receive_now()
        finally:
            for each in {reader, writer, number}:
                os.close(each)
    theirs.close()


async def test_idle_connections_are_closed_while_no_request_comes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The upstream may have hung up long ago; its sockets must not lie about until the next request."""

    async def script(reply: Reply) -> None:
        await reply.json(b"{}")

    async with pool_of(script) as (transport, upstream):
        await ask(transport, upstream.url)
        transport.close_idle()
        assert len(transport._idle) == 1
        await trio.sleep(KEEPALIVE_EXPIRY + 1)
        transport.close_idle()
        assert not transport._idle
