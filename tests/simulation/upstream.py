"""The model providers of a run: servers that answer as the scenario says, and know what they have said."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from math import inf
from typing import Any

import trio
from simulation.chronicle import Chronicle
from simulation.http_text import Message
from simulation.scenario import Ask, Outage, Reply, Step
from simulation.wires import TOKEN, Frame, Piece
from simulation.wires_responses import SPEAKERS, Speaking

PORTS = {"alpha": 7001, "beta": 7002, "gamma": 7003}
PLAIN = Reply((Step("text"),))


class Exchange:
    """One model call as the upstream saw it.

    Attributes:
        ask: the name of the client's request that caused it, with the number of the copy.
        pieces: content that was sent, with the moment.
        reported: usage that was sent, as (prompt, completion), each report replacing the one before.
        events: the moments of its events, comments left out, and of having sent one that was not taken at
            once; `signs` those of events that say something.
        blocked_since, freed_at: since when it cannot send, because the caller does not read, and when it
            last could again.
        ended: how it ended on this side: `whole`, `broken` (as the script says), `left` (the caller closed
            the connection in the middle); empty while it runs.
    """

    def __init__(self, number: int, provider: str, ask: str, place: int, reply: Reply, request: Any) -> None:
        self.number = number
        self.provider = provider
        self.ask = ask
        self.place = place
        self.reply = reply
        self.request = request
        self.speaker = SPEAKERS[provider](reply, f"{ask}-{place}", number, request["model"])
        self.pieces: list[tuple[float, Piece]] = []
        self.reported: list[tuple[int, int]] = []
        self.signs: list[float] = []
        self.events: list[float] = []
        self.blocked_since = inf
        self.freed_at = -inf
        self.began_at = trio.current_time()
        self.ended_at = inf
        self.ended = ""

    @property
    def name(self) -> str:
        return f"call {self.speaker.tag}"

    def end(self, how: str) -> None:
        if not self.ended:
            self.ended = how
            self.ended_at = trio.current_time()


class Upstreams:
    """All providers of a run."""

    def __init__(
        self,
        asks: Mapping[str, Ask],
        outages: tuple[Outage, ...],
        chronicle: Chronicle,
        nursery: trio.Nursery,
    ) -> None:
        self._asks = asks
        self._outages = outages
        self._chronicle = chronicle
        self._nursery = nursery
        self._places: Counter[str] = Counter()
        self.exchanges: list[Exchange] = []

    async def obstacle(self, provider: str) -> None:
        """What stands before a connection now. Raises ConnectionRefusedError."""
        await trio.lowlevel.checkpoint()
        for outage in self._ill(provider):
            if outage.silent:
                self._chronicle.note(provider, "is silent")
                await trio.sleep(outage.until - trio.current_time())
            elif not outage.deaf:
                self._chronicle.note(provider, "refuses a connection")
                raise ConnectionRefusedError

    def _ill(self, provider: str) -> list[Outage]:
        now = trio.current_time()
        return [each for each in self._outages if each.provider == provider and each.at <= now < each.until]

    def accept(self, provider: str, half: trio.socket.SocketType) -> None:
        if any(outage.deaf for outage in self._ill(provider)):
            self._chronicle.note(provider, "closes a connection at once")
            half.close()
        else:
            self._nursery.start_soon(self._serve, provider, half)

    async def _serve(self, provider: str, half: trio.socket.SocketType) -> None:
        line = _Line(half)
        try:
            with half:
                while await self._answer(provider, line):
                    pass
        except OSError:
            pass  # the caller has gone; the exchange says so

    async def _answer(self, provider: str, line: _Line) -> bool:
        """One exchange; whether the connection may serve another."""
        body = await line.request()
        if body is None:
            return False
        self._chronicle.saw(provider, body)
        exchange = self._exchange(provider, json.loads(body))
        try:
            again = await _Answering(exchange, line, self._chronicle).run()
        except (OSError, _Left):
            again = False
            if not exchange.ended:
                exchange.end("left")
        self._chronicle.note(provider, f"{exchange.name} ended: {exchange.ended}")
        return again

    def _exchange(self, provider: str, request: Any) -> Exchange:
        ask = _last_token(request["input"] if "input" in request else request["messages"])
        place = self._places[ask]
        self._places[ask] += 1
        replies = self._asks[ask.partition("_")[0]].replies
        reply = replies[place] if place < len(replies) else PLAIN
        exchange = Exchange(len(self.exchanges), provider, ask, place, reply, request)
        self.exchanges.append(exchange)
        self._chronicle.note(provider, f"{exchange.name} begins")
        return exchange


class _Left(Exception):  # noqa: N818
    """The caller closed the connection."""


class _Line:
    """A connection from the product. While nothing is to be sent it is watched for the caller's leaving."""

    def __init__(self, half: trio.socket.SocketType) -> None:
        self._half = half
        self._ahead = b""

    async def request(self) -> bytes | None:
        message = Message(response=False)
        body = message.feed(self._ahead)
        while not message.whole:
            data = await self._half.recv(65_536)
            if not data:
                return None
            body += message.feed(data)
        self._ahead = message.rest
        return body

    async def send(self, data: bytes) -> None:
        """Raises OSError when the caller has gone."""
        while data:
            data = data[await self._half.send(data) :]

    async def pause(self, seconds: float) -> None:
        """Raises _Left, or OSError, as soon as the caller leaves."""
        with trio.move_on_after(seconds) if seconds < inf else trio.CancelScope():
            while True:
                data = await self._half.recv(65_536)
                if not data:
                    raise _Left
                self._ahead += data

    def close(self) -> None:
        self._half.close()


class _Answering:
    """One exchange's way through its reply."""

    def __init__(self, exchange: Exchange, line: _Line, chronicle: Chronicle) -> None:
        self._exchange = exchange
        self._reply = exchange.reply
        self._line = line
        self._chronicle = chronicle
        self._joined: list[bytes] = []

    async def run(self) -> bool:
        reply = self._reply
        if reply.delay:
            await self._line.pause(reply.delay)
        await self._linger()
        if reply.dropped:
            self._exchange.end("broken")
            return False
        if reply.status != 200:
            await self._refuse()
            return True
        kind = b"connection: close\r\n" if reply.closes else b""
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n" + kind
        await self._put(head + b"transfer-encoding: chunked\r\n\r\n")
        speaker = self._exchange.speaker
        for frame in speaker.frames():
            await self._say(frame)
        return await self._end(speaker)

    async def _linger(self) -> None:
        for _ in range(self._reply.passes):
            await trio.lowlevel.checkpoint()

    async def _refuse(self) -> None:
        reply = self._reply
        kind = "invalid_request_error" if reply.status < 429 else "overloaded"
        error = {"message": f"refused with {reply.status}", "type": kind, "code": kind}
        body = json.dumps({"type": "error", "error": error}).encode()
        after = "" if reply.retry_after is None else f"retry-after: {reply.retry_after:g}\r\n"
        head = f"HTTP/1.1 {reply.status} No\r\ncontent-type: application/json\r\n{after}"
        self._exchange.end("broken")
        await self._line.send(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)

    async def _say(self, frame: Frame) -> None:
        if frame.wait:
            await self._flush()
            await self._line.pause(frame.wait)
        if frame.data:
            exchange = self._exchange
            if frame.piece is not None:
                exchange.pieces.append((trio.current_time(), frame.piece))
            if frame.usage is not None:
                exchange.reported.append(frame.usage)
            if not frame.data.startswith(b":"):
                exchange.events.append(trio.current_time())
            if frame.piece is not None or frame.usage is not None or frame.sign:
                exchange.signs.append(trio.current_time())
            await self._put(b"%x\r\n%b\r\n" % (len(frame.data), frame.data))

    async def _put(self, data: bytes) -> None:
        self._joined.append(data)
        if not self._reply.joined:
            await self._flush()

    async def _flush(self) -> None:
        data, self._joined = b"".join(self._joined), []
        if data:
            began = trio.current_time()
            self._exchange.blocked_since = began
            await self._line.send(data)
            self._exchange.blocked_since = inf
            if trio.current_time() > began:
                self._exchange.freed_at = trio.current_time()
                self._exchange.events.append(trio.current_time())

    async def _end(self, speaker: Speaking) -> bool:
        await self._linger()
        match self._reply.ending:
            case "finish" | "length" as finish:
                ending = list(speaker.end("stop" if finish == "finish" else "length"))
                for frame in ending[:-1]:
                    await self._say(frame)
                # Whole with its last event: what the caller does after it is no leaving in the middle.
                self._exchange.end("whole")
                await self._say(ending[-1])
                await self._put(b"0\r\n\r\n")
                await self._flush()
                return not self._reply.closes
            case "stall":
                await self._flush()
                await self._line.pause(inf)
            case _ as how:
                last = {
                    "short": b"0\r\n\r\n",
                    "garbage": b"d\r\ndata: {oops\n\n\r\n",
                    "torn": b"zz\r\n",
                    "error": self._chunk_of_error(speaker),
                }.get(how, b"")
                self._exchange.end("broken")
                await self._put(last)
                await self._flush()
                return how == "short"
        return False

    @staticmethod
    def _chunk_of_error(speaker: Speaking) -> bytes:
        data = speaker.error()
        return b"%x\r\n%b\r\n" % (len(data), data)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict):
        for name in ("content", "text", "output"):
            yield from _texts(value.get(name))


def _last_token(messages: list[Any]) -> str:
    for message in reversed(messages):
        for text in reversed(list(_texts(message))):
            if found := TOKEN.findall(text):
                return str(found[-1])
    raise AssertionError("a model call that belongs to no request")
