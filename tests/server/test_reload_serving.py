"""A reload of an agent that is being served: connections, addresses, WebSockets, and the server's end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from support.scripted import HANG, text
from support.workshop import Workshop, open_workshop

from trio_agent.config.problems import ConfigError
from trio_agent.server.app import create_app, serve, serve_on
from trio_agent.testing import Client
from trio_agent.testing.http import _scope

OLD, NEW = "0f1e2d3c4b5a69788796a5b4c3d2e1f0", "8f0e1d2c3b4a59687786f5e4d3c2b1a0"


class Running:
    """A server on a free port."""

    def __init__(self, shop: Workshop, port: int, shutdown: trio.Event) -> None:
        self.shop = shop
        self.port = port
        self.shutdown = shutdown
        self.ended = trio.Event()
        self.streams: list[trio.SocketStream] = []

    async def connect(self) -> trio.SocketStream:
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        self.streams.append(stream)
        return stream


async def to_the_end(stream: trio.SocketStream) -> bytes:
    """All that the server sends until it closes the connection."""
    with trio.fail_after(10):
        return b"".join([data async for data in stream])


async def status(stream: trio.SocketStream, path: str = "/health", head: str = "") -> int:
    """The status of a GET on a connection that stays open."""
    await stream.send_all(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n{head}\r\n".encode())
    with trio.fail_after(10):
        return int((await stream.receive_some(65536)).split()[1])


@asynccontextmanager
async def running(config: dict[str, Any] | None = None, **how: Any) -> AsyncIterator[Running]:
    async with open_workshop(config, **how) as shop, trio.open_nursery() as nursery:
        shutdown = trio.Event()
        server: Running

        async def serve_it(*, task_status: Any) -> None:
            try:
                await serve(shop.agent, port=0, shutdown=shutdown, task_status=task_status)
            finally:
                server.ended.set()

        [(_, port)] = await nursery.start(serve_it)
        server = Running(shop, port, shutdown)
        yield server
        for stream in server.streams:
            stream.socket.close()
        nursery.cancel_scope.cancel()


async def late_head(server: Running) -> Any:
    stream = await server.connect()
    await stream.send_all(b"GET / HT")
    return (await to_the_end(stream))[:12]


async def idle(server: Running) -> Any:
    stream = await server.connect()
    assert await status(stream) == 200
    return await to_the_end(stream)


async def long_head(server: Running) -> Any:
    stream = await server.connect()
    await stream.send_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: %b\r\n\r\n" % (b"x" * 400))
    return (await to_the_end(stream))[:12]


async def too_many(server: Running) -> Any:
    busy = [await server.connect() for _ in range(2)]
    for stream in busy:
        await stream.send_all(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{"
        )
    stream = await server.connect()
    return (await to_the_end(stream))[:12]


@pytest.mark.parametrize(
    ("limits", "visit", "found"),
    [
        ({"header_timeout": 0.1}, late_head, b"HTTP/1.1 408"),
        ({"idle_timeout": 0.1}, idle, b""),
        ({"max_header_bytes": 300}, long_head, b"HTTP/1.1 431"),
        ({"max_connections": 2}, too_many, b"HTTP/1.1 503"),
    ],
)
async def test_connections_that_come_have_the_new_limits(
    limits: dict[str, Any], visit: Any, found: bytes
) -> None:
    """One that was open before keeps its own, and is not harmed."""
    async with running() as server:
        before = await server.connect()
        assert await status(before) == 200
        await server.shop.reload({"server": limits})
        assert await status(before, head=f"x: {'x' * 400}\r\n") == 200
        if "max_connections" in limits:
            await before.aclose()
            await trio.sleep(0.05)
        assert await visit(server) == found


async def test_the_end_goes_by_the_newest_times() -> None:
    """A turn that would have had a minute is ended at once, since the file says so by now."""
    async with running({"server": {"shutdown_grace": 60}}, script=[text("Hel"), HANG]) as server:
        await server.shop.reload({"server": {"shutdown_grace": 0}})
        stream = await server.connect()
        body = json.dumps({"model": "lab-1", "stream": True, "messages": [{"role": "user", "content": "Hi"}]})
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
        await stream.send_all((head + body).encode())
        assert b"Hel" in await stream.receive_some(65536) + await stream.receive_some(65536)
        server.shutdown.set()
        assert b"server_shutdown" in await to_the_end(stream)
        with trio.fail_after(5):
            await server.ended.wait()


@pytest.mark.parametrize(
    ("given", "config", "codes"),
    [
        (None, {"api_key": OLD}, []),
        (None, {"api_key": NEW}, []),
        (None, {}, ["config_insecure_binding"]),
        (None, {"api_key": "changeme"}, ["config_weak_key"]),
        (None, {"api_key": "${UNSET}"}, ["config_missing_variable"]),
        (OLD, {}, []),
        (OLD, {"api_key": "changeme"}, []),
    ],
)
async def test_a_key_that_does_not_fit_the_address_is_refused(
    given: str | None, config: dict[str, Any], codes: list[str]
) -> None:
    """As at the start; a key that was given when the server was started stays, whatever the file says."""
    started_with = {"server": {"api_key": OLD}}
    async with open_workshop(started_with) as shop, trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="0.0.0.0")
        shutdown = trio.Event()
        await nursery.start(partial(serve_on, shop.agent, listeners, api_key=given, shutdown=shutdown))
        found: list[str] = []
        try:
            await shop.reload({"server": config})
        except ConfigError as error:
            found = [each.code for each in error.problems]
        assert found == codes
        assert (shop.agent.config.server.api_key == OLD) is (bool(codes) or config.get("api_key") == OLD)
        shutdown.set()


async def test_who_does_not_serve_needs_no_key(autojump_clock: trio.abc.Clock) -> None:
    """Once the server has ended, its address forbids nothing any more."""
    async with open_workshop({"server": {"api_key": OLD}}) as shop:
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="0.0.0.0")
            await nursery.start(partial(serve_on, shop.agent, listeners, api_key=None, shutdown=trio.Event()))
            nursery.cancel_scope.cancel()
        await shop.reload()


async def test_a_body_counts_until_it_is_let_go_of(autojump_clock: trio.abc.Clock) -> None:
    """Bodies that came under the old one leave no room under the new one while they are held."""
    async with open_workshop() as shop:
        visitor = Client(shop.agent, create_app(shop.agent))
        arrived = trio.Event()

        async def receive() -> dict[str, Any]:
            if not arrived.is_set():
                arrived.set()
                return {"type": "http.request", "body": b"x" * 900, "more_body": True}
            await trio.sleep(10)
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            pass

        scope = _scope("POST", "/v1/chat/completions", {"host": "127.0.0.1"})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visitor.app, scope, receive, send)
            await arrived.wait()
            await shop.reload({"server": {"max_request_bytes": 1000, "max_body_bytes_in_flight": 1000}})
            assert (await visitor.say("x" * 200, model="lab-1")).status == 503
        assert (await visitor.say("x" * 200, model="lab-1")).status == 200
