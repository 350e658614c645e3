"""Turns that run without a client of their own are recorded by their outputs, and play again like others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from replay import replay_files
from replay.test_replay_recorded import (
    QUICK,
    RETURNED,
    TOOLS,
    Asked,
    Slow,
    ask,
    busy,
    calls,
    cut,
    hello,
    kinds,
    only,
    plays,
    recorded,
    refuse,
    silent,
)
from support.upstream import Script

from trio_agent.recording.codec import load
from trio_agent.recording.format import Disconnect, Embedded, Outcome, Status, Stop


@pytest.mark.parametrize("script", [hello, refuse, busy, cut])
@pytest.mark.parametrize("stream", [True, False])
async def test_whatever_the_upstream_did(script: Script, stream: bool, tmp_path: Path) -> None:
    """The outputs are the same; there are no bytes, for anybody may have read them."""
    async with recorded(tmp_path, script, server=QUICK, lab={"max_retries": 1}) as agent:
        await Asked(agent, ask(stream=stream), once="key-1").run()
    recording = only(tmp_path)
    first = recording.entries[0]
    assert isinstance(first, Embedded)
    assert first.parks
    assert not kinds(recording) & {"request", "status", "bytes"}
    await plays(recording)


async def test_requests_that_joined_leave_no_trace(tmp_path: Path) -> None:
    """One file for one turn, whoever read it; neither they nor later ones write another."""
    slow = Slow()
    async with recorded(tmp_path, slow, server=QUICK) as agent, trio.open_nursery() as nursery:
        clients = [Asked(agent, ask(), once="key-1") for _ in range(3)]
        for client in clients:
            nursery.start_soon(client.run)
        await trio.testing.wait_all_tasks_blocked(0.01)
        slow.text.set()
        for client in clients:
            await client.saw(b"Hel")
        clients[0].scope.cancel()
        await trio.testing.wait_all_tasks_blocked(0.01)
        slow.end.set()
        await clients[1].saw(b"[DONE]")
        await agent.idle()
        nursery.start_soon(Asked(agent, ask(), once="key-1").run)
    recording = only(tmp_path)
    assert not [line for line in recording.entries if isinstance(line, Disconnect)]
    await plays(recording)


async def test_the_last_client_leaves(tmp_path: Path) -> None:
    """As it is where there is one client only: the turn ends there."""
    async with recorded(tmp_path, silent) as agent, trio.open_nursery() as nursery:
        client = Asked(agent, ask(), once="key-1")
        nursery.start_soon(client.run)
        await client.saw(b"Hel")
        client.scope.cancel()
    recording = only(tmp_path)
    (left,) = [line for line in recording.entries if isinstance(line, Disconnect)]
    assert left.reason == "client_disconnected"
    await plays(recording)


@pytest.mark.parametrize("how", ["told", "cut off"])
async def test_the_server_ends(how: str, tmp_path: Path) -> None:
    """Whether the turn was told of it or the agent was left around it."""
    async with recorded(tmp_path, silent) as agent, trio.open_nursery() as nursery:
        client = Asked(agent, ask(), once="key-1")
        nursery.start_soon(client.run)
        await client.saw(b"Hel")
        if how == "told":
            agent.drain()
            await agent.stop_turns()
        else:
            agent.end_as("shutdown")
            for driver in agent._running:
                driver.leave()
    recording = only(tmp_path)
    (ended,) = [line for line in recording.entries if isinstance(line, Disconnect | Stop)]
    assert ended.reason == "shutdown"
    assert isinstance(ended, Stop if how == "told" else Disconnect)
    await plays(recording)


@pytest.mark.parametrize("once", [None, "key-2"])
async def test_a_turn_that_parks_goes_on_in_another_file(once: str | None, tmp_path: Path) -> None:
    """It waits for nobody in memory. The second file has found the park, and plays on its own."""
    async with recorded(tmp_path, calls) as agent:
        await Asked(agent, ask(tools=TOOLS), once="key-1").run()
        await agent.idle()
        await Asked(agent, ask(tools=TOOLS, messages=RETURNED), once=once).run()
    recordings = [load(path) for path in sorted((tmp_path / "rec").iterdir(), reverse=True)]
    lines = [line for each in recordings for line in each.entries]
    assert [line.turn["outcome"] for line in lines if isinstance(line, Outcome)] == ["parked", "completed"]
    for each in recordings:
        await plays(each)


async def test_what_is_not_let_in(tmp_path: Path) -> None:
    """A refusal that is recorded at all plays again."""
    async with recorded(tmp_path, hello, server={"max_concurrent_turns": 1, "max_queued_turns": 0}) as agent:
        with agent.slots.slot("another") as held:
            await held.take()
            await Asked(agent, ask(), once="key-1").run()
    await plays(only(tmp_path))


def test_a_file_may_say_that_requests_bear_a_key() -> None:
    """Written by hand: one turn, and its answer goes to who asked, to who joins, and to who is late.

    In which order those that read at the same time are served is left to the scheduler.
    """

    def keyed(t: float) -> dict[str, Any]:
        return {**replay_files.ask(t=t), "headers": {"idempotency-key": "key-1"}}

    lines = replay_files.answer("Hello", t=1.0)
    replayed = replay_files.played(replay_files.written(keyed(0.0), keyed(0.5), *lines, keyed(9.0)))
    assert not replayed.stranded
    statuses = [line for line in replayed.actual if isinstance(line, Status)]
    assert sorted("idempotent-replayed" in line.headers for line in statuses) == [False, True, True]
    assert len({line.headers["x-turn-id"] for line in statuses}) == 1
    assert replay_files.outcomes(replayed) == [("completed", "stop")]
