"""The pieces of a streamed body, which go past most of hypercorn."""

from __future__ import annotations

from typing import Any

import trio
from http_harness import get, serving, wait_set
from hypercorn.utils import UnexpectedMessageError

from trio_agent.server.writing import WRITES_AT_ONCE

START = {"type": "http.response.start", "status": 200, "headers": []}
END = {"type": "http.response.body", "body": b"end", "more_body": False}


def piece(body: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": True}


async def test_an_application_that_never_waits_lets_others_run() -> None:
    """It gives way after every few writes, though the kernel takes them all at once."""
    passes = 0
    longest = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal longest
        await send(START)
        seen, writes = passes, 0
        for _ in range(20 * WRITES_AT_ONCE):
            await send(piece(b"x"))
            writes = writes + 1 if passes == seen else 0
            seen, longest = passes, max(longest, writes)
        await send(END)

    async def count() -> None:
        nonlocal passes
        while True:
            await trio.lowlevel.checkpoint()
            passes += 1

    async with serving(app) as server, await server.connect() as client, trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await client.send(get("/"))
        assert (await client.reply()).body == b"x" * 20 * WRITES_AT_ONCE + b"end"
        nursery.cancel_scope.cancel()
    # In one pass of the scheduler the other task may come first, in the next one last.
    assert 0 < longest < 2 * WRITES_AT_ONCE


async def test_a_piece_behind_the_end_goes_into_no_other_response() -> None:
    """What an application sends after its last byte is its own error, though another one is streaming."""
    second_began, first_over = trio.Event(), trio.Event()
    refused: list[Exception] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        if scope["path"] == "/first":
            await send(piece(b"first"))
            await send(END)
            await second_began.wait()
            try:
                await send(piece(b"stray"))
            except UnexpectedMessageError as error:
                refused.append(error)
            first_over.set()
            return
        await send(piece(b"second"))
        second_began.set()
        await wait_set(first_over)
        await send(END)

    async with serving(app) as server, await server.connect() as client:
        await client.send(get("/first"))
        assert (await client.reply()).body == b"firstend"
        await client.send(get("/second"))
        assert (await client.reply()).body == b"secondend"
    assert len(refused) == 1
