"""A client that leaves cancels what runs for it, at once, in every phase."""

from __future__ import annotations

import logging
import os
from typing import Any

import pytest
import trio
import trio.testing
from http_harness import Client, Phase, Watch, get, make_app, post, request_bytes, serving, wait_set
from quart_trio import QuartTrio

from trio_agent.server.connection import Connection
from trio_agent.server.guard import WorkerContext, protocol_config
from trio_agent.server.limits import HttpLimits
from trio_agent.server.replies import plain_error
from trio_agent.server.websocket_call import MessageRoom

IMMEDIATELY = 0.05
UPGRADE = ("Connection: Upgrade", "Upgrade: websocket")

# name: (path the phase is watched under, bytes, what the client waits for before it leaves)
PHASES: dict[str, tuple[str, bytes, bytes]] = {
    "view_waits": ("waits", get("/waits"), b""),
    "view_reads_body_by_length": ("echo", request_bytes("POST", "/echo", "Content-Length: 50") + b"abc", b""),
    "view_reads_body_in_chunks": ("echo", request_bytes("POST", "/echo", "Transfer-Encoding: chunked"), b""),
    "turn_before_its_start": ("preflight", get("/preflight"), b""),
    "turn_before_its_start_with_body": ("preflight", post("/preflight", b"abc"), b""),
    "turn_silent_in_mid_stream": ("silent", get("/silent"), b"first"),
    "turn_writing": ("flood", get("/flood"), b"xxxx"),
    "behind_a_pipelined_request": ("silent", get("/silent") + get("/ok"), b"first"),
    "behind_an_unread_body": ("silent", post("/silent", b"x" * 200_000), b"first"),
    "websocket": (
        "ws",
        get("/ws", *UPGRADE, "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        b"\r\n\r\n",
    ),
}  # fmt: skip


async def leave(client: Client, how: str) -> None:
    await {"fin": client.finish, "rst": client.reset, "half_close": client.half_close}[how]()


@pytest.mark.parametrize("how", ["fin", "rst", "half_close"])
@pytest.mark.parametrize("name", PHASES)
async def test_leaving_cancels_at_once(name: str, how: str) -> None:
    """Within 50 ms of the FIN or RST the frame that served the request has been cancelled and is left."""
    path, raw, wanted = PHASES[name]
    took = []
    while not took or (took[-1] >= IMMEDIATELY and len(took) < 3):  # a busy machine may need another try
        watch = Watch()
        app = make_app(watch, max_request_bytes=1_000_000)
        async with serving(app, watch=watch) as server, await server.connect() as client:
            phase = watch.phase(path)
            await client.send(raw)
            await wait_set(phase.entered)
            if wanted:
                await client.until(wanted)
            await leave(client, how)
            took.append(await wait_set(phase.over))
            assert phase.cancelled
    assert min(took) < IMMEDIATELY


async def test_clean_up_after_the_last_byte_is_not_cancelled() -> None:
    """When the response is whole the client's leaving means nothing: what the turn does last, it finishes."""
    finished = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal finished
        headers = [(b"content-length", b"2")] if scope["path"] == "/length" else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok", "more_body": False})
        await trio.sleep(0.001)
        finished += 1

    async with serving(app) as server:
        for path in ("/length", "/chunks"):
            for _ in range(50):  # the client may be gone before the last write has returned
                async with await server.connect() as client:
                    await client.send(get(path))
                    assert (await client.reply()).body == b"ok"
        server.shutdown.set()
        await wait_set(server.ended)
    assert finished == 100


async def test_a_cancelled_turn_does_not_garble_what_follows() -> None:
    """A scope inside the turn that ends in the middle of a write lets it finish: the framing holds."""
    piece = b"z" * 3_000_000

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with trio.move_on_after(0.05):
            while True:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"terminal", "more_body": False})

    async with serving(app) as server, await server.connect() as client:
        await client.send(get("/"))
        await trio.sleep(0.15)
        body = (await client.reply()).body
        assert body.endswith(b"terminal")
        assert set(body.removesuffix(b"terminal")) == {ord("z")}
        assert (len(body) - 8) % len(piece) == 0


async def test_a_stock_quart_trio_application_is_served_and_cancelled_too() -> None:
    """Nothing of the server depends on our own application class: keep-alive, idle limit, disconnect."""
    app = QuartTrio("stock", static_folder=None)
    phase = Phase()

    @app.get("/ok")
    async def ok() -> str:
        return "fine"

    @app.get("/waits")
    async def waits() -> str:
        phase.entered.set()
        try:
            await trio.sleep_forever()
        finally:
            phase.over.set()

    async with serving(app, idle_timeout=0.15) as server:
        async with await server.connect() as client:
            for _ in range(2):
                await client.send(get("/ok"))
                assert (await client.reply()).body == b"fine"
            assert await client.rest() == b""
        async with await server.connect() as client:
            await client.send(get("/waits"))
            await wait_set(phase.entered)
        assert await wait_set(phase.over) < IMMEDIATELY


@pytest.mark.slow
async def test_many_streams_leave_no_task_behind() -> None:
    """Two hundred open streams, closed at once: all cancelled, and the run has as many tasks as before."""
    watch = Watch()
    entered = 0
    left = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal entered
        entered += 1
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
            await trio.sleep_forever()
        finally:
            entered -= 1
            if not entered:
                left.set()

    async with serving(app, watch=watch) as server:
        before = trio.lowlevel.current_statistics().tasks_living
        clients = [await server.connect() for _ in range(200)]
        for client in clients:
            await client.send(get("/"))
            await client.until(b"first")
        during = trio.lowlevel.current_statistics().tasks_living
        assert during - before == 400  # one that reads and one that answers, each
        for client in clients:
            await client.finish()
        await wait_set(left)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert trio.lowlevel.current_statistics().tasks_living == before


async def test_a_socket_that_is_closed_here_reads_as_ended() -> None:
    """A connection that was aborted, before a read or during it, reads from no other descriptor."""
    watch = Watch()
    async with serving(make_app(watch), watch=watch) as server, await server.connect() as client:
        sock = client.stream.socket
        config = protocol_config(max_header_bytes=1000, log=logging.getLogger("test"))
        context = WorkerContext(None)
        limits, room = HttpLimits(), MessageRoom(1000)
        connection = Connection(client.stream, make_app(watch), config, context, limits, room, plain_error)
        number = sock.fileno()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection._receive)
            await trio.testing.wait_all_tasks_blocked()
            connection.abort()
        reader, writer = os.pipe()
        try:
            if reader != number:
                os.dup2(reader, number)
            os.write(writer, b"not ours")
            assert await connection._receive() == b""
        finally:
            for each in {reader, writer, number}:
                os.close(each)
