"""Whatever a client sends, it harms neither the server nor another client."""

from __future__ import annotations

from random import Random

import pytest
import trio
from http_harness import Watch, get, make_app, post, request_bytes, serving, wait_set

UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c")
CHUNKED = "Transfer-Encoding: chunked"


def echo(*headers: str) -> bytes:
    """The head of a request whose body will be read."""
    return request_bytes("POST", "/echo", *headers)


# name: (bytes, the statuses that may answer; None: closed without an answer)
HOSTILE: dict[str, tuple[bytes, set[int | None]]] = {
    "http2_prior_knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), {505, 400}),
    "http2_version": (b"GET /ok HTTP/2.0\r\nHost: a\r\n\r\n", {505}),
    "version_0_9": (b"GET /ok\r\n\r\n", {400}),
    "version_nonsense": (b"GET /ok HTTP/x.y\r\n\r\n", {400}),
    "connect_authority": (b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n", {501}),
    "connect_without_path": (b"CONNECT  HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    "connect_non_ascii": (b"CONNECT \xff\xfe:1 HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    "path_non_ascii": (b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    "method_non_ascii": (b"G\xffT / HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    "method_unknown": (request_bytes("BREW", "/ok"), {405}),
    "no_path": (b"GET ?q=1 HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    "asterisk_get": (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    "asterisk_options": (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", {404}),
    "absolute_form": (b"GET http://localhost/ok HTTP/1.1\r\nHost: localhost\r\n\r\n", {200}),
    "absolute_form_broken": (b"GET http://[::1 HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    "encoded_nul_in_path": (get("/ok%00%0d%0a"), {404}),
    "encoded_bad_utf8_in_path": (get("/%ff%fe"), {404}),
    "bad_utf8_in_query": (get("/ok?%ff=%fe&&&=%"), {200}),
    "path_traversal": (get("/../../etc/passwd"), {404}),
    "double_slash": (get("//ok"), {200}),
    "h2c_bad_base64": (get("/ok", *H2C, "HTTP2-Settings: !!!"), {200}),
    "h2c_valid": (get("/ok", *H2C, "HTTP2-Settings: AAMAAABk"), {200}),
    "unknown_upgrade": (get("/ok", "Connection: Upgrade", "Upgrade: gopher"), {200}),
    "websocket_then_stray_byte": (get("/ws", *UPGRADE) + b"x", {400}),
    "websocket_bad_handshake": (get("/ws", "Connection: Upgrade", "Upgrade: websocket"), {400}),
    "websocket_unknown_path": (get("/nope", *UPGRADE), {404}),
    "websocket_on_http_path": (get("/ok", *UPGRADE), {400, 404}),
    "websocket_as_post": (post("/ok", b"", *UPGRADE), {405}),
    "chunk_size_not_hex": (echo(CHUNKED) + b"zz\r\nabc\r\n", {400}),
    "chunk_size_negative": (echo(CHUNKED) + b"-1\r\nabc\r\n", {400}),
    "chunk_size_huge": (echo(CHUNKED) + b"f" * 40 + b"\r\n", {400}),
    "chunk_without_end": (echo(CHUNKED) + b"3\r\nabcdef\r\n", {400}),
    "chunk_size_line_endless": (echo(CHUNKED) + b"1;" + b"x" * 70_000, {400, 413, 431}),
    "content_length_negative": (echo("Content-Length: -1"), {400}),
    "content_length_text": (echo("Content-Length: ten"), {400}),
    "content_length_huge": (echo("Content-Length: " + "9" * 19), {413}),
    "content_length_digits": (echo("Content-Length: " + "9" * 5000), {400, 413}),
    "content_length_twice": (echo("Content-Length: 3", "Content-Length: 4") + b"abcd", {400}),
    "both_framings": (echo("Content-Length: 3", CHUNKED) + b"0\r\n\r\n", {400}),
    "unknown_coding": (echo("Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n", {501}),
    "chunked_http10": (b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
    "no_host": (b"GET /ok HTTP/1.1\r\n\r\n", {400}),
    "two_hosts": (get("/ok", "Host: other"), {400}),
    "host_garbage": (b"GET /ok HTTP/1.1\r\nHost: [:::\xff@@:99999999\r\n\r\n", {200, 400, 404}),
    "nul_in_header": (get("/ok", "X-A: a\0b"), {400}),
    "nul_bytes_only": (bytes(200), {400}),
    "header_without_colon": (get("/ok", "no colon here"), {400}),
    "header_name_space": (get("/ok", "X A: b"), {400}),
    "obsolete_folding": (get("/ok", "X-A: a", " b"), {200, 400}),
    "bare_cr": (b"GET /ok HTTP/1.1\rHost: a\r\r", {None, 400}),
    "header_too_large": (get("/ok", "X-A: " + "a" * 70_000), {431}),
    "header_too_large_open": (b"GET /ok HTTP/1.1\r\nX-A: " + b"a" * 140_000, {431}),
    "headers_too_many": (get("/ok", *[f"X-{n}: {n}" for n in range(9_000)]), {431}),
    "path_too_long": (get("/" + "a" * 70_000), {431}),
    "tls_hello": (bytes.fromhex("16030100f8010000f40303") + bytes(200), {400}),
    "early_401_body_coming": (request_bytes("POST", "/unread", "Content-Length: 90000") + b"x" * 1000, {401}),
    "early_413_body_coming": (echo("Content-Length: 900000000") + b"x" * 300_000, {413}),
    "early_404_chunks_coming": (request_bytes("POST", "/nope", CHUNKED) + b"5\r\nabcde\r\n", {404}),
    "late_413_chunks": (echo(CHUNKED) + (b"4000\r\n" + b"x" * 16384 + b"\r\n") * 10, {413}),
    "many_tiny_chunks": (echo(CHUNKED) + b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n", {200}),
    "get_with_body": (request_bytes("GET", "/ok", "Content-Length: 4") + b"body", {200}),
    "head_malformed_body": (request_bytes("HEAD", "/ok", CHUNKED) + b"zz\r\n", {200, 400}),
    "pipelined_then_garbage": (get("/ok") + b"\0\0\0\0", {200}),
    "body_after_whole_request": (post("/echo", b"abc") + b"extra bytes", {200}),
    "expect_unknown": (post("/echo", b"abc", "Expect: miracles"), {200, 417}),
    "nothing": (b"", {None}),
    "blank_lines": (b"\r\n" * 40, {None, 400}),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_bytes_harm_nobody(name: str) -> None:
    """After each of these a running stream goes on, a new request is served, and the answer is JSON."""
    raw, expected = HOSTILE[name]
    watch = Watch()
    async with serving(watch=watch) as server, await server.connect() as bystander:
        await bystander.send(get("/until_released"))
        await bystander.until(b"first")
        async with await server.connect() as client:
            await client.send(raw)
            if expected == {None}:
                status = None
            elif None in expected:
                with trio.move_on_after(0.05):
                    await client.more()
                status = int(client.buffer[9:12]) if client.buffer else None
            elif raw.startswith(b"HEAD"):
                head = await client.until(b"\r\n\r\n")
                status = int(head[9:12])
            else:
                reply = await client.reply()
                status = reply.status
                assert reply.headers["x-content-type-options"] == "nosniff"
                assert "server" not in reply.headers
                if status >= 400 and raw.find(b"/unread") < 0:
                    assert reply.json["error"]["status"] == status
            assert status in expected
        await server.check_alive()
        watch.release.set()
        await bystander.until(b"last")


@pytest.mark.parametrize("end", ["finish", "reset", "half_close"])
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"GET /o",
        b"GET /ok HTTP/1.1\r\nHost: a\r\nX-",
        request_bytes("POST", "/echo", "Content-Length: 50") + b"only this",
        request_bytes("POST", "/echo", CHUNKED) + b"ff\r\nabc",
        get("/ok"),
        get("/ok") * 30,
        get("/flood"),
        get("/silent") + get("/ok"),
        get("/ws", *UPGRADE),
    ],
)
async def test_a_client_that_leaves_in_any_phase_leaves_nothing_behind(raw: bytes, end: str) -> None:
    """FIN, RST and half-close at each point of a request: whatever ran is over, the server serves on."""
    watch = Watch()
    async with serving(watch=watch) as server, await server.connect() as client:
        await client.send(raw)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.02):
            await client.more()
        await getattr(client, end)()
        await server.check_alive()
        for phase in watch.phases.values():
            await wait_set(phase.over)


async def test_an_early_answer_reaches_a_client_that_is_still_sending() -> None:
    """The connection is not torn down under a client that pushes its whole body before it reads."""
    async with serving() as server, await server.connect() as client:
        await client.send(request_bytes("POST", "/echo", "Content-Length: 20000000"))
        for _ in range(100):
            await client.send(b"x" * 200_000)
        reply = await client.reply()
        assert reply.status == 413
        assert reply.json["error"]["code"] == "body_too_large"
        assert await client.rest() == b""


@pytest.mark.parametrize("path", ["/unread", "/nope", "/ok"])
async def test_an_answer_before_the_body_came_says_that_the_connection_ends(path: str) -> None:
    """A refusal that reads no body says `Connection: close`, so that nothing more is sent into it."""
    async with serving() as server, await server.connect() as client:
        await client.send(request_bytes("POST", path, "Content-Length: 5"))
        assert (await client.reply()).headers["connection"] == "close"
        await client.send(b"12345")
        assert await client.rest() == b""


@pytest.mark.parametrize("path", ["/unread", "/nope", "/ok", "/echo"])
async def test_an_answer_that_does_not_say_so_ends_no_connection(path: str) -> None:
    """Whether or not the body was read in time: the next request is served, or was announced not to be."""
    async with serving() as server, await server.connect() as client:
        for _ in range(20):
            await client.send(post(path, b"12345"))
            if (await client.reply()).headers.get("connection") == "close":
                assert await client.rest() == b""
                return


async def test_pipelined_requests_are_answered_in_order() -> None:
    """Ten requests in one write give ten answers, then the connection is still good."""
    async with serving() as server, await server.connect() as client:
        await client.send(b"".join(post("/echo", b"x" * n) for n in range(10)))
        assert [(await client.reply()).json["length"] for _ in range(10)] == list(range(10))
        await client.send(get("/ok"))
        assert (await client.reply()).status == 200


async def test_failures_are_logged_without_what_the_client_sent(caplog: pytest.LogCaptureFixture) -> None:
    """One line with type and place; no body, header, exception message or line break of the client's."""
    async with serving() as server:
        for path in ("/fails", "/fails_before"):
            reply = await server.ask(get(path, "Authorization: Bearer topsecret"))
            assert reply.status == 500
            assert b"secret" not in reply.body
        async with await server.connect() as client:
            await client.send(get("/fails_after"))
            assert not (await client.rest()).endswith(b"0\r\n\r\n")
    lines = [record.getMessage() for record in caplog.records if record.levelname in {"WARNING", "ERROR"}]
    assert len(lines) == 3
    assert all("ValueError at " in line and "secret" not in line and "\n" not in line for line in lines)


async def test_an_application_that_breaks_the_protocol_hurts_its_own_request_only() -> None:
    """More body than announced, or a header with a line break, ends that connection and no other."""

    async def app(scope: object, receive: object, send: object) -> None:
        assert isinstance(scope, dict)
        value = b"a\r\nb" if scope["path"] == "/header" else b"3"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", value)]})
        body = b"abc" if scope["path"] == "/ok" else b"more than three"
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async with serving(app) as server:
        for path in ("/header", "/body"):
            async with await server.connect() as client:
                await client.send(get(path))
                assert b"more than three" not in await client.rest()
            await server.check_alive()


def mutated(random: Random) -> bytes:
    """A request with a few bytes changed, lost, added or repeated."""
    seeds = [raw for raw, _ in HOSTILE.values() if 0 < len(raw) < 1000]
    data = bytearray(random.choice(seeds))
    for _ in range(random.randint(1, 5)):
        at = random.randrange(len(data) + 1)
        kind = random.randrange(4)
        if kind == 0:
            data[at : at + 1] = random.randbytes(1)
        elif kind == 1:
            del data[at : at + random.randrange(10)]
        elif kind == 2:
            data[at:at] = random.choice(seeds)[: random.randrange(60)]
        else:
            data[at:at] = random.choice([b"\r\n", b"\0", b"\n", b": ", b"HTTP/1.1", b"chunked", b"-1"])
    return bytes(data)


@pytest.mark.parametrize("seed", range(3))
async def test_mutated_requests_harm_nobody(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """Eighty requests at a time, cut in two, some reset: nothing unforeseen is logged, all tasks end."""
    random = Random(seed)
    async with serving(header_timeout=0.2, idle_timeout=0.2) as server:
        before = trio.lowlevel.current_statistics().tasks_living

        async def attack(raw: bytes, cut: int) -> None:
            async with await server.connect() as client:
                try:
                    await client.send(raw[:cut])
                    await trio.lowlevel.checkpoint()
                    await client.send(raw[cut:])
                    with trio.move_on_after(0.05):
                        await client.more()
                except trio.BrokenResourceError:
                    pass
                if cut % 2:
                    await client.reset()

        async with trio.open_nursery() as nursery:
            for _ in range(80):
                raw = mutated(random)
                nursery.start_soon(attack, raw, random.randrange(len(raw) + 1))
        await server.check_alive()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert trio.lowlevel.current_statistics().tasks_living == before
    assert [
        record.getMessage() for record in caplog.records if record.levelname in {"WARNING", "ERROR"}
    ] == []


def test_the_table_is_as_long_as_it_says() -> None:
    """At least sixty ways to be malformed are tried."""
    assert len(HOSTILE) >= 60
    assert make_app(Watch()).config["RESPONSE_TIMEOUT"] is None
