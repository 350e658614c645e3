"""A client may leave at any moment and in any way: what ran for it ends at once, and is accounted for.

The matrix is endpoint x upstream wire x streamed or not x phase x way of leaving, against the server on a
real port with its real store. In each cell

- the upstream's socket (or the tool) shows the end within 50 ms, on the monotonic clock; where no upstream
  call is open, none is made afterwards;
- the turn has exactly one row, with the outcome, state, commit and usage that the documentation names;
- no task and no descriptor is left, no turn is active, the pools have all their permits, and the server
  answers the next client.

The 50 ms are the limit on every machine. Where a probe in the same loop ran more than 10 ms late while they
were measured, the machine had other things to do: the cell is then tried again, at most twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from matrix_client import FAIL_S, LEAVINGS, Client, Leaving, ask, get
from matrix_faces import FACES, Ask, Face
from matrix_phases import PHASES, Phase, Row, host_call, whole_text
from matrix_scripts import PIECE_CHARS, Flood
from matrix_stage import Stage, stage, watched_lag
from matrix_wires import INPUT_TOKENS, OUTPUT_TOKENS, TEXT, WIRES, Wire

from trio_agent.store.contract import TurnRow

LIMIT_S = 0.05
TRIES = 3
STUCK_S = 0.02
"""How long nothing may happen in the process before a write counts as stuck, in seconds."""

Note = Callable[[str, float], None]

faces = pytest.mark.parametrize("face", FACES.values(), ids=FACES.keys())
wires = pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES.keys())
leavings = pytest.mark.parametrize("how", LEAVINGS)
streaming = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])

CELLS = [
    pytest.param(name, stream, id=f"{name}, {'streamed' if stream else 'whole'}")
    for name, phase in PHASES.items()
    for stream in (True, False)
    if (phase.streamed if stream else phase.unstreamed) is not None
]


async def leave_and_see(
    server: Stage, client: Client, how: Leaving, *, unread: bool = False
) -> tuple[float, bool]:
    """Leave; how many seconds until that was seen, and whether the machine was busy meanwhile."""
    async with watched_lag() as lag:
        left_at = client.leave(how, unread=unread)
        with trio.fail_after(FAIL_S):
            await server.moments.left.wait()
    return server.moments.left_at - left_at, lag.busy


async def within_limit(cell: Callable[[], Awaitable[tuple[float, bool]]], note: Note) -> None:
    """Run a cell until its time is within the limit, or says something about the server."""
    for _ in range(TRIES):
        took, busy = await cell()
        if took:
            note("seen_after_s", took)
        if took < LIMIT_S or not busy:
            break
    assert took < LIMIT_S, f"seen after {took * 1000:.1f} ms" + (", on a busy machine" if busy else "")


async def park(server: Stage, stream: bool) -> None:
    """One request up to a call of the caller's tool, read to its end."""
    status, _ = await ask(server.port, server.face.whole(Ask(stream)))
    assert status == 200
    assert [row.outcome for row in await server.rows()] == ["parked"]


def usage_source(row: Row, wire: Wire) -> str:
    if row.usage == "begun":
        return "estimated" if wire.early_usage else "unknown"
    return "provider" if row.usage == "whole" else "unknown"


async def check_row(server: Stage, expected: Row, wire: Wire) -> TurnRow:
    (row,) = await server.rows()
    assert (row.outcome, row.reason) == (expected.outcome, expected.reason)
    assert (row.state, row.committed_by) == (expected.state, expected.committed_by)
    assert (row.face, row.usage_source) == (server.face.name, usage_source(expected, wire))
    if expected.usage == "whole":
        assert (row.usage.input_tokens, row.usage.output_tokens) == (INPUT_TOKENS, OUTPUT_TOKENS)
    assert (row.ended_at is None) == (expected.outcome == "parked")
    assert len(await server.agent.store.list_calls(row.id)) == expected.calls
    return row


async def run_cell(
    server: Stage, phase: Phase, expected: Row, *, stream: bool, how: Leaving
) -> tuple[float, bool]:
    face = server.face
    await server.begin_anew(phase.says)
    if phase.resumed:
        await park(server, stream)
    before = await server.settled()
    model = "dark/m" if phase.watched == "dark" else "lab/m"
    wanted = Ask(stream, model, window=phase.window, results=phase.resumed)
    async with await Client.connect(server.port) as client:
        await client.send(face.whole(wanted))
        with trio.fail_after(FAIL_S):
            await server.moments.arrived.wait()
        if stream:
            await client.until(face.sign(phase.shown))
        calls = server.calls
        assert (await server.health())["active_turns"] == 1
        if phase.watched == "nobody":
            with trio.fail_after(FAIL_S):
                await server.moments.left.wait()
            await trio.testing.wait_all_tasks_blocked()
            client.leave(how)
            took, busy = 0.0, False
        else:
            took, busy = await leave_and_see(server, client, how)
        if how == "half-close":
            said = await client.rest()
            assert face.end not in said
            assert stream or not said
    await server.check_as_before(before)
    assert server.calls == calls
    row = await check_row(server, expected, server.wire)
    if expected.outcome == "parked":
        await check_resumes(server, row, stream=stream)
    return took, busy


async def check_resumes(server: Stage, parked: TurnRow, *, stream: bool) -> None:
    """The park is still there: a request with the results goes on with the same turn, to its end."""
    server.says = (whole_text,)
    status, body = await ask(server.port, server.face.whole(Ask(stream, results=True)))
    assert (status, TEXT in body.decode()) == (200, True)
    (row,) = await server.rows()
    assert (row.id, row.outcome, row.reason) == (parked.id, "completed", "stop")


@pytest.mark.parametrize(("name", "stream"), CELLS)
@wires
@faces
async def test_leaving_ends_the_turn(
    face: Face, wire: Wire, name: str, stream: bool, tmp_path: Path, note: Note
) -> None:
    """In this phase, left in any way, the turn is over at once and its one row says what it was.

    The ways of leaving share a server: to start one takes as long as a cell.
    """
    phase = PHASES[name]
    expected = phase.streamed if stream else phase.unstreamed
    assert expected is not None
    async with stage(face, wire, tmp_path, with_dark=phase.watched == "dark") as server:
        for how in LEAVINGS:
            cell = partial(run_cell, server, phase, expected, stream=stream, how=how)
            try:
                await within_limit(cell, note)
            except Exception as error:
                error.add_note(f"when the client left by {how}")
                raise


async def before_the_head_ends(server: Stage, client: Client) -> None:
    """Half a head comes right behind a whole request, so the answer to that one says that it was read."""
    head, _ = server.face.request(Ask(stream=True))
    await client.send(get("/health") + head[: len(head) // 2])
    status, _ = await client.answer()
    assert status == 200


async def before_the_body(server: Stage, client: Client) -> None:
    head, _ = server.face.request(Ask(stream=True), expect=True)
    await client.send(head)
    await client.until(b"HTTP/1.1 100 ")


async def amid_the_body(server: Stage, client: Client) -> None:
    await before_the_body(server, client)
    _, body = server.face.request(Ask(stream=True))
    await client.send(body[: len(body) // 2])
    await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize("send", [before_the_head_ends, before_the_body, amid_the_body])
@leavings
@faces
async def test_leaving_before_the_request_is_whole(
    face: Face, how: Leaving, send: Callable[[Stage, Client], Awaitable[None]], tmp_path: Path
) -> None:
    """Nothing was asked, so nothing is called and nothing is in the records."""
    async with stage(face, WIRES["chat"], tmp_path) as server:
        before = await server.settled()
        async with await Client.connect(server.port) as client:
            await send(server, client)
            client.leave(how)
            if how == "half-close":
                assert b" 200 " not in await client.rest()
        await server.check_as_before(before)
        assert server.calls == 0
        assert await server.rows() == []


@streaming
@leavings
@wires
@faces
async def test_leaving_with_the_calls_in_hand_leaves_the_park(
    face: Face, wire: Wire, how: Leaving, stream: bool, tmp_path: Path
) -> None:
    """A client that owes tool results may close its connection: the turn waits for them, and goes on."""
    async with stage(face, wire, tmp_path) as server:
        server.says = (host_call, whole_text)
        before = await server.settled()
        async with await Client.connect(server.port) as client:
            await client.send(face.whole(Ask(stream)))
            status, _ = await client.answer()
            assert status == 200
            client.leave(how)
            assert not await client.rest() if how == "half-close" else True
        await server.check_as_before(before)
        expected = Row("host_tool_wait", "content" if stream else "end", "whole", "parked", "tool_calls")
        parked = await check_row(server, expected, wire)
        assert server.calls == 1
        await check_resumes(server, parked, stream=stream)
        await server.check_as_before(before)


@leavings
@wires
@faces
async def test_leaving_an_answer_that_was_not_read(
    face: Face, wire: Wire, how: Leaving, tmp_path: Path, note: Note
) -> None:
    """The server is stuck in a write to a client that does not read; the client's end frees it at once."""
    tries = iter(range(TRIES))

    async def cell() -> tuple[float, bool]:
        flood = Flood()
        async with stage(
            face, wire, tmp_path / str(next(tries)), agent={"max_answer_chars": 10**9}, script=flood.say
        ) as server:
            before = await server.settled()
            async with await Client.connect(server.port, buffer=4096) as client:
                await client.send(face.whole(Ask(stream=True)))
                with trio.fail_after(FAIL_S):
                    await flood.begun.wait()
                    await trio.testing.wait_all_tasks_blocked(STUCK_S)
                took, busy = await leave_and_see(server, client, how, unread=True)
                if how == "half-close":
                    assert face.end not in await client.rest()
            await server.check_as_before(before)
            await check_row(server, Row("streaming", "content", "begun"), wire)
            return took, busy

    await within_limit(cell, note)


@leavings
@faces
async def test_leaving_a_whole_answer_that_was_not_read(face: Face, how: Leaving, tmp_path: Path) -> None:
    """The answer is complete and accounted for when it is written: it stays so, and the write ends."""
    wire = WIRES["chat"]
    flood = Flood(pieces=1000)
    async with stage(face, wire, tmp_path, agent={"max_answer_chars": 10**9}, script=flood.say) as server:
        before = await server.settled()
        async with await Client.connect(server.port, buffer=4096) as client:
            await client.send(face.whole(Ask(stream=False)))
            with trio.fail_after(FAIL_S):
                while [row.outcome for row in await server.rows()] != ["completed"]:
                    pass
            await trio.testing.wait_all_tasks_blocked(STUCK_S)
            assert server.agent.active_turns == 1
            client.leave(how, unread=True)
            if how == "half-close":
                assert len(await client.rest()) < 1000 * PIECE_CHARS
        await server.check_as_before(before)
        await check_row(server, Row("streaming", "end", "whole", "completed", "stop"), wire)
