"""A client that stays and does not read: it slows its upstream, holds little, and is cut off in the end.

Nothing here sleeps. That a write is stuck is seen by nothing happening in the whole process, which holds the
client, the server and the upstream.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from matrix_client import FAIL_S, Client
from matrix_faces import FACES, Ask, Face
from matrix_scripts import PIECE_CHARS, Flood, piece
from matrix_stage import stage, watched_lag
from matrix_wires import WIRES, Wire

from trio_agent.server.writing import CANCELLED_WRITE_TIMEOUT
from trio_agent.turn.driver import BLOCKED_LIMIT_SECONDS

faces = pytest.mark.parametrize("face", FACES.values(), ids=FACES.keys())
wires = pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES.keys())

MIB = 1024 * 1024
UPSTREAM_BOUND_BYTES = 8 * MIB
"""What an upstream may get rid of while its client does not read. Nearly all of it is in the four socket
buffers on the way, each of which the kernel may let grow to a few MiB; the server itself holds one read of
64 KiB and its translation."""
PIECES = 4000  # 32 MiB: several times the bound
FAST_BYTES = 16 * MIB
STUCK_S = 0.03
TURN_TIMEOUT_S = 0.4
LAST_WORDS_S = BLOCKED_LIMIT_SECONDS + CANCELLED_WRITE_TIMEOUT + 1.0  # and something for a busy machine
WRITE_TIMEOUT_S = 0.3
LATE_S = 0.05
TRIES = 3

LONG_ANSWERS = {"max_answer_chars": 10**9}
SHORT_WRITES = {"write_timeout": WRITE_TIMEOUT_S}


async def stuck(flood: Flood) -> None:
    """Return once the flood has begun and nobody can do anything."""
    with trio.fail_after(FAIL_S):
        await flood.begun.wait()
        await trio.testing.wait_all_tasks_blocked(STUCK_S)


@wires
@faces
async def test_a_client_that_stops_reading_stops_its_upstream(
    face: Face, wire: Wire, tmp_path: Path, note: Callable[[str, float], None]
) -> None:
    """The upstream's writes block at a bound; when the client reads again it gets every piece, once."""
    flood = Flood(PIECES)
    async with stage(face, wire, tmp_path, agent=LONG_ANSWERS, script=flood.say) as server:
        before = await server.settled()
        async with await Client.connect(server.port) as client:
            await client.send(face.whole(Ask(stream=True)))
            await client.until(piece(0)[:10].encode())
            await stuck(flood)
            note("upstream_bytes", flood.sent_bytes)
            assert flood.sent_bytes < UPSTREAM_BOUND_BYTES
            await server.check_answers()
            status, body = await client.answer()
        assert (status, face.text(body)) == (200, "".join(map(piece, range(PIECES))))
        await server.check_as_before(before)
        assert [row.outcome for row in await server.rows()] == ["completed"]


@wires
@faces
async def test_a_client_that_never_reads_is_cut_off(face: Face, wire: Wire, tmp_path: Path) -> None:
    """Not before the write limit, and then at once; on a busy machine there are at most two tries more."""
    for number in range(TRIES):
        took, busy = await cut_off(face, wire, tmp_path / str(number))
        if took < LATE_S or not busy:
            break
    assert took < LATE_S


async def cut_off(face: Face, wire: Wire, home: Path) -> tuple[float, bool]:
    """How many seconds after the limit the upstream saw it, and whether the machine was busy."""
    flood = Flood()
    async with stage(face, wire, home, server=SHORT_WRITES, agent=LONG_ANSWERS, script=flood.say) as server:
        before = await server.settled()
        async with await Client.connect(server.port, buffer=4096) as client:
            async with watched_lag() as lag:
                await client.send(face.whole(Ask(stream=True)))
                stopped_at = trio.current_time()
                with trio.fail_after(FAIL_S):
                    await server.moments.left.wait()
            left_at = server.moments.left_at
            assert left_at - stopped_at >= WRITE_TIMEOUT_S
            assert flood.sent_bytes < UPSTREAM_BOUND_BYTES
            assert face.end not in await client.rest()
        await server.check_as_before(before)
        (row,) = await server.rows()
        assert (row.outcome, row.reason) == ("cancelled", "client_disconnected")
        assert (row.state, row.committed_by) == ("streaming", "content")
        assert row.usage_source == ("estimated" if wire.early_usage else "unknown")
        return left_at - flood.sent_at - WRITE_TIMEOUT_S, lag.busy


@wires
@faces
async def test_the_turns_deadline_waits_for_no_client(face: Face, wire: Wire, tmp_path: Path) -> None:
    """A turn whose client does not read ends little after its limit, however long a write may take."""
    flood = Flood()
    server_limits = {"turn_timeout": TURN_TIMEOUT_S, "write_timeout": 60}
    async with stage(
        face, wire, tmp_path, server=server_limits, agent=LONG_ANSWERS, script=flood.say
    ) as server:
        before = await server.settled()
        began = trio.current_time()
        async with await Client.connect(server.port, buffer=4096) as client:
            await client.send(face.whole(Ask(stream=True)))
            with trio.fail_after(FAIL_S):
                await server.moments.left.wait()
            left_at = server.moments.left_at
            assert face.end not in await client.rest()
        await server.check_as_before(before)
        assert TURN_TIMEOUT_S <= left_at - began < TURN_TIMEOUT_S + LAST_WORDS_S
        (row,) = await server.rows()
        assert (row.outcome, row.reason, row.state) == ("failed", "timeout", "streaming")


@faces
async def test_a_whole_answer_that_is_never_read_is_cut_off(face: Face, tmp_path: Path) -> None:
    """The turn had ended with its answer, and is called so; the connection is closed, and nothing is left."""
    flood = Flood(pieces=1000)
    async with stage(
        face, WIRES["chat"], tmp_path, server=SHORT_WRITES, agent=LONG_ANSWERS, script=flood.say
    ) as server:
        before = await server.settled()
        async with await Client.connect(server.port, buffer=4096) as client:
            await client.send(face.whole(Ask(stream=False)))
            with trio.fail_after(FAIL_S):
                while [row.outcome for row in await server.rows()] != ["completed"]:
                    pass
            assert server.agent.active_turns == 1
            await server.settled()
            assert len(await client.rest()) < 1000 * PIECE_CHARS
        await server.check_as_before(before)
        (row,) = await server.rows()
        assert (row.outcome, row.reason, row.committed_by) == ("completed", "stop", "end")


async def take(client: Client, size: int) -> bytes:
    """One read of at most `size` bytes; empty at the end, or when the server has cut the connection."""
    try:
        return await client.stream.receive_some(size)
    except trio.BrokenResourceError:
        return b""


@faces
async def test_a_client_that_reads_slowly_is_not_cut_off(face: Face, tmp_path: Path) -> None:
    """One that takes four times what it must stays, however much the kernel holds for it.

    A full send buffer lets nobody write before a third of it is free, which may take this client longer
    than the limit. What it has taken meanwhile counts. (The client's own buffer has a fixed size: its
    kernel, too, waits for a part of it to be free, and nobody else could know that something was read.)
    """
    flood = Flood()
    rate = 4 * 65_536 / WRITE_TIMEOUT_S
    async with stage(
        face, WIRES["chat"], tmp_path, server=SHORT_WRITES, agent=LONG_ANSWERS, script=flood.say
    ) as server:
        async with await Client.connect(server.port, buffer=262_144) as client:
            await client.send(face.whole(Ask(stream=True)))
            got = 0
            while got < FAST_BYTES:
                got += len(await take(client, 65_536))
            slow_since = trio.current_time()
            got = 0
            while (elapsed := trio.current_time() - slow_since) < 6 * WRITE_TIMEOUT_S:
                while got < rate * elapsed:
                    data = await take(client, int(rate * elapsed) + 1 - got)
                    assert data, f"cut off after {elapsed:.2f} s"
                    got += len(data)
                await trio.testing.wait_all_tasks_blocked(0.01)
        await server.settled()
