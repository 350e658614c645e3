"""WebSockets on a real connection: RFC 6455, limits, time, and the end in every way it can come."""

from __future__ import annotations

from contextlib import suppress
from random import Random

import pytest
import trio
import trio.testing
from http_harness import Client, Watch, get, make_app, request_bytes, serving, wait_set
from websocket_harness import (
    BINARY,
    CLOSE,
    KEY,
    MORE,
    PING,
    PONG,
    TEXT,
    UPGRADE,
    WebSocketClient,
    frame,
    websocket,
)
from wsproto.events import CloseConnection, Ping, Pong

WITHOUT_KEY = UPGRADE[:-1]

# name: (head of the request, status)
HANDSHAKES: dict[str, tuple[bytes, int]] = {
    "good": (get("/ws", *UPGRADE), 101),
    "tokens_in_lists": (get("/ws", "Connection: a, Upgrade", "Upgrade: WebSocket", *UPGRADE[2:]), 101),
    "no_key": (get("/ws", *WITHOUT_KEY), 400),
    "short_key": (get("/ws", *WITHOUT_KEY, "Sec-WebSocket-Key: YWJj"), 400),
    "key_not_base64": (get("/ws", *WITHOUT_KEY, "Sec-WebSocket-Key: !" + "x" * 23), 400),
    "two_keys": (get("/ws", *UPGRADE, KEY), 400),
    "old_version": (get("/ws", *UPGRADE[:2], "Sec-WebSocket-Version: 8", KEY), 400),
    "no_version": (get("/ws", *UPGRADE[:2], KEY), 400),
    "body_announced": (get("/ws", *UPGRADE, "Content-Length: 5"), 400),
    "chunked_body": (get("/ws", *UPGRADE, "Transfer-Encoding: chunked"), 400),
    "early_frame": (get("/ws", *UPGRADE) + frame(TEXT, b"early"), 400),
    "http_1_0": (b"GET /ws HTTP/1.0\r\nHost: a\r\n" + "\r\n".join([*UPGRADE, "", ""]).encode(), 400),
    "post": (request_bytes("POST", "/ws", "Content-Length: 0", *UPGRADE), 404),
    "unknown_path": (get("/nope", *UPGRADE), 404),
    "refused_by_the_view": (get("/ws/refused", *UPGRADE), 403),
    "failing_view": (get("/ws/fails", *UPGRADE), 500),
    "compression_offered": (get("/ws", *UPGRADE, "Sec-WebSocket-Extensions: permessage-deflate"), 101),
}  # fmt: skip

NO_UPGRADE = {"http_1_0", "post"}
"""Ordinary requests, on a path that has a WebSocket only."""


@pytest.mark.parametrize("name", HANDSHAKES)
async def test_handshakes(name: str) -> None:
    """A handshake that RFC 6455 does not allow is an HTTP error as any other, and the connection ends."""
    head, status = HANDSHAKES[name]
    async with serving() as server, await server.connect() as client:
        await client.send(head)
        if status == 101:
            answer = await client.until(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 101 ")
            assert b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer
            assert b"extensions" not in answer.lower()
            return
        reply = await client.reply()
        assert reply.status == status
        assert reply.json["error"]["status"] == status
        if name in NO_UPGRADE:
            assert "sec-websocket-version" not in reply.headers
        else:
            assert (status == 400) == (reply.headers.get("sec-websocket-version") == "13")
            assert await client.rest() == b""
        await server.check_alive()


BAD_TEXT = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xbc\xce\xb5\xed\xa0\x80"

# name: (frames, the code that ends it)
HOSTILE: dict[str, tuple[bytes, int]] = {
    "unmasked": (frame(TEXT, b"hello", mask=False), 1002),
    "unmasked_ping": (frame(PING, mask=False), 1002),
    "reserved_bit": (frame(TEXT, b"hello", bits=0x40), 1002),
    "reserved_opcode": (frame(3, b"hello"), 1002),
    "reserved_control_opcode": (frame(11), 1002),
    "ping_in_parts": (frame(PING, fin=False), 1002),
    "ping_too_long": (frame(PING, b"x" * 126), 1002),
    "continuation_of_nothing": (frame(MORE, b"hello"), 1002),
    "text_within_text": (frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), 1002),
    "close_of_one_byte": (frame(CLOSE, b"x"), 1002),
    "close_with_reserved_code": (frame(CLOSE, (1005).to_bytes(2, "big")), 1002),
    "close_with_code_0": (frame(CLOSE, bytes(2)), 1002),
    "close_reason_not_utf8": (frame(CLOSE, (1000).to_bytes(2, "big") + b"\xff"), 1007),
    "length_not_minimal": (bytes([0x81, 0xFE, 0, 5]) + bytes(4) + b"hello", 1002),
    "length_of_2_63": (bytes([0x81, 0xFF, 0x80]) + bytes(11), 1002),
    "bad_utf8": (frame(TEXT, BAD_TEXT), 1007),
    "bad_utf8_in_parts": (frame(TEXT, b"\xce", fin=False) + frame(MORE, b"\x28"), 1007),
    "utf8_cut_off": (frame(TEXT, b"abc\xce"), 1007),
    "too_long": (frame(TEXT, b"x" * 1001), 1009),
    "too_long_in_parts": (frame(TEXT, b"x" * 501, fin=False) + frame(MORE, b"x" * 500, fin=False), 1009),
    "too_long_counted_in_bytes": (frame(TEXT, "ä".encode() * 501), 1009),
    "announced_too_long": (bytes([0x81, 0xFF]) + (1 << 40).to_bytes(8, "big") + bytes(4) + b"x" * 1100, 1009),
    "http_instead": (get("/ok"), 1002),
    "nul_bytes": (bytes(100), 1002),
    "client_says_goodbye": (frame(CLOSE, (1000).to_bytes(2, "big") + b"bye"), 1000),
    "client_says_goodbye_in_its_own_words": (frame(CLOSE, (4321).to_bytes(2, "big")), 4321),
    "client_says_goodbye_without_a_code": (frame(CLOSE), 1005),
    "goodbye_then_more": (frame(CLOSE, (1000).to_bytes(2, "big")) + frame(TEXT, b"hello"), 1000),
    "binary_refused_by_the_view": (frame(BINARY, b"\0\1"), 1003),
    "view_leaves": (frame(TEXT, b"leave"), 1000),
    "view_fails": (frame(TEXT, b"fail"), 1011),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
async def test_each_end_has_its_code(name: str) -> None:
    """The close frame says why, the connection ends, the view is over, and the server serves on."""
    raw, code = HOSTILE[name]
    watch = Watch()
    async with serving(watch=watch, max_message_bytes=1000) as server, websocket(server) as socket:
        await socket.client.send(raw)
        said, reason = await socket.farewell()
        assert said == code
        assert "secret" not in reason
        await wait_set(watch.phase("ws").over)
        await server.check_alive()


async def test_messages_of_every_length_come_back_as_they_were() -> None:
    """The three spellings of a length, text beyond ASCII, nothing at all; in one part and in many."""
    lengths = [0, 1, 125, 126, 65_535, 65_536, 200_000]
    async with serving() as server, websocket(server) as socket:
        for text in ["x" * length for length in lengths] + ["κόσμε 🦉\u2028"]:
            raw = text.encode()
            await socket.client.send(frame(TEXT, raw))
            assert await socket.hear() == text
            pieces = [raw[at : at + 7000] for at in range(0, len(raw), 7000)]
            await socket.client.send(frame(TEXT, fin=False))
            for piece in pieces:
                await socket.client.send(frame(MORE, piece, fin=False) + frame(PING, b"between parts"))
            await socket.client.send(frame(MORE))
            event = await socket.receive()
            while isinstance(event, Pong):
                event = await socket.receive()
            rest = "" if event.message_finished else await socket.hear()  # type: ignore[attr-defined]
            assert event.data + rest == text  # type: ignore[attr-defined]


async def test_bytes_may_be_cut_anywhere() -> None:
    """One byte a write, and many messages in one."""
    async with serving() as server, websocket(server) as socket:
        for byte in frame(TEXT, "zäh".encode()):
            await socket.client.send(bytes([byte]))
        assert await socket.hear() == "zäh"
        await socket.client.send(b"".join(frame(TEXT, b"%d" % number) for number in range(500)))
        assert [await socket.hear() for _ in range(500)] == [str(number) for number in range(500)]


async def test_a_ping_is_answered_while_the_application_is_busy() -> None:
    """And a flood of pings by a single pong for each read: RFC 6455, 5.5.3 asks for no more."""
    watch = Watch()
    async with serving(watch=watch) as server, websocket(server) as socket:
        await socket.say("wait")
        await wait_set(watch.phase("ws").sent)
        await socket.send(Ping(b"there?"))
        event = await socket.receive()
        assert isinstance(event, Pong)
        assert event.payload == b"there?"
        await socket.client.send(frame(PING, b"x") * 2000 + frame(PING, b"last"))
        pongs = 0
        while event.payload != b"last":
            event = await socket.receive()
            assert isinstance(event, Pong)
            pongs += 1
        assert pongs < 200
        watch.release.set()
        assert await socket.hear() == "wait"


async def test_ten_thousand_empty_parts_do_not_hold_up_others() -> None:
    """Another connection is served between them."""
    async with serving() as server, websocket(server) as socket, await server.connect() as other:
        parts = frame(TEXT, b"a", fin=False) + frame(MORE, fin=False) * 50_000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(socket.client.send, parts)
            for _ in range(5):
                await other.send(get("/ok"))
                assert (await other.reply()).status == 200
        await socket.client.send(frame(MORE, b"z"))
        assert await socket.hear() == "az"


async def test_a_client_that_sends_ahead_waits() -> None:
    """Messages stay in the socket while the application is behind; none is lost."""
    watch = Watch()
    async with serving(watch=watch) as server, websocket(server) as socket, trio.open_nursery() as nursery:
        await socket.say("wait")
        await wait_set(watch.phase("ws").sent)
        sent = 0

        async def send_ahead() -> None:
            nonlocal sent
            for number in range(3000):
                await socket.say(f"{number} " + "x" * 5000)
                sent += 1

        nursery.start_soon(send_ahead)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert sent < 3000
        watch.release.set()
        assert await socket.hear() == "wait"
        for number in range(3000):
            assert (await socket.hear()).startswith(f"{number} ")


@pytest.mark.parametrize("how", ["finish", "reset", "half_close", "close_frame"])
@pytest.mark.parametrize("doing", ["waits_for_a_message", "wait", "flood", "behind_a_message"])
async def test_a_client_that_leaves_cancels_at_once(doing: str, how: str) -> None:
    """FIN, RST, half-close or a close frame: what runs for it has been cancelled within 50 ms."""
    took = []
    while not took or (took[-1] >= 0.05 and len(took) < 3):  # a busy machine may need another try
        watch = Watch()
        async with serving(watch=watch) as server, websocket(server) as socket:
            phase = watch.phase("ws")
            await wait_set(phase.entered)
            if doing != "waits_for_a_message":
                await socket.say("flood" if doing == "flood" else "wait")
                await wait_set(phase.sent)
            if doing == "behind_a_message":
                await socket.say("never asked for")
            if how == "close_frame":
                await socket.client.send(frame(CLOSE))
            else:
                await getattr(socket.client, how)()
            took.append(await wait_set(phase.over))
            assert phase.cancelled
            await server.check_alive()
    # A frame that is on its way is written whole, so that a close frame can follow it; for up to a second.
    assert min(took) < (1.5 if (doing, how) == ("flood", "close_frame") else 0.05)


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    """After the write timeout the connection is reset and the view cancelled."""
    watch = Watch()
    async with serving(watch=watch, write_timeout=0.2) as server, websocket(server) as socket:
        await socket.say("flood")
        assert await wait_set(watch.phase("ws").over, 3) > 0.1
        assert watch.phase("ws").cancelled


async def test_an_idle_websocket_is_closed_and_a_busy_one_is_not() -> None:
    """Idle is one whose application waits for a message: pings and pongs from the client do not count."""
    watch = Watch()
    async with (
        serving(watch=watch, websocket_idle_timeout=0.15) as server,
        websocket(server) as busy,
        websocket(server) as idle,
    ):
        await busy.say("wait")
        await idle.client.send(frame(PONG) + frame(PONG, b"again"))
        code, reason = await idle.farewell()
        assert (code, reason) == (1001, "no message for 0.15 s")
        watch.release.set()
        assert await busy.hear() == "wait"
        began = trio.current_time()
        assert (await busy.farewell())[0] == 1001
        assert trio.current_time() - began > 0.1


async def test_an_http_idle_timeout_does_not_end_a_websocket() -> None:
    """Nor does the time limit on headers: both belong to what comes before the upgrade."""
    async with serving(idle_timeout=0.05, header_timeout=0.05) as server, websocket(server) as socket:
        await trio.sleep(0.15)
        await socket.say("still here")
        assert await socket.hear() == "still here"


async def test_a_message_that_does_not_end_is_given_up() -> None:
    """Later parts buy no more time; control frames between them do not either."""
    async with serving(message_timeout=0.15) as server, websocket(server) as socket:
        await socket.client.send(frame(TEXT, b"first", fin=False))
        with trio.move_on_after(3):
            while not socket.client.buffer:
                await socket.client.send(frame(MORE, b"x", fin=False) + frame(PONG))
                with trio.move_on_after(0.02):
                    await socket.client.more()
        assert (await socket.farewell())[0] == 1008


async def test_pings_keep_it_alive_and_need_no_answer() -> None:
    """A client that works in the thread that reads cannot answer, and is not cut off for it."""
    async with serving(websocket_ping_interval=0.03) as server, websocket(server) as socket:
        for _ in range(4):
            assert isinstance(await socket.receive(), Ping)
        await socket.say("here")
        event = await socket.receive()
        while isinstance(event, Ping):
            event = await socket.receive()
        assert event.data == "here"  # type: ignore[attr-defined]


async def test_messages_of_all_connections_have_one_bound() -> None:
    """Unfinished and waiting messages count; what is over is let go of, and the bytes are free again."""
    watch = Watch()
    async with serving(watch=watch, max_held_message_bytes=10_000) as server:
        async with websocket(server) as one, websocket(server) as two:
            await one.client.send(frame(TEXT, b"x" * 6000, fin=False))
            await two.say("wait")
            await wait_set(watch.phase("ws").sent)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await two.client.send(frame(TEXT, b"y" * 6000, fin=False))
            assert (await two.farewell())[0] == 1013
            await one.client.send(frame(MORE, b"x" * 3000))
            assert await one.hear() == "x" * 9000
        async with websocket(server) as three:
            await three.say("z" * 9999)
            assert await three.hear() == "z" * 9999


async def test_shutdown_closes_what_is_idle_and_lets_the_rest_finish() -> None:
    """1001 at once if it waits; after its turn if it works, and its next message is not begun."""
    watch = Watch()
    async with serving(watch=watch, grace=30) as server, websocket(server) as idle, websocket(server) as busy:
        await busy.say("wait")
        await wait_set(watch.phase("ws").sent)
        await busy.say("too late")
        await idle.client.send(frame(TEXT, b"half a mess", fin=False))
        await trio.testing.wait_all_tasks_blocked(0.01)
        server.shutdown.set()
        assert await idle.farewell() == (1001, "the server is shutting down")
        watch.release.set()
        assert await busy.hear() == "wait"
        assert await busy.farewell() == (1001, "the server is shutting down")
        await wait_set(server.ended)
        assert server.calls == ["draining"]


async def test_shutdown_ends_one_that_never_ends() -> None:
    """After the grace period and the last words it is cancelled and reset, read or unread."""
    watch = Watch()
    async with (
        serving(watch=watch, grace=0.05) as server,
        websocket(server) as waiting,
        websocket(server) as flooded,
    ):
        await waiting.say("wait")
        await flooded.say("flood")
        await wait_set(watch.phase("ws").sent)
        await trio.testing.wait_all_tasks_blocked(0.02)
        server.shutdown.set()
        await wait_set(server.ended, 3)
        assert server.calls == ["draining", "grace over"]


async def test_a_full_server_closes_plain_connections_before_websockets() -> None:
    """A WebSocket between two messages is the last that makes room, and is told so; a busy one never does."""
    watch = Watch()
    async with (
        serving(watch=watch, max_connections=3) as server,
        websocket(server) as idle,
        websocket(server) as busy,
    ):
        await busy.say("wait")
        await wait_set(watch.phase("ws").sent)
        async with await server.connect() as plain, await server.connect() as next_one:
            assert await plain.rest() == b""
            await next_one.send(get("/waits"))
            await wait_set(watch.phase("waits").entered)
            async with await server.connect() as last:
                assert (await idle.farewell())[0] == 1013
                await last.send(get("/waits"))
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert (await server.ask(get("/ok"))).status == 503
            watch.release.set()
            assert await busy.hear() == "wait"


async def test_another_asgi_server_serves_the_same() -> None:
    """Where the server does not cancel on its own, quart-trio's task that reads does."""
    watch = Watch()
    to_app, from_server = trio.open_memory_channel[dict[str, object]](10)
    to_client, from_app = trio.open_memory_channel[dict[str, object]](10)
    scope = {"type": "websocket", "path": "/ws", "headers": [], "query_string": b"", "scheme": "ws"}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(make_app(watch), scope, from_server.receive, to_client.send)
        await to_app.send({"type": "websocket.connect"})
        assert (await from_app.receive())["type"] == "websocket.accept"
        await to_app.send({"type": "websocket.receive", "text": "hello", "bytes": None})
        assert (await from_app.receive())["text"] == "hello"
        await to_app.send({"type": "websocket.receive", "text": "wait", "bytes": None})
        await wait_set(watch.phase("ws").sent)
        await to_app.send({"type": "websocket.disconnect", "code": 1006})
        await wait_set(watch.phase("ws").over)
        assert watch.phase("ws").cancelled


async def test_many_at_once_leave_nothing_behind() -> None:
    """Two hundred open, talk and leave in different ways; then as many tasks live as before."""
    async with serving() as server:
        before = trio.lowlevel.current_statistics().tasks_living

        async def visit(number: int) -> None:
            async with websocket(server) as socket:
                await socket.say(str(number))
                assert await socket.hear() == str(number)
                if number % 3 == 0:
                    await socket.send(CloseConnection(code=1000))
                    await socket.farewell()
                elif number % 3 == 1:
                    await socket.client.reset()

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(visit, number)
        await server.check_alive()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert trio.lowlevel.current_statistics().tasks_living == before


def mutated(random: Random) -> bytes:
    """Frames with a few bytes changed, lost, added or repeated."""
    seeds = [raw for raw, _ in HOSTILE.values() if len(raw) < 600]
    data = bytearray(b"".join(random.choice(seeds) for _ in range(random.randint(1, 4))))
    for _ in range(random.randint(0, 5)):
        at = random.randrange(len(data) + 1)
        if random.random() < 0.5:
            data[at : at + 1] = random.randbytes(1)
        elif random.random() < 0.5:
            del data[at : at + random.randrange(10)]
        else:
            data[at:at] = random.choice(seeds)[: random.randrange(60)]
    return bytes(data)


@pytest.mark.parametrize("seed", range(3))
async def test_mutated_frames_harm_nobody(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """Eighty connections at a time, cut in two, some reset: nothing unforeseen is logged, all tasks end."""
    random = Random(seed)
    limits = {"max_message_bytes": 1000, "message_timeout": 0.2, "websocket_idle_timeout": 0.2}
    async with serving(header_timeout=0.2, idle_timeout=0.2, **limits) as server:
        before = trio.lowlevel.current_statistics().tasks_living

        async def attack(raw: bytes, cut: int) -> None:
            # The server's time limits are short: on a busy machine they may end the handshake already.
            with suppress(trio.BrokenResourceError):
                async with websocket(server) as socket:
                    client = socket.client
                    with suppress(trio.BrokenResourceError):
                        await client.send(raw[:cut])
                        await trio.lowlevel.checkpoint()
                        await client.send(raw[cut:])
                        with trio.move_on_after(0.05):
                            await client.more()
                    if cut % 2:
                        await client.reset()

        async with trio.open_nursery() as nursery:
            for _ in range(80):
                raw = mutated(random)
                nursery.start_soon(attack, raw, random.randrange(len(raw) + 1))
        await server.check_alive()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert trio.lowlevel.current_statistics().tasks_living == before
    told = [record.getMessage() for record in caplog.records if record.levelname in {"WARNING", "ERROR"}]
    assert [line for line in told if "ValueError at http_harness.py" not in line] == []  # the view that fails


def test_the_client_of_these_tests_frames_as_wsproto_does() -> None:
    """The hand-made frames are the ones that the library makes, but for the mask."""
    socket = WebSocketClient(Client.__new__(Client))
    for size in (0, 125, 126, 65_535, 65_536):
        made, ours = socket.connection.send(Ping(b"")), frame(PING)
        assert (made[0], made[1]) == (ours[0], ours[1])
        assert len(frame(TEXT, b"x" * size)) == size + (6 if size < 126 else 8 if size < 65_536 else 14)
