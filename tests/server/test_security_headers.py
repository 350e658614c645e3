"""The headers that keep a browser from making more of an answer than it is: on every answer there is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from support.chat_app import chat_app
from support.serving import script

from trio_agent.server.app import serve_on
from trio_agent.server.listen import open_listeners
from trio_agent.server.replies import SECURITY_HEADERS

KEY = "a-key-for-these-tests"
BODY = b'{"model": "demo", "max_tokens": 20, "messages": [{"role": "user", "content": "Hello"}]}'
UPGRADE = {
    "connection": "upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


@asynccontextmanager
async def served(config: Mapping[str, Any] | None = None, key: str | None = KEY) -> AsyncIterator[int]:
    """A server on a socket; yields its port."""
    async with chat_app(config) as app, trio.open_nursery() as nursery:
        listeners = await open_listeners("127.0.0.1", 0)
        run = partial(serve_on, app.agent, listeners, api_key=key, shutdown=trio.Event())
        [(_, port)] = await nursery.start(run)
        yield port
        nursery.cancel_scope.cancel()


async def talk(port: int, data: bytes) -> bytes:
    """What comes back until the server closes, or has nothing more to say for a while."""
    answer = b""
    with trio.move_on_after(5):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(data)
            async for chunk in stream:
                answer += chunk
                head, found, body = answer.partition(b"\r\n\r\n")
                length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                if found and (b" 204 " in head or (length and len(body) >= int(length[0].split(b":")[1]))):
                    break
    return answer


def request(method: str, path: str, body: bytes = b"", /, **headers: str) -> bytes:
    given = {"host": "127.0.0.1", "authorization": f"Bearer {KEY}", "content-length": str(len(body))}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def check(answer: bytes) -> int:
    """Every answer has each of the headers once; returns its status."""
    head = answer.partition(b"\r\n\r\n")[0]
    names = [line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:]]
    for name, _ in SECURITY_HEADERS:
        assert names.count(name) == 1, (name, head)
    assert b"server" not in names
    return int(head.split()[1])


ROUTES = [
    ("GET", "/health", 200),
    ("GET", "/health/detailed", 200),
    ("GET", "/health/ready", 200),
    ("GET", "/health/live", 200),
    ("GET", "/metrics", 200),
    ("GET", "/v1/turns/none", 404),
    ("POST", "/v1/conversations", 200),
    ("POST", "/v1/conversations/none/items", 400),
    ("GET", "/v1/models", 200),
    ("GET", "/v1/models/demo", 200),
    ("GET", "/v1/models/none", 404),
    ("GET", "/v1/turns", 200),
    ("GET", "/v1/sessions/none", 404),
    ("GET", "/v1/responses/none", 404),
    ("DELETE", "/v1/responses/none", 404),
    ("POST", "/v1/responses/none/cancel", 404),
    ("GET", "/v1/conversations/none", 404),
    ("POST", "/v1/chat/completions", 400),
    ("POST", "/v1/responses", 400),
    ("POST", "/v1/responses/compact", 400),
    ("POST", "/v1/messages", 400),
    ("POST", "/v1/messages/count_tokens", 400),
    ("OPTIONS", "/v1/messages", 204),
    ("PUT", "/v1/messages", 405),
    ("GET", "/nowhere", 404),
]


async def test_on_every_route() -> None:
    """Whatever it answers."""
    async with served() as port:
        for method, path, status in ROUTES:
            assert check(await talk(port, request(method, path))) == status, path
        for path in ("/v1/chat/completions", "/v1/messages"):
            assert check(await talk(port, request("POST", path, BODY))) == 200
        streamed = BODY[:-1] + b', "stream": true}'
        answer = await talk(port, request("POST", "/v1/chat/completions", streamed, connection="close"))
        assert check(answer) == 200
        assert b"no-cache" in answer, "a stream says so itself"


REFUSALS: dict[str, tuple[int, bytes]] = {
    "no key": (401, request("GET", "/v1/models", authorization="")),
    "foreign origin": (403, request("GET", "/v1/models", origin="https://evil.example")),
    "no HTTP": (400, b"hello\r\n\r\n"),
    "another version": (505, b"GET / HTTP/2.0\r\n\r\n"),
    "CONNECT": (501, b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n"),
    "two framings": (400, request("POST", "/v1/messages", transfer_encoding="chunked")),
    "long head": (431, request("GET", "/health", x_long="x" * 70_000)),
    "long body": (413, request("POST", "/v1/messages", content_length="99999999999")),
    "compressed": (400, request("POST", "/v1/messages", BODY, content_encoding="gzip")),
    "bad handshake": (400, request("GET", "/v1/responses", **{**UPGRADE, "sec-websocket-version": "12"})),
    "WebSocket, no key": (401, request("GET", "/v1/responses", **UPGRADE, authorization="")),
    "WebSocket, foreign": (403, request("GET", "/v1/responses", **UPGRADE, origin="https://evil.example")),
    "WebSocket elsewhere": (404, request("GET", "/nowhere", **UPGRADE)),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_on_every_refusal(name: str) -> None:
    """Also where no route was reached."""
    status, data = REFUSALS[name]
    async with served() as port:
        assert check(await talk(port, data)) == status


async def test_on_what_has_no_connection_to_spare() -> None:
    """The refusal of a full server, and of a name that is not this machine's."""
    stall = json.dumps({"model": "demo", "messages": [{"role": "user", "content": script({"stall": True})}]})
    async with (
        served({"server": {"max_connections": 1}}) as port,
        await trio.open_tcp_stream("127.0.0.1", port) as first,
    ):
        await first.send_all(request("POST", "/v1/chat/completions", stall.encode()))
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert check(await talk(port, request("GET", "/health"))) == 503
    async with served(key=None) as port:
        assert check(await talk(port, request("GET", "/health", host="evil.example"))) == 403
