"""How answers are framed on the wire: as h11 would, whoever asks and whatever is answered."""

from __future__ import annotations

from typing import Any

import h11
import pytest
from http_harness import Client, chunk, get, request_bytes, serving, start

LENGTH = (b"content-length", b"9")
CODED = (b"transfer-encoding", b"chunked")
PARTS = [b"one", b"", b"two", b"x" * 100_000, b"end"]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers by path: which headers, which status, which parts."""
    if scope["type"] != "http":
        return
    path = scope["path"]
    if path == "/parts":
        await start(send)
        for part in PARTS:
            await chunk(send, part)
        await chunk(send, b"", more=False)
    elif path == "/one":
        await start(send)
        await chunk(send, b"all at once", more=False)
    elif path == "/empty":
        await start(send)
        await chunk(send, b"", more=False)
    elif path == "/length":
        await start(send, 200, LENGTH)
        await chunk(send, b"one")
        await chunk(send, b"two")
        await chunk(send, b"end", more=False)
    elif path == "/coded":
        await start(send, 200, CODED)
        await chunk(send, b"onetwoend", more=False)
    elif path == "/both":
        await start(send, 200, CODED, LENGTH)
        await chunk(send, b"onetwoend", more=False)
    elif path in ("/204", "/304"):
        await start(send, int(path[1:]))
        await chunk(send, b"", more=False)
    elif path == "/304-with-body":
        await start(send, 304)
        await chunk(send, b"nobody reads this")
        await chunk(send, b"", more=False)
    elif path == "/too-long":
        await start(send, 200, LENGTH)
        await chunk(send, b"more than nine bytes", more=False)
    else:
        await start(send)
        await chunk(send, b"first")
        raise ValueError("in the middle")


ALL = b"".join(PARTS)
# path: what a client of HTTP/1.1 gets, and how it is framed
ANSWERS: dict[str, tuple[int, bytes, str]] = {
    "/parts": (200, ALL, "chunked"),
    "/one": (200, b"all at once", "chunked"),
    "/empty": (200, b"", "chunked"),
    "/length": (200, b"onetwoend", "length"),
    "/coded": (200, b"onetwoend", "chunked"),
    "/both": (200, b"onetwoend", "chunked"),
    "/204": (204, b"", "none"),
    "/304": (304, b"", "any"),
    "/304-with-body": (304, b"", "any"),
}


async def read_by_h11(client: Client, peer: h11.Connection, method: str) -> tuple[h11.Response, bytes]:
    """One response as a strict client reads it; `peer` goes on to the next one."""
    peer.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    peer.send(h11.EndOfMessage())
    body = b""
    response = None
    while True:
        event = peer.next_event()
        if event is h11.NEED_DATA:
            more = await client.more()
            data, client.buffer = client.buffer, b""
            peer.receive_data(data if more else b"")
        elif isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert response is not None
            return response, body


@pytest.mark.parametrize("path", ANSWERS)
async def test_an_answer_is_framed_as_it_must_be(path: str) -> None:
    """A strict client reads each answer whole, and twice on one connection: nothing is left over."""
    status, content, framing = ANSWERS[path]
    async with serving(app) as server, await server.connect() as client:
        peer = h11.Connection(h11.CLIENT)
        for _ in range(2):
            await client.send(get(path))
            response, body = await read_by_h11(client, peer, "GET")
            names = {bytes(name) for name, _ in response.headers}
            assert (response.status_code, body) == (status, content)
            if framing != "any":
                assert (b"transfer-encoding" in names) == (framing == "chunked")
                assert (b"content-length" in names) == (framing == "length")
            assert peer.trailing_data == (b"", False)
            peer.start_next_cycle()


@pytest.mark.parametrize("path", ["/parts", "/one", "/empty", "/length", "/204"])
async def test_head_is_answered_without_a_body(path: str) -> None:
    """HEAD gets the headers of GET and not a byte more; the next request is answered."""
    async with serving(app) as server, await server.connect() as client:
        peer = h11.Connection(h11.CLIENT)
        for method in ("HEAD", "GET", "HEAD"):
            await client.send(request_bytes(method, path))
            response, body = await read_by_h11(client, peer, method)
            assert response.status_code == ANSWERS[path][0]
            assert body == (b"" if method == "HEAD" else ANSWERS[path][1])
            assert peer.trailing_data == (b"", False)
            peer.start_next_cycle()


@pytest.mark.parametrize("path", ["/parts", "/one", "/coded"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_client_of_http_1_0_gets_no_chunks(path: str, version: str) -> None:
    """It would take them for content: its answer ends with the connection instead."""
    async with serving(app) as server, await server.connect() as client:
        await client.send(f"GET {path} HTTP/{version}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await client.rest()).partition(b"\r\n\r\n")
        content = ANSWERS[path][1]
        if version == "1.0":
            assert b"transfer-encoding" not in head.lower()
            assert body == content
        else:
            assert b"transfer-encoding: chunked" in head.lower()
            assert body.endswith(b"\r\n0\r\n\r\n")
            assert len(body) > len(content)


async def test_pipelined_requests_of_every_kind() -> None:
    """Chunks, lengths, HEAD and no body at all, asked for in one write, come in order and whole."""
    asked = [("GET", path) for path in ANSWERS] + [("HEAD", "/parts"), ("GET", "/one"), ("HEAD", "/length")]
    async with serving(app) as server, await server.connect() as client:
        await client.send(b"".join(request_bytes(method, path) for method, path in asked))
        peer = h11.Connection(h11.CLIENT)
        for method, path in asked:
            response, body = await read_by_h11(client, peer, method)
            status, content, _ = ANSWERS[path]
            assert (response.status_code, body) == (status, b"" if method == "HEAD" else content)
            peer.start_next_cycle()


async def test_an_answer_that_fails_has_no_end() -> None:
    """An application that fails in the middle, or says more than it announced, leaves no whole answer."""
    async with serving(app) as server:
        async with await server.connect() as client:
            await client.send(get("/fails"))
            said = await client.rest()
            assert b"5\r\nfirst\r\n" in said
            assert not said.endswith(b"0\r\n\r\n")
        async with await server.connect() as client:
            await client.send(get("/too-long"))
            assert b"more than nine bytes" not in await client.rest()


async def test_a_malformed_request_behind_a_good_one() -> None:
    """It does not disturb the answer to the first one, and gets its own."""
    async with serving(app) as server, await server.connect() as client:
        await client.send(get("/parts") + b"nonsense\r\n\r\n")
        peer = h11.Connection(h11.CLIENT)
        response, body = await read_by_h11(client, peer, "GET")
        assert (response.status_code, body) == (200, ALL)
        said = peer.trailing_data[0] + await client.rest()
        assert said.startswith(b"HTTP/1.1 400 ")
