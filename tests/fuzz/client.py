"""Doing the steps of a case over real sockets, and telling what came back."""

from __future__ import annotations

import re
import socket
import struct
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field

import h11
import trio
from fuzz.steps import KEY, Case, Frame, Http, Leaving, Raw, WebSocket

READ_LIMIT_S = 20.0
"""The longest that any answer takes: the server is told to be quicker."""
RAW_LIMIT_S = 0.4
_IDS = re.compile(rb"\b(resp|conv|msg|turn|call)_[A-Za-z0-9]{1,64}")
_LAST_EVENTS = tuple(
    f'{{"type":"{name}"'.encode()
    for name in ("error", "response.completed", "response.failed", "response.incomplete")
)
_HANDSHAKE = {
    "connection": "upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


@dataclass
class Reply:
    """An answer. `whole` says whether it came to its own end; `late` that the client gave up waiting."""

    method: str
    path: str
    status: int
    headers: dict[str, str]
    body: bytes = b""
    whole: bool = False
    late: bool = False


@dataclass
class Played:
    """What came of a case's steps."""

    replies: list[Reply] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    """Text frames of WebSockets."""


async def play(case: Case, port: int) -> Played:
    """Do all the steps, one after the other."""
    played = Played()
    ids: dict[bytes, list[bytes]] = defaultdict(list)
    for step in case.steps:
        try:
            match step:
                case Http():
                    reply = await _request(step, port, ids)
                    if reply is not None:
                        played.replies.append(reply)
                        for found in _IDS.finditer(reply.body + repr(reply.headers).encode()):
                            ids[found[1]].append(found[0])
                case Raw():
                    played.replies += await _write(step.pieces, step.ending, port)
                case WebSocket():
                    await _converse(step, port, played)
        except OSError:
            pass  # the server may close a connection whose client misbehaves
        except trio.BrokenResourceError:
            pass
    return played


def _named(data: bytes, ids: dict[bytes, list[bytes]]) -> bytes:
    def name(found: re.Match[bytes]) -> bytes:
        known = ids.get(found[1])
        return known[-1] if known else found[1] + b"_unknown"

    return re.sub(rb"@(resp|conv|msg|turn|call)@", name, data)


async def _request(step: Http, port: int, ids: dict[bytes, list[bytes]]) -> Reply | None:
    path, body = _named(step.path.encode(), ids), _named(step.body, ids)
    headers = {"host": "127.0.0.1", "authorization": f"Bearer {KEY}", "content-type": "application/json"}
    headers |= dict(step.headers)
    if step.chunks is None:
        headers["content-length"] = str(len(body))
    else:
        headers["transfer-encoding"] = "chunked"
        cuts = range(0, min(len(body), step.chunks * 300), step.chunks)
        pieces = [body[at : at + step.chunks] for at in cuts] + [body[step.chunks * 300 :]]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n\r\n"
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    data = step.method.encode() + b" " + path + b" HTTP/1.1\r\n" + lines.encode("latin1") + b"\r\n" + body
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await _send(stream, data)
        if await _left(stream, step.ending):
            return None
        return await _read(stream, step.method, path.decode())


async def _send(stream: trio.SocketStream, data: bytes) -> None:
    with trio.move_on_after(READ_LIMIT_S):
        # Answered and closed before all was sent; the answer may still be there.
        with suppress(trio.BrokenResourceError):
            await stream.send_all(data)


async def _left(stream: trio.SocketStream, ending: Leaving) -> bool:
    """Do what the client does at the end; whether it is gone then."""
    match ending:
        case "half-closes":
            await stream.send_eof()
        case "resets":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return True
        case "leaves":
            return True
    return False


async def _read(stream: trio.SocketStream, method: str, path: str) -> Reply | None:
    known = method if method in ("HEAD", "CONNECT") else "GET"
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    parser.send(h11.Request(method=known, target="/", headers=[("host", "a")]))
    parser.send(h11.EndOfMessage())
    reply: Reply | None = None
    with trio.move_on_after(READ_LIMIT_S) as waiting:
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                try:
                    data = await stream.receive_some(65536)
                except trio.BrokenResourceError:
                    break
                if not data and reply is not None and not reply.whole:
                    break
                if not data and reply is None:
                    return None
                parser.receive_data(data)
            elif isinstance(event, h11.Response):
                names = {name.decode(): value.decode("latin1") for name, value in event.headers}
                reply = Reply(method, path, event.status_code, names)
            elif isinstance(event, h11.Data) and reply is not None:
                reply.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage) and reply is not None:
                reply.whole = True
                break
            elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                break
    if waiting.cancelled_caught:
        reply = reply or Reply(method, path, 0, {})
        reply.late = True
    return reply


async def _write(pieces: tuple[bytes, ...], ending: Leaving, port: int) -> list[Reply]:
    """Bytes may or may not be requests: what can be read of the answers is told."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        for piece in pieces:
            await _send(stream, piece)
            await trio.lowlevel.checkpoint()
        if await _left(stream, ending):
            return []
        answer = bytearray()
        with trio.move_on_after(RAW_LIMIT_S):
            try:
                async for data in stream:
                    answer += data
            except trio.BrokenResourceError:
                pass
    found = re.finditer(rb"HTTP/1\.1 (\d{3}) [^\r]*\r\n", bytes(answer))
    return [Reply("RAW", "", int(each[1]), {}) for each in found if each[1] != b"100"]


# --- WebSockets ---------------------------------------------------------------------------------------------


def as_bytes(frame: Frame) -> bytes:
    """A frame on the wire (RFC 6455, 5.2)."""
    length = len(frame.payload) if frame.length is None else frame.length
    first = (0x80 if frame.final else 0) | (frame.reserved << 4) | frame.opcode
    mask = 0x80 if frame.masked else 0
    if length < 126:
        head = struct.pack("!BB", first, mask | length)
    elif length < 65536:
        head = struct.pack("!BBH", first, mask | 126, length)
    else:
        head = struct.pack("!BBQ", first, mask | 127, length)
    return head + (b"\0\0\0\0" if frame.masked else b"") + frame.payload


async def _converse(step: WebSocket, port: int, played: Played) -> None:
    headers = {"host": "127.0.0.1", "authorization": f"Bearer {KEY}", **_HANDSHAKE, **dict(step.headers)}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET /v1/responses HTTP/1.1\r\n" + lines.encode("latin1") + b"\r\n")
        answer = b""
        with trio.move_on_after(RAW_LIMIT_S * 5):
            while b"\r\n\r\n" not in answer:
                data = await stream.receive_some(65536)
                if not data:
                    break
                answer += data
        status = int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
        if status != 101:
            played.replies.append(Reply("RAW", "/v1/responses", status, {}))
            return
        data = b"".join(as_bytes(frame) for frame in step.frames)
        await _send(stream, data if step.cut is None else data[: step.cut])
        if await _left(stream, step.ending):
            return
        answer = answer.partition(b"\r\n\r\n")[2]
        wanted = sum(frame.opcode == 1 for frame in step.frames)
        with trio.move_on_after(RAW_LIMIT_S * 5):
            async for data in stream:
                answer += data
                if _texts_ended(answer) >= wanted:
                    break
        played.messages += _texts(answer)


def _texts_ended(data: bytes) -> int:
    return sum(text.startswith(_LAST_EVENTS) for text in _texts(data))


def _texts(data: bytes) -> list[bytes]:
    """The payloads of whole text frames that a server sent: never masked, never cut into parts here."""
    texts, at = [], 0
    while len(data) - at >= 2:
        length, start = data[at + 1] & 0x7F, at + 2
        if length == 126:
            length, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
        elif length == 127:
            length, start = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
        if len(data) < start + length:
            break
        if data[at] & 0x0F == 1:
            texts.append(data[start : start + length])
        at = start + length
    return texts
