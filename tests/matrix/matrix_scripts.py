"""Upstreams that answer in a way of their own: as fast as they can, or with a pause that a test ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from matrix_phases import Speak
from matrix_stage import Stage
from support.upstream import Reply

PIECE_CHARS = 8192


def piece(number: int) -> str:
    """The text of one piece; no two are the same."""
    return f"<{number:08d}>".ljust(PIECE_CHARS, "x")


async def _until_left_or_done(server: Stage, reply: Reply, say: Callable[[], Awaitable[None]]) -> bool:
    """Run `say` while the client is watched; whether it came to its end."""
    moments = server.moments
    done = False

    async def to_the_end() -> None:
        nonlocal done
        try:
            await say()
        except trio.BrokenResourceError:
            return  # the watcher sees it as well
        done = True
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(to_the_end)
        await reply.until_client_leaves()
        moments.note_left()
        nursery.cancel_scope.cancel()
    return done


class Flood:
    """Says text without end, or `pieces` pieces and the end.

    `sent_bytes` is what it has got rid of, `sent_at` when it last got rid of any. Where the client leaves
    first, the stage's moments have it.
    """

    def __init__(self, pieces: int | None = None) -> None:
        self.pieces = pieces
        self.begun = trio.Event()
        self.sent_bytes = 0
        self.sent_at = 0.0

    async def say(self, server: Stage, reply: Reply) -> None:
        async def text() -> None:
            wire = server.wire
            await reply.head(connection="close")
            await reply.chunk(wire.open + wire.text(0, piece(0)))
            self.begun.set()
            number = 1
            while number != self.pieces:
                data = wire.more_text(0, piece(number))
                await reply.chunk(data)
                number += 1
                self.sent_bytes += len(data)
                self.sent_at = trio.current_time()
            await reply.chunk(wire.close(0) + wire.finish("stop"))
            await reply.end()
            reply.keep_alive = False

        await _until_left_or_done(server, reply, text)


class Paused:
    """Says the one thing, and the other once it may `go_on`.

    `held` counts the calls that wait, `lost` those whose client left first.
    """

    def __init__(self, first: Speak, then: Speak) -> None:
        self.first = first
        self.then = then
        self.go_on = trio.Event()
        self.held = 0
        self.lost = 0

    async def say(self, server: Stage, reply: Reply) -> None:
        async def both() -> None:
            await self.first(server.wire, reply)
            self.held += 1
            server.moments.arrived.set()
            await self.go_on.wait()
            await self.then(server.wire, reply)

        if not await _until_left_or_done(server, reply, both):
            self.lost += 1
