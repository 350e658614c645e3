"""A small application behind a real server, and clients that speak raw bytes to it."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import trio
from quart import abort, request

from trio_agent.server.asgi import ASGISend, Socket, SocketResponse, TurnApp, TurnResponse
from trio_agent.server.listen import HttpLimits, open_listeners, serve_asgi
from trio_agent.server.replies import Headers

SMALL_BODY = 100_000


def render_error(status: int, code: str, message: str, request_path: str) -> tuple[bytes, Headers]:
    body = {"error": {"status": status, "code": code, "message": message, "path": request_path}}
    return json.dumps(body).encode(), [(b"content-type", b"application/json")]


@dataclass
class Phase:
    """What a request went through: set as it happens, so that tests wait for facts."""

    entered: trio.Event = field(default_factory=trio.Event)
    sent: trio.Event = field(default_factory=trio.Event)
    over: trio.Event = field(default_factory=trio.Event)
    cancelled: bool = False


class Watch:
    """The phases of requests by path, and what tests hold back or release."""

    def __init__(self) -> None:
        self.phases: dict[str, Phase] = {}
        self.release = trio.Event()
        self.bytes_sent = 0

    def phase(self, name: str) -> Phase:
        return self.phases.setdefault(name, Phase())

    @asynccontextmanager
    async def follow(self, name: str) -> AsyncIterator[Phase]:
        phase = self.phase(name)
        phase.entered.set()
        try:
            yield phase
        except trio.Cancelled:
            phase.cancelled = True
            raise
        finally:
            phase.over.set()


async def start(send: ASGISend, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def chunk(send: ASGISend, data: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


def make_app(watch: Watch, *, max_request_bytes: int = SMALL_BODY, body_timeout: float = 5.0) -> TurnApp:
    """Views for every phase in which a client can leave."""
    app = TurnApp(
        "harness", max_request_bytes=max_request_bytes, body_timeout=body_timeout, render_error=render_error
    )

    @app.get("/ok")
    async def ok() -> dict[str, bool]:
        return {"ok": True}

    @app.post("/echo")
    async def echo() -> dict[str, int]:
        async with watch.follow("echo"):
            return {"length": len(await request.get_data(cache=False))}

    @app.post("/unread")
    async def unread() -> tuple[dict[str, str], int]:
        return {"error": "no key"}, 401

    @app.get("/fails")
    async def fails() -> None:
        raise ValueError("the secret of the view")

    @app.get("/waits")
    async def waits() -> dict[str, bool]:
        async with watch.follow("waits"):
            await watch.release.wait()
            return {"ok": True}

    def turn(name: str, run: Callable[[ASGISend, Phase], Any]) -> None:
        async def view() -> TurnResponse:
            async def followed(send: ASGISend) -> None:
                async with watch.follow(name) as phase:
                    await run(send, phase)

            return TurnResponse(followed)

        app.add_url_rule(f"/{name}", endpoint=name, view_func=view, methods=["GET", "POST"])

    async def preflight(send: ASGISend, phase: Phase) -> None:
        await trio.sleep_forever()

    async def silent(send: ASGISend, phase: Phase) -> None:
        await start(send)
        await chunk(send, b"first")
        phase.sent.set()
        await trio.sleep_forever()

    async def until_released(send: ASGISend, phase: Phase) -> None:
        await start(send)
        await chunk(send, b"first")
        phase.sent.set()
        await watch.release.wait()
        await chunk(send, b"last")
        await chunk(send, b"", more=False)

    async def flood(send: ASGISend, phase: Phase) -> None:
        await start(send)
        while True:
            await chunk(send, b"x" * 65_536)
            watch.bytes_sent += 65_536
            phase.sent.set()

    async def fails_before(send: ASGISend, phase: Phase) -> None:
        raise ValueError("the secret of the turn")

    async def fails_after(send: ASGISend, phase: Phase) -> None:
        await start(send)
        await chunk(send, b"first")
        raise ValueError("the secret of the turn")

    async def nothing(send: ASGISend, phase: Phase) -> None:
        pass

    for name, run in {
        "preflight": preflight,
        "silent": silent,
        "until_released": until_released,
        "flood": flood,
        "fails_before": fails_before,
        "fails_after": fails_after,
        "nothing": nothing,
    }.items():
        turn(name, run)

    async def echo_messages(socket: Socket) -> None:
        async with watch.follow("ws") as phase:
            while True:
                message = await socket.receive()
                if message == "wait":
                    phase.sent.set()
                    await watch.release.wait()
                elif message == "flood":
                    while True:
                        await socket.send("x" * 65_536)
                        phase.sent.set()
                elif message == "leave":
                    return
                elif message == "fail":
                    raise ValueError("the secret of the socket")
                elif isinstance(message, bytes):
                    await socket.close(1003, "text, please")
                await socket.send(str(message))

    @app.websocket("/ws")
    async def ws() -> SocketResponse:
        return SocketResponse(echo_messages)

    @app.websocket("/ws/refused")
    async def ws_refused() -> SocketResponse:
        abort(403)

    @app.websocket("/ws/fails")
    async def ws_fails() -> SocketResponse:
        raise ValueError("the secret of the view")

    return app


@dataclass
class Running:
    """A server under test."""

    port: int
    watch: Watch
    shutdown: trio.Event
    ended: trio.Event
    scope: trio.CancelScope
    calls: list[str]

    async def connect(self) -> Client:
        return Client(await trio.open_tcp_stream("127.0.0.1", self.port))

    async def ask(self, raw: bytes) -> Reply:
        """One connection, one request, one answer."""
        async with await self.connect() as client:
            await client.send(raw)
            return await client.reply()

    async def check_alive(self) -> None:
        """The server answers an ordinary request."""
        with trio.fail_after(2):
            assert (await self.ask(get("/ok"))).status == 200


@asynccontextmanager
async def serving(
    app: Any = None,
    *,
    watch: Watch | None = None,
    grace: float = 0.3,
    delay: float = 0.0,
    on_grace_over: Callable[[], Any] | None = None,
    render: Any = render_error,
    **limits: Any,
) -> AsyncIterator[Running]:
    """Run a server in this nursery; on leaving it is cancelled, and must be gone at once."""
    watch = watch or Watch()
    calls: list[str] = []
    ended, shutdown = trio.Event(), trio.Event()
    (listener,) = await open_listeners("127.0.0.1", 0)
    port = listener.socket.getsockname()[1]

    async def serve(task_status: trio.TaskStatus[Any]) -> None:
        with scope:
            await serve_asgi(
                app or make_app(watch),
                [listener],
                limits=lambda: HttpLimits(**limits),
                shutdown=shutdown,
                grace=lambda: grace,
                delay=lambda: delay,
                on_grace_over=on_grace_over or (lambda: calls.append("grace over")),
                on_draining=lambda: calls.append("draining"),
                render_error=render,
                task_status=task_status,
            )
        ended.set()

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        try:
            yield Running(port, watch, shutdown, ended, scope, calls)
        finally:
            scope.cancel()
            with trio.CancelScope(shield=True), trio.fail_after(1):
                await ended.wait()


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A client that does exactly what it is told."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.buffer = b""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stream.socket.close()

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def reset(self) -> None:
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.socket.close()

    async def finish(self) -> None:
        self.stream.socket.close()

    async def half_close(self) -> None:
        await self.stream.send_eof()

    async def more(self) -> bool:
        data = await self.stream.receive_some(65_536)
        self.buffer += data
        return bool(data)

    async def until(self, wanted: bytes) -> bytes:
        """Everything up to and including `wanted`, which must come."""
        with trio.fail_after(3):
            while wanted not in self.buffer:
                assert await self.more(), self.buffer
        head, _, self.buffer = self.buffer.partition(wanted)
        return head + wanted

    async def reply(self) -> Reply:
        """One response: by length, by chunks, or up to the end of the connection."""
        head = await self.until(b"\r\n\r\n")
        status_line, *lines = head.decode().strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            while size := int((await self.until(b"\r\n")).strip(), 16):
                body += await self.exactly(size)
                await self.exactly(2)
            await self.exactly(2)
        else:
            body = await self.exactly(int(headers.get("content-length", "0")))
        return Reply(int(status_line.split(" ")[1]), headers, body)

    async def exactly(self, size: int) -> bytes:
        with trio.fail_after(3):
            while len(self.buffer) < size:
                assert await self.more(), self.buffer
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    async def rest(self) -> bytes:
        """Everything up to the end of the connection; a reset counts as its end."""
        with trio.fail_after(4):
            try:
                while await self.more():
                    pass
            except trio.BrokenResourceError:
                pass
        data, self.buffer = self.buffer, b""
        return data


def get(path: str, *headers: str) -> bytes:
    return request_bytes("GET", path, *headers)


def post(path: str, body: bytes, *headers: str) -> bytes:
    return request_bytes("POST", path, f"Content-Length: {len(body)}", *headers) + body


def request_bytes(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode("latin1")


async def wait_set(event: trio.Event, seconds: float = 2.0) -> float:
    """Wait for a fact; returns how long that took."""
    began = trio.current_time()
    with trio.fail_after(seconds):
        await event.wait()
    return trio.current_time() - began


__all__ = ["Client", "Reply", "Running", "Watch", "get", "make_app", "partial", "post", "serving", "wait_set"]
