"""The memory that request bodies take: bounded while they arrive, and given back when they are decoded."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from support.chat_app import chat_app
from support.serving import Served, script, serving, until

from trio_agent.errors import AgentError
from trio_agent.server.bodies import BodyBudget

MIB = 1 << 20


def padded(size: int, text: str = "Hello") -> bytes:
    """A good request of so many bytes, nearly all of them white space."""
    request = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": text}]}
    return json.dumps(request).encode().ljust(size)


@contextmanager
def sending(server: Served, body: bytes, announced: int | None = None) -> Iterator[socket.socket]:
    """A request whose body has been sent so far; `announced` is its whole length."""
    length = len(body) if announced is None else announced
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n"
            f"authorization: Bearer {server.key}\r\nconnection: close\r\n\r\n".encode()
        )
        connection.sendall(body)
        yield connection


def head_of(connection: socket.socket) -> str:
    received = b""
    while b"\r\n\r\n" not in received:
        data = connection.recv(65536)
        assert data, received
        received += data
    return received.decode()


def test_slow_bodies_share_a_bounded_room(tmp_path: Path) -> None:
    """Who comes when the room is full is told to come again; those that are in it go on to their answers."""
    config = {
        "providers": {"replay": {}},
        "server": {"max_request_bytes": 2 * MIB, "max_body_bytes_in_flight": 4 * MIB},
    }
    body = padded(MIB + 1000)
    with serving(tmp_path, config) as server, ExitStack() as stack:
        slow = [stack.enter_context(sending(server, body[:-1], len(body))) for _ in range(3)]
        until(lambda: _refused(server, body))
        for _ in range(20):
            assert _refused(server, body)
        # Announced only: refused before it comes. The small fit in beside the slow ones.
        with sending(server, b"", 2 * MIB) as late:
            assert head_of(late).startswith("HTTP/1.1 503 ")
        assert server.say().status_code == 200
        for connection in slow:
            connection.sendall(body[-1:])
            assert head_of(connection).startswith("HTTP/1.1 200 ")
        until(lambda: not _refused(server, body))
        # Who leaves in the middle gives its bytes back.
        for _ in range(3):
            with ExitStack() as leaving:
                for _ in range(3):
                    leaving.enter_context(sending(server, body[:-1], len(body)))
                until(lambda: _refused(server, body))
            until(lambda: not _refused(server, body))


def _refused(server: Served, body: bytes) -> bool:
    with sending(server, body) as connection:
        head = head_of(connection)
        if head.startswith("HTTP/1.1 200 "):
            return False
        while data := connection.recv(65536):
            head += data.decode()
    assert head.startswith("HTTP/1.1 503 "), head
    assert "retry-after: 1" in head.lower()
    assert '"code":"server_busy"' in head
    return True


def test_a_running_turn_does_not_hold_its_body(tmp_path: Path) -> None:
    """Twelve streams whose requests were 8 MiB each leave the process as large as it was."""
    body = padded(8 * MIB, script({"text": "a"}, {"stall": True}))
    with serving(tmp_path, {"providers": {"replay": {}}}) as server, ExitStack() as stack:
        head_of(stack.enter_context(sending(server, body)))
        before = server.resident_bytes()
        for _ in range(12):
            head_of(stack.enter_context(sending(server, body)))
        assert server.health()["active_turns"] == 13
        assert server.resident_bytes() - before < 48 * MIB


async def _pieces(*pieces: bytes, pause: float = 0.0, then: Any = None) -> AsyncIterator[bytes]:
    for piece in pieces:
        await trio.sleep(pause)
        yield piece
    if then is not None:
        raise then


@pytest.mark.parametrize(
    ("pieces", "announced", "pause", "code"),
    [
        ([b"12345"] * 3, None, 0, "body_too_large"),
        ([b"1234"] * 3, None, 3, "request_timeout"),
        ([b"1"], 8, 0, "server_busy"),
        ([b"1234"] * 2, None, 0, "server_busy"),
    ],
)
async def test_a_body_that_is_refused_leaves_nothing(
    pieces: list[bytes], announced: int | None, pause: float, code: str, autojump_clock: trio.abc.Clock
) -> None:
    """Too large, too slow, no room for it: the error names it, and the room is as it was."""
    budget = BodyBudget(20, most_each=12, timeout=5)
    other = await budget.read(_pieces(b"x" * 12, b""), None) if code == "server_busy" else None
    extra = await budget.read(_pieces(b"y"), 1) if other else None
    held = budget.held
    with pytest.raises(AgentError) as caught:
        await budget.read(_pieces(*pieces, pause=pause), announced)
    assert (caught.value.code, budget.held) == (code, held)
    for body in (other, extra):
        if body is not None:
            with body.opened() as data:
                assert len(data) in (1, 12)
            body.close()
    assert budget.held == 0


async def test_a_reader_that_is_cancelled_leaves_nothing(autojump_clock: trio.abc.Clock) -> None:
    """A client that goes away in the middle is a cancellation."""
    budget = BodyBudget(20, most_each=20, timeout=100)
    with trio.move_on_after(5):
        await budget.read(_pieces(b"1234", b"1234", pause=3), 8)
    assert budget.held == 0
    with pytest.raises(ConnectionError):
        await budget.read(_pieces(b"1234", then=ConnectionError()), 8)
    assert budget.held == 0


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/conversations",
    ],
)
@pytest.mark.parametrize("coding", ["gzip", "br", "GZIP, identity"])
async def test_a_compressed_body_is_refused_by_its_header(path: str, coding: str) -> None:
    """It is not taken for text in a wrong encoding."""
    async with chat_app() as app:
        answer = await app.ask(gzip.compress(b"{}"), {"content-encoding": coding}, path=path)
        assert (answer.status, answer.error["param"]) == (400, "Content-Encoding")
        assert coding.lower() in answer.error["message"]
        again = await app.ask(b"{", {"content-encoding": "identity"}, path=path)
        assert (again.status, again.error["param"]) == (400, None)
