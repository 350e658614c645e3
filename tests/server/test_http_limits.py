"""Slow senders, slow readers, idle connections and crowds meet a limit."""

from __future__ import annotations

import errno
import os
import time
from typing import Any

import pytest
import trio
from http_harness import Client, Running, Watch, get, make_app, post, request_bytes, serving, wait_set

from trio_agent.server import guard
from trio_agent.server.guard import check_leaned_on
from trio_agent.server.listen import ListenError, open_listeners


async def drip(client: Client, data: bytes, pause: float = 0.02) -> None:
    """Send a byte at a time until the other side closes."""
    try:
        for byte in data:
            await client.send(bytes([byte]))
            await trio.sleep(pause)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


async def drip_until_closed(server: Running, head: bytes, data: bytes) -> tuple[bytes, float]:
    async with await server.connect() as client:
        began = trio.current_time()
        await client.send(head)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip, client, data)
            answer = await client.rest()
            nursery.cancel_scope.cancel()
        return answer, trio.current_time() - began


async def test_dripped_headers_are_cut_at_the_header_timeout() -> None:
    """A byte every 20 ms does not move the limit: 408 as JSON, then closed."""
    async with serving(header_timeout=0.2) as server:
        answer, took = await drip_until_closed(server, b"GET /ok HTTP/1.1\r\nX-A: ", b"a" * 1000)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"request_timeout"' in answer
    assert 0.15 < took < 0.5


async def test_dripped_headers_of_a_later_request_are_cut_too() -> None:
    """On a kept-alive connection the limit counts from the first byte of the next request."""
    async with serving(header_timeout=0.2, idle_timeout=5) as server, await server.connect() as client:
        await client.send(get("/ok"))
        await client.reply()
        began = trio.current_time()
        await client.send(b"GET /o")
        assert (await client.reply()).status == 408
        assert 0.15 < trio.current_time() - began < 0.5


async def test_a_partial_request_behind_a_pipelined_one_is_cut() -> None:
    """What was read ahead of a running response counts as the start of the next request."""
    watch = Watch()
    async with (
        serving(watch=watch, header_timeout=0.2, idle_timeout=5) as server,
        await server.connect() as client,
    ):
        await client.send(get("/waits") + b"GET /o")
        await wait_set(watch.phase("waits").entered)
        watch.release.set()
        assert (await client.reply()).status == 200
        assert (await client.reply()).status == 408


async def test_a_connection_without_a_byte_is_closed_at_the_header_timeout() -> None:
    """Nothing was asked, so nothing is answered."""
    async with serving(header_timeout=0.15) as server, await server.connect() as client:
        assert await client.rest() == b""


@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
async def test_a_dripped_body_is_cut_at_the_body_timeout(framing: str) -> None:
    """The limit is on the whole body, so a trickle does not help: 408 as JSON, then closed."""
    app = make_app(Watch(), body_timeout=0.2)
    async with serving(app) as server:
        answer, took = await drip_until_closed(
            server, request_bytes("POST", "/echo", framing), b"3\r\nabc\r\n" * 100
        )
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert took < 1.0


async def test_an_idle_connection_is_closed_after_the_idle_timeout() -> None:
    """quart-trio's own cancellation kills hypercorn's timer; ours runs for views and for turns."""
    async with serving(idle_timeout=0.2) as server:
        for path in ("/ok", "/nope"):
            async with await server.connect() as client:
                for _ in range(2):
                    await client.send(get(path))
                    await client.reply()
                began = trio.current_time()
                assert await client.rest() == b""
                assert 0.15 < trio.current_time() - began < 0.5


async def test_a_silent_response_is_not_idle() -> None:
    """Header and idle limits end with the request's head: a stream may be silent for ever."""
    watch = Watch()
    limits = {"idle_timeout": 0.05, "header_timeout": 0.05, "write_timeout": 0.05}
    async with serving(watch=watch, **limits) as server, await server.connect() as client:
        await client.send(get("/until_released"))
        await client.until(b"first")
        await trio.sleep(0.2)
        watch.release.set()
        await client.until(b"last")


async def test_quarts_response_timeout_is_off() -> None:
    """Quart would cut a response off in the middle; a turn runs as long as it runs, a view's stream too."""
    watch = Watch()
    app = make_app(watch)
    assert app.config["RESPONSE_TIMEOUT"] is None
    app.config["RESPONSE_TIMEOUT"] = 0.05  # even if someone sets it: only quart-trio's own frame reads it
    async with serving(app, watch=watch) as server, await server.connect() as client:
        await client.send(get("/until_released"))
        await client.until(b"first")
        await trio.sleep(0.2)
        watch.release.set()
        await client.until(b"last")


async def test_a_reader_that_stops_is_cut_off_and_costs_little() -> None:
    """Backpressure reaches the turn, which then ends at the write timeout, cancelled."""
    watch = Watch()
    async with serving(watch=watch, write_timeout=0.3) as server, await server.connect() as client:
        await client.send(get("/flood"))
        phase = watch.phase("flood")
        await wait_set(phase.sent)
        took = await wait_set(phase.over)
        assert phase.cancelled
        assert 0.25 < took < 1.0
        assert watch.bytes_sent < 16_000_000  # what the two kernel buffers hold
        await server.check_alive()
        with pytest.raises((trio.BrokenResourceError, AssertionError)):
            await client.until(b"\r\n0\r\n\r\n")


async def test_a_slow_reader_that_keeps_reading_is_served() -> None:
    """A large answer may take longer than the write timeout, as long as each piece is taken in time."""
    payload = b"y" * 12_000_000

    async def app(scope: Any, receive: Any, send: Any) -> None:
        length = (b"content-length", b"%d" % len(payload))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": payload, "more_body": False})

    async with serving(app, write_timeout=0.15) as server, await server.connect() as client:
        await client.send(get("/"))
        await client.until(b"\r\n\r\n")
        received = len(client.buffer)
        began = trio.current_time()
        while received < len(payload):
            if trio.current_time() - began < 0.4:
                await trio.sleep(0.03)
            received += len(await client.stream.receive_some(500_000))
        assert received == len(payload)


async def test_an_unread_body_waits_in_the_socket() -> None:
    """A view that has not asked for its body holds a bounded part of it, and gets all of it when it asks."""
    seen: list[int] = []
    go = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        total = 0
        while True:
            message = await receive()
            seen.append(len(message["body"]))
            total += seen[-1]
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d" % total, "more_body": False})

    async with serving(app) as server, await server.connect() as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, post("/", b"x" * 8_000_000))
            await trio.sleep(0.05)
            go.set()
        assert (await client.reply()).body == b"8000000"
    assert max(seen) < 500_000


async def test_continue_is_sent_when_the_body_is_wanted_only() -> None:
    """`Expect: 100-continue` is answered at the view's first read, or by the refusal itself."""
    async with serving() as server:
        async with await server.connect() as client:
            await client.send(request_bytes("POST", "/echo", "Content-Length: 3", "Expect: 100-continue"))
            await client.until(b"HTTP/1.1 100 \r\n\r\n")
            await client.send(b"abc")
            assert (await client.reply()).json == {"length": 3}
        for path, length, status in (("/unread", 10, 401), ("/echo", 10_000_000, 413)):
            head = request_bytes("POST", path, f"Content-Length: {length}", "Expect: 100-continue")
            assert (await server.ask(head)).status == status


async def test_over_the_connection_limit_the_answer_is_503_at_once() -> None:
    """With every connection busy a new client is told so; when one ends there is room again."""
    watch = Watch()
    async with serving(watch=watch, max_connections=2) as server:
        async with await server.connect() as one, await server.connect() as two:
            for client in (one, two):
                await client.send(get("/silent"))
                await client.until(b"first")
            reply = await server.ask(get("/ok"))
            assert reply.status == 503
            assert reply.headers["retry-after"] == "1"
            assert reply.json["error"]["code"] == "too_many_connections"
        await wait_set(watch.phase("silent").over)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await server.check_alive()


async def test_idle_connections_make_room() -> None:
    """Clients that only hold connections open do not keep others out; busy ones are not touched."""
    async with serving(max_connections=3) as server, await server.connect() as busy:
        await busy.send(get("/silent"))
        await busy.until(b"first")
        idle = []
        for _ in range(5):
            idle.append(await server.connect())
            await idle[-1].send(get("/ok"))
            assert (await idle[-1].reply()).status == 200
        await server.check_alive()
        assert await idle[0].rest() == b""
        for client in idle:
            await client.finish()


async def test_accept_errors_neither_end_nor_spin_the_loop(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Out of file descriptors: said once, tried again after a pause, served whenever it is over."""
    accept = trio.SocketListener.accept
    failures = 0

    async def failing(listener: trio.SocketListener) -> trio.SocketStream:
        nonlocal failures
        if failures < 3:
            failures += 1
            await trio.lowlevel.checkpoint()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return await accept(listener)

    monkeypatch.setattr(trio.SocketListener, "accept", failing)
    async with serving() as server:
        began = time.perf_counter()
        await server.check_alive()
        assert failures == 3
        assert 0.2 < time.perf_counter() - began < 1.5
        idle = [await server.connect() for _ in range(3)]  # to be closed for those that come
        for client in idle:
            await client.send(get("/ok"))
            assert (await client.reply()).status == 200
        failures = 0
        await server.check_alive()
        await server.check_alive()
        assert failures == 3
        for client in idle:
            await client.finish()
    assert [record.getMessage() for record in caplog.records].count(
        "cannot accept connections (Too many open files): trying on"
    ) == 1


async def test_a_port_in_use_is_named() -> None:
    """The error says which port on which host, and what to do; port 0 finds a free one on all addresses."""
    listeners = await open_listeners("localhost", 0)
    ports = {listener.socket.getsockname()[1] for listener in listeners}
    try:
        (port,) = ports
        with pytest.raises(ListenError, match=f"port {port} on localhost is already in use: ") as caught:
            await open_listeners("localhost", port)
        assert caught.value.port == port
    finally:
        for listener in listeners:
            await listener.aclose()


@pytest.mark.parametrize(
    ("host", "message"),
    [("192.0.2.1", "not an address of this machine"), ("no.such.host.invalid", "not a known host name")],
)
async def test_a_host_that_is_not_ours_is_explained(host: str, message: str) -> None:
    """Wrong addresses and names are told apart."""
    with pytest.raises(ListenError, match=message):
        await open_listeners(host, 0)


@pytest.mark.parametrize("owner", list(guard._LEANED_ON))
def test_a_private_name_that_vanishes_is_an_import_error(owner: type) -> None:
    """Another hypercorn fails at start and says what it lacks, for each class we lean on."""
    with pytest.raises(ImportError, match=f"{owner.__name__}.vanished_name"):
        check_leaned_on({owner: guard._LEANED_ON[owner] | {"vanished_name"}})
    check_leaned_on()


@pytest.mark.parametrize(
    "raw",
    [
        get("/ok", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
        get("/ok", "Connection: Upgrade", "Upgrade: h2c"),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_http2_is_never_spoken(raw: bytes) -> None:
    """Neither the upgrade nor prior knowledge gets a 101 or an HTTP/2 frame."""
    async with serving() as server, await server.connect() as client:
        await client.send(raw)
        assert (await client.reply()).status in {200, 505}
        assert client.buffer == b""
