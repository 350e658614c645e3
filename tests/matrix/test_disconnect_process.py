"""The heart of the disconnect matrix against a started `trio-agent serve`: another process, its own loop."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from matrix_client import FAIL_S, LEAVINGS, Client, Leaving, ask, get
from matrix_faces import FACES, Ask, Face
from matrix_phases import PHASES, Phase, Row, Speak, silent, whole_text
from matrix_stage import CHECK, Moments, watched_lag
from matrix_wires import WIRES, Wire
from support.serving import Served, serving
from support.upstream import Reply, Upstream, scripted_upstream

LIMIT_S = 0.05
BUSY_S = 0.01
TRIES = 3
NAMES = ["preflight", "role chunk", "mid-text", "mid-reasoning", "mid-tool-call"]
STUCK_S = 0.1
STALLED = 8
STALLED_GROWTH_BYTES = 8 * 1024 * 1024


class Process:
    """The started server before an upstream in this process, which says what `says` says."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.served: Served
        self.upstream: Upstream
        self.says: Speak = silent
        self.moments = Moments()
        self.calls = 0

    async def script(self, reply: Reply) -> None:
        if reply.request.json()["model"] == CHECK:
            await whole_text(self.wire, reply)
            return
        moments = self.moments
        self.calls += 1
        if not await self.says(self.wire, reply):
            moments.arrived.set()
            await reply.until_client_leaves()
            moments.note_left()

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.served.process.pid}/fd").iterdir()))

    def waited_s(self) -> float:
        """How long the process has been ready to run while others ran (proc(5), schedstat)."""
        path = Path(f"/proc/{self.served.process.pid}/schedstat")
        return int(path.read_text().split()[1]) / 1e9 if path.exists() else 0.0

    async def active_turns(self) -> int:
        _, body = await ask(self.served.port, get("/health/detailed"))
        return int(json.loads(body)["active_turns"])

    async def settled(self) -> int:
        """How many descriptors are open once no turn is active."""
        with trio.fail_after(FAIL_S):
            while await self.active_turns():
                pass
        return self.descriptors()

    async def check_as_before(self, face: Face, descriptors: int) -> None:
        with trio.move_on_after(FAIL_S):
            while await self.settled() != descriptors:
                pass
        assert self.descriptors() == descriptors
        assert self.upstream.open == 0
        status, body = await ask(self.served.port, face.whole(Ask(stream=True, model=f"lab/{CHECK}")))
        assert (status, face.end in body) == (200, True)
        await self.settled()

    def rows(self) -> list[dict[str, Any]]:
        """The turns in the store, oldest first, without those of `CHECK`."""
        with closing(sqlite3.connect(self.served.home / "store.sqlite3")) as database:
            database.row_factory = sqlite3.Row
            found = database.execute("SELECT * FROM turns ORDER BY created_at, id").fetchall()
        return [dict(row) for row in found if CHECK not in row["model"]]


@asynccontextmanager
async def process(wire: Wire, folder: Path) -> AsyncIterator[Process]:
    made = Process(wire)
    with ExitStack() as stack:
        async with scripted_upstream(made.script) as made.upstream:
            lab = {
                "base_url": made.upstream.url + wire.path,
                "api_key": "k",
                "models": ["m", CHECK],
                **wire.settings,
            }
            config = {
                "providers": {"lab": {"module": wire.module, "config": lab}},
                "agent": {"max_answer_chars": 10**9},
            }
            starting = serving(folder, config, key=None)
            made.served = await trio.to_thread.run_sync(stack.enter_context, starting)
            yield made
            made.served.signal()
            assert await trio.to_thread.run_sync(made.served.end) == 0


async def leave(
    server: Process, face: Face, phase: Phase, *, stream: bool, how: Leaving
) -> tuple[float, bool]:
    """One turn that is left in `phase`: when that was seen, and whether the machine was busy meanwhile."""
    server.says = phase.says[0]
    server.moments = Moments()
    async with await Client.connect(server.served.port) as client:
        await client.send(face.whole(Ask(stream, window=phase.window)))
        with trio.fail_after(FAIL_S):
            await server.moments.arrived.wait()
        if stream:
            await client.until(face.sign(phase.shown))
        assert await server.active_turns() == 1
        waited_s = server.waited_s()
        async with watched_lag() as lag:
            left_at = client.leave(how)
            with trio.fail_after(FAIL_S):
                await server.moments.left.wait()
        busy = lag.busy or server.waited_s() - waited_s > BUSY_S
        if how == "half-close":
            assert face.end not in await client.rest()
    return server.moments.left_at - left_at, busy


def check_row(row: dict[str, Any], expected: Row) -> None:
    assert (row["outcome"], row["reason"]) == (expected.outcome, expected.reason), row
    assert (row["state"], row["committed_by"]) == (expected.state, expected.committed_by), row


@pytest.mark.slow
@pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES.keys())
@pytest.mark.parametrize("face", FACES.values(), ids=FACES.keys())
async def test_leaving_ends_the_turn_in_another_process(
    face: Face, wire: Wire, tmp_path: Path, note: Callable[[str, float], None]
) -> None:
    """Every phase, streamed or not, left in every way: seen within 50 ms, one row, no descriptor left.

    A cell is tried again, at most twice, where this process or the server waited more than 10 ms for a
    processor meanwhile.
    """
    async with process(wire, tmp_path / "server") as server:
        await server.check_as_before(face, await server.settled())
        server.rows()
        descriptors = await server.settled()
        cells = [
            (name, stream, how, expected)
            for name in NAMES
            for stream, expected in ((True, PHASES[name].streamed), (False, PHASES[name].unstreamed))
            for how in LEAVINGS
            if expected is not None
        ]
        seen = 0
        for name, stream, how, expected in cells:
            for _ in range(TRIES):
                took, busy = await leave(server, face, PHASES[name], stream=stream, how=how)
                note("seen_after_s", took)
                await server.check_as_before(face, descriptors)
                *_, row = rows = server.rows()
                seen += 1
                assert len(rows) == server.calls == seen, (name, stream, how)
                check_row(row, expected)
                if took < LIMIT_S or not busy:
                    break
            assert took < LIMIT_S, (name, stream, how)


async def flood(wire: Wire, reply: Reply) -> bool:
    """Says as much as it can get rid of, until its client leaves."""
    await reply.head(connection="close")
    await reply.chunk(wire.open + wire.text(0, "begun"))
    data = wire.more_text(0, "x" * 8192)
    while True:
        await reply.chunk(data)


@pytest.mark.slow
@pytest.mark.parametrize("face", FACES.values(), ids=FACES.keys())
async def test_clients_that_do_not_read_cost_little_memory(
    face: Face, tmp_path: Path, note: Callable[[str, float], None]
) -> None:
    """Eight clients stop reading a flood: together they make the server grow by less than 8 MiB.

    As many go before them: what the process needs once is no growth.
    """
    wire = WIRES["chat"]
    async with process(wire, tmp_path / "server") as server:
        await server.check_as_before(face, await server.settled())
        server.says = flood
        for _ in range(2):
            descriptors = await server.settled()
            resident = server.served.resident_bytes()
            clients = [await Client.connect(server.served.port) for _ in range(STALLED)]
            for client in clients:
                await client.send(face.whole(Ask(stream=True)))
                await client.until(b"begun")
            await trio.testing.wait_all_tasks_blocked(STUCK_S)  # no upstream can say more
            grown = server.served.resident_bytes() - resident
            assert await server.active_turns() == STALLED
            for client in clients:
                client.leave("FIN", unread=True)
            await server.check_as_before(face, descriptors)
        note("grown_bytes", grown)
        assert grown < STALLED_GROWTH_BYTES
