"""The load: a process that opens streams, checks every answer, and prints what it saw as one JSON line.

python -m benchmarks.client one-by-one PORT COUNT           latencies of short answers on one connection
python -m benchmarks.client parallel PORT STREAMS PLAN FACE streams at once, each by the plan
python -m benchmarks.client hold PORT STREAMS               open and silent until standard input ends
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.faces import BY_NAME, CHAT, Face
from benchmarks.plan import Plan

API_KEY = "sk-benchmarks-0123456789abcdef"
"""Sent to every server; those that ask for a key are started with this one."""
# Half-made streams a server is given at once; more would measure its backlog.
OPENING = 20
OPENING_SECONDS = 45.0


class BadAnswerError(Exception):
    """An answer was not what the plan said; its figures would mean nothing."""


class Stream(asyncio.Protocol):
    """One client connection, one request at a time, of one format."""

    def __init__(self, face: Face = CHAT) -> None:
        self._face = face
        self._transport: asyncio.Transport
        self._got = bytearray()
        self._begun = False
        self._first: asyncio.Future[float] | None = None
        self._whole: asyncio.Future[float] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self._first, self._whole):
            if future is not None and not future.done():
                future.set_exception(
                    BadAnswerError(f"the server closed the connection: {bytes(self._got[:400])!r}")
                )

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._got += data
        if not self._begun:
            if not self._got.startswith(b"HTTP/1.1 200"[: len(self._got)]):
                self._transport.abort()
                return
            if self._face.first.search(self._got) is None:
                return
            self._begun = True
            assert self._first is not None
            self._first.set_result(now)
        if data.endswith(b"0\r\n\r\n") and self._whole is not None:
            self._whole.set_result(now)

    def ask(self, port: int, plan: Plan) -> tuple[float, Awaitable[float], Awaitable[float]]:
        """Send a request; returns when, and what will be the times of first content and end."""
        request = request_for(port, plan, self._face)
        loop = asyncio.get_running_loop()
        self._got.clear()
        self._begun = False
        self._first, self._whole = loop.create_future(), loop.create_future()
        sent = time.perf_counter()
        self._transport.write(request)
        return sent, self._first, self._whole

    def check(self, plan: Plan) -> None:
        """Raises BadAnswerError unless the answer is the plan's, whole and in order."""
        body = bytes(self._got).partition(b"\r\n\r\n")[2]
        text, done = "", False
        for line in unchunked(body).split(b"\n"):
            if self._face.last.fullmatch(line):
                done = True
            elif line.startswith(b"data: ") and line != b"data: [DONE]":
                text += self._face.text(json.loads(line[6:]))
        if text != plan.text() or not done:
            raise BadAnswerError(
                f"{len(text)} of {len(plan.text())} characters came, done={done}: {text[-40:]!r}"
            )

    def close(self) -> None:
        # A future nobody waits for any more must not complain.
        self._first = self._whole = None
        self._transport.abort()


def unchunked(body: bytes) -> bytes:
    """A chunked body without its framing (RFC 9112, 7.1)."""
    parts: list[bytes] = []
    at = 0
    while True:
        line_end = body.index(b"\r\n", at)
        size = int(body[at:line_end], 16)
        if not size:
            return b"".join(parts)
        parts.append(body[line_end + 2 : line_end + 2 + size])
        at = line_end + 2 + size + 2


def request_for(port: int, plan: Plan, face: Face) -> bytes:
    body = json.dumps(face.body(plan.prompt())).encode()
    return (
        b"POST %b HTTP/1.1\r\nhost: 127.0.0.1:%d\r\nauthorization: Bearer %b\r\n"
        b"content-type: application/json\r\naccept: */*\r\ncontent-length: %d\r\n\r\n%b"
        % (face.path.encode(), port, API_KEY.encode(), len(body), body)
    )


async def connect(port: int, face: Face = CHAT) -> Stream:
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(partial(Stream, face), "127.0.0.1", port)
    return protocol


async def one_by_one(port: int, count: int) -> dict[str, Any]:
    plan = Plan()
    stream = await connect(port)
    first_s: list[float] = []
    for _ in range(count):
        sent, first, whole = stream.ask(port, plan)
        first_s.append(await first - sent)
        await whole
        stream.check(plan)
    stream.close()
    return {"first_s": first_s}


async def parallel(port: int, streams: int, plan: Plan, face: Face = CHAT) -> dict[str, Any]:
    plans = [replace(plan, phase_us=plan.every_us * each // streams) for each in range(streams)]
    opened = [await connect(port, face) for _ in plans]
    asked = [stream.ask(port, each) for stream, each in zip(opened, plans, strict=True)]
    began = min(sent for sent, _, _ in asked)
    ended = [await whole for _, _, whole in asked]
    for stream, each in zip(opened, plans, strict=True):
        stream.check(each)
        stream.close()
    return {"chunks": streams * plan.chunks, "seconds": max(ended) - began}


async def hold(port: int, streams: int) -> dict[str, Any]:
    plan = Plan(hold=1)
    opened: list[Stream] = []
    try:
        async with asyncio.timeout(OPENING_SECONDS):
            while len(opened) < streams:
                some = [await connect(port) for _ in range(min(OPENING, streams - len(opened)))]
                for first in [stream.ask(port, plan)[1] for stream in some]:
                    await first
                opened += some
    except TimeoutError:
        raise BadAnswerError(
            f"only {len(opened)} of {streams} streams had begun after {OPENING_SECONDS:g} s"
        ) from None
    print(json.dumps({"open": len(opened)}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for stream in opened:
        stream.close()
    return {"closed": len(opened)}


def main(mode: str, port: str, count: str, prompt: str = "", face: str = CHAT.name) -> None:
    match mode:
        case "one-by-one":
            result = asyncio.run(one_by_one(int(port), int(count)))
        case "parallel":
            result = asyncio.run(parallel(int(port), int(count), Plan.parse(prompt), BY_NAME[face]))
        case "hold":
            result = asyncio.run(hold(int(port), int(count)))
        case _:
            raise SystemExit(f"unknown mode {mode!r}")
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
