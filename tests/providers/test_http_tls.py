"""TLS to an upstream, over loopback: who is trusted, what is handed on, what each ending leaves."""

from __future__ import annotations

import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio
import trio.testing
from support.certificates import Certificate, make_certificate
from support.upstream import Reply, Script, Upstream, scripted_upstream

from trio_agent.providers import http
from trio_agent.providers.contract import UpstreamError
from trio_agent.providers.http import HttpSettings, UpstreamHttp
from trio_agent.providers.http_connection import CutShort
from trio_agent.providers.http_socket import TLSLink, default_context
from trio_agent.providers.http_transport import BODY, PoolTransport

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@asynccontextmanager
async def pool_of(
    certificate: Certificate, script: Script, *, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> AsyncIterator[tuple[PoolTransport, Upstream, str]]:
    context = certificate.client()
    context.maximum_version = context.minimum_version = version
    async with scripted_upstream(script, tls=certificate.server()) as upstream:
        transport = PoolTransport(ssl_context=context, max_connections=4)
        try:
            yield transport, upstream, f"https://localhost:{upstream.port}/"
        finally:
            await transport.aclose()


async def begin(transport: PoolTransport, url: str, content: bytes | None = None) -> httpx.Response:
    request = httpx.Request("POST", url, content=content, extensions={"timeout": {"connect": 5.0}})
    return await transport.handle_async_request(request)


async def rest(response: httpx.Response) -> list[bytes]:
    try:
        async with aclosing(response.extensions[BODY].batches()) as batches:
            return [batch async for batch in batches]
    finally:
        await response.aclose()


def nothing_is_held(transport: PoolTransport) -> bool:
    return (transport._active, transport._permits.value) == (0, 4)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_connection_serves_again(certificate: Certificate, version: ssl.TLSVersion) -> None:
    """Large requests and answers pass whole; session tickets do not keep a connection from serving again."""
    big = bytes(range(256)) * 4000

    async def script(reply: Reply) -> None:
        await reply.json(reply.request.body)

    async with pool_of(certificate, script, version=version) as (transport, upstream, url):
        for content in (big, b"x", big):
            batches = await rest(await begin(transport, url, content))
            assert b"".join(batches) == content
        assert upstream.connections == 1
        assert nothing_is_held(transport)
        assert upstream.requests[0].headers["host"] == f"localhost:{upstream.port}"


async def test_records_that_came_together_are_one_batch(certificate: Certificate) -> None:
    """As without TLS: one wake-up, one batch."""
    told = trio.Event()

    async def script(reply: Reply) -> None:
        await reply.raw(CHUNKED)
        await go.wait()
        for number in range(50):
            await reply.chunk(b"%d " % number)
        told.set()
        await reply.end()

    go = trio.Event()
    async with pool_of(certificate, script) as (transport, _, url):
        response = await begin(transport, url)
        go.set()
        await told.wait()
        batches = await rest(response)
        assert b"".join(batches) == b"".join(b"%d " % number for number in range(50))
        assert len(batches) < 25  # the kernel may hand them on in two or three parts


@pytest.mark.parametrize("when", ["with the answer", "later"])
async def test_what_nobody_asked_for_ends_the_connection(certificate: Certificate, when: str) -> None:
    """A second answer in a record of its own is never taken for the answer to the next request."""
    told, go = trio.Event(), trio.Event()

    async def script(reply: Reply) -> None:
        reply.keep_alive = True
        if len(upstream.requests) > 1:
            await reply.raw(OK + b"Content-Length: 4\r\n\r\ngood")
            return
        await reply.raw(OK + b"Content-Length: 4\r\n\r\n")
        await reply.raw(b"good")
        if when == "later":
            await go.wait()
        await reply.raw(OK + b"Content-Length: 4\r\n\r\nevil")
        told.set()

    async with pool_of(certificate, script) as (transport, upstream, url):
        response = await begin(transport, url)
        if when == "later":
            assert await rest(response) == [b"good"]
            go.set()
            await told.wait()
        else:
            await told.wait()  # all of it is read at once
            assert await rest(response) == [b"good"]
            assert not transport._idle
        assert await rest(await begin(transport, url)) == [b"good"]
        assert upstream.connections == 2


@asynccontextmanager
async def http_to(upstream: Upstream, host: str) -> AsyncIterator[UpstreamHttp]:
    settings = HttpSettings(base_url=f"https://{host}:{upstream.port}", connect_timeout=3.0)
    async with UpstreamHttp(settings) as http:
        yield http


async def answer(reply: Reply) -> None:
    await reply.json(b"{}")


async def test_the_system_decides_who_is_trusted(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate of nobody's is refused and said to be so; `SSL_CERT_FILE` makes it trusted."""
    async with scripted_upstream(answer, tls=certificate.server()) as upstream:
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        async with http_to(upstream, "localhost") as http:
            with pytest.raises(UpstreamError, match=r"certificate not accepted.*self") as caught:
                await http.get_json("/")
            assert caught.value.failure.kind == "refused"
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.certificate))
        for host in ("localhost", "127.0.0.1"):
            async with http_to(upstream, host) as http:
                assert await http.get_json("/") == b"{}"
    assert len(upstream.requests) == 2


async def test_a_certificate_for_another_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trusted is not enough: the name, or the address, must be the certificate's."""
    other = make_certificate(tmp_path, "DNS:elsewhere.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(other.certificate))
    async with scripted_upstream(answer, tls=other.server()) as upstream:
        for host in ("localhost", "127.0.0.1"):
            async with http_to(upstream, host) as http:
                with pytest.raises(UpstreamError, match=r"certificate not accepted.*not valid for"):
                    await http.get_json("/")
    assert not upstream.requests


def test_a_system_without_certificates_falls_back_on_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system trusts nobody, Mozilla's list is used, and verification stays on."""
    nowhere = ssl.DefaultVerifyPaths(None, None, "", "/nowhere", "", "/nowhere")  # type: ignore[arg-type]
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: nowhere)
    context = default_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert len(context.get_ca_certs()) > 50


async def test_a_handshake_that_takes_too_long(
    certificate: Certificate, autojump_clock: trio.testing.MockClock
) -> None:
    """An upstream that accepts and says nothing is given up in time, and its socket is closed."""
    left = trio.Event()

    async def silent(stream: trio.SocketStream) -> None:
        async with stream:
            while await stream.receive_some(1000):
                pass
        left.set()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, silent, 0, host="127.0.0.1"))
        transport = PoolTransport(ssl_context=certificate.client(), max_connections=4)
        with pytest.raises(httpx.ConnectTimeout):
            await begin(transport, f"https://127.0.0.1:{listener.socket.getsockname()[1]}")
        await left.wait()
        assert nothing_is_held(transport)
        nursery.cancel_scope.cancel()


def _raw(reply: Reply) -> trio.SocketStream:
    assert isinstance(reply.stream, trio.SSLStream)
    return reply.stream.transport_stream


async def _hangs_up(reply: Reply) -> None:
    _raw(reply).socket.close()


async def _says_goodbye(reply: Reply) -> None:
    await reply.stream.aclose()


async def _garbles(reply: Reply) -> None:
    await _raw(reply).send_all(b"\x17\x03\x03\x00\x20" + b"x" * 32)


@pytest.mark.parametrize(
    ("end", "failure"),
    [(_hangs_up, CutShort), (_says_goodbye, CutShort), (_garbles, httpx.ReadError)],
    ids=["hangs up", "says goodbye", "garbles a record"],
)
@pytest.mark.parametrize("together", [False, True])
async def test_a_connection_that_fails_in_the_middle(
    certificate: Certificate, end: Callable[[Reply], object], failure: type[Exception], together: bool
) -> None:
    """What came before is delivered, also if one read brought both; then the failure is told."""
    ended = trio.Event()

    async def script(reply: Reply) -> None:
        await reply.raw(CHUNKED)
        await reply.chunk(b"first")
        await end(reply)  # type: ignore[misc]
        ended.set()

    async with pool_of(certificate, script) as (transport, _, url):
        response = await begin(transport, url)
        if together:
            await ended.wait()
        async with aclosing(response.extensions[BODY].batches()) as batches:
            assert await anext(batches) == b"first"
            with pytest.raises(failure):
                await anext(batches)
        await response.aclose()
        assert nothing_is_held(transport)


@pytest.mark.parametrize("end", [_hangs_up, _says_goodbye], ids=["hangs up", "says goodbye"])
async def test_a_body_that_ends_with_its_connection(
    certificate: Certificate, end: Callable[[Reply], object]
) -> None:
    """The end of the connection is the end of such a body, as common servers mean it."""

    async def script(reply: Reply) -> None:
        await reply.raw(OK + b"\r\nall")
        await end(reply)  # type: ignore[misc]

    async with pool_of(certificate, script) as (transport, _, url):
        assert await rest(await begin(transport, url)) == [b"all"]
        assert nothing_is_held(transport)


async def test_closing_does_not_wait_for_the_other_side(certificate: Certificate) -> None:
    """An upstream that never says goodbye does not hold anybody up, and sees the end at once."""
    left = trio.Event()

    async def script(reply: Reply) -> None:
        await reply.raw(CHUNKED)
        await reply.chunk(b"first")
        await reply.until_client_leaves()
        left.set()

    async with pool_of(certificate, script) as (transport, _, url):
        with trio.fail_after(2):
            response = await begin(transport, url)
            await response.aclose()
            await left.wait()
        assert nothing_is_held(transport)


async def test_cancelled_at_every_step(certificate: Certificate) -> None:
    """From the connect through the handshake to the end: sockets and permits come back."""

    async def script(reply: Reply) -> None:
        await reply.raw(CHUNKED)
        await reply.chunk(b"a")
        await trio.lowlevel.checkpoint()
        await reply.end()

    async def cancel_after(steps: int, scope: trio.CancelScope) -> None:
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async with pool_of(certificate, script) as (transport, upstream, url):
        url = url.replace("localhost", "127.0.0.1")  # whose look-up needs no thread
        steps = 0
        while True:
            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as scope:
                    nursery.start_soon(cancel_after, steps, scope)
                    await rest(await begin(transport, url, b"x" * 100_000))
            assert nothing_is_held(transport)
            if not scope.cancelled_caught:
                break
            for connection in transport._idle:  # each time a handshake of its own
                connection.close()
            transport._idle.clear()
            steps += 1
        assert steps > 2
        assert await rest(await begin(transport, url)) == [b"a"]
        await transport.aclose()
        with trio.fail_after(2):
            while upstream.open:
                await trio.lowlevel.checkpoint()


async def test_a_record_that_is_half_out_ends_the_link(certificate: Certificate) -> None:
    """A write that was cancelled in the middle leaves a link that says it must not be used again."""
    ours, theirs = trio.socket.socketpair()
    server = trio.SSLStream(trio.SocketStream(theirs), certificate.server(), server_side=True)
    link = TLSLink(trio.SocketStream(ours), certificate.client(), "localhost")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.do_handshake)
        await link.do_handshake()
    assert link.silent()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.send_all, b"x" * 10_000_000)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert not link.silent()
    link.close()
    theirs.close()


async def test_the_context_is_made_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes long, and a server that mounts providers anew has streams open meanwhile."""
    made_in: list[int] = []

    def noted() -> ssl.SSLContext:
        made_in.append(threading.get_ident())
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    monkeypatch.setattr(http, "default_context", noted)
    async with UpstreamHttp(HttpSettings(base_url="https://upstream.test/v1")):
        assert made_in
        assert threading.get_ident() not in made_in
    async with UpstreamHttp(HttpSettings(base_url="http://upstream.test/v1")):
        assert len(made_in) == 1, "none is made where none is needed"
