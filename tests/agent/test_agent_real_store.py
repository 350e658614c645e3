"""Turns over the real store and the real clock: what is on the disk when the client has heard the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from support.rig import Collector, make_agent, nothing_left, request, respond, tool
from support.scripted import HANG, Scripted, answer, calling, text

from trio_agent.statemachine import effects as fx
from trio_agent.store.sqlite import SqliteStore, open_store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with open_store(tmp_path / "store.db", instance_id="one", now=lambda: 1_700_000_000.0) as opened:
        yield opened


class Reading(Collector):
    """A client that looks into the store at the end of its response, as another process would."""

    def __init__(self, store: SqliteStore) -> None:
        super().__init__()
        self._store = store
        self.outcomes: list[str] = []

    async def send(self, outputs: object) -> None:
        await super().send(outputs)  # type: ignore[arg-type]
        if isinstance(self.last, fx.Finish | fx.SendError | fx.Reject):
            self.outcomes += [row.outcome for row in await self._store.list_turns()]


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        (answer("Hello"), "completed"),
        (calling(("h1", "read_file")), "parked"),
        ([text("a")], "failed"),
        ([], "failed"),
    ],
)
async def test_the_outcome_is_durable_before_the_end_is_told(
    store: SqliteStore, script: list[object], outcome: str
) -> None:
    """Whoever has seen the last event finds the outcome in the store."""
    agent = make_agent(Scripted(script, limits=None), store=store)
    sink = Reading(store)
    await respond(agent, request(tools=(tool(),), preflight=0.0), sink)
    assert sink.outcomes == [outcome]


async def test_a_hundred_clients_that_leave_leave_a_hundred_rows(store: SqliteStore) -> None:
    """Cancelled at moments all over the turn, each has one outcome and no task is left."""
    lab = Scripted([text("a"), 0.002, text("b"), 0.002, HANG])
    agent = make_agent(lab, store=store)

    async def leave(after: float) -> None:
        with trio.move_on_after(after):
            await respond(agent)

    with nothing_left(lab):
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(leave, number * 0.0005)
    rows = await store.list_turns(limit=200)
    assert {row.outcome for row in rows} == {"cancelled"}
    assert {row.reason for row in rows} == {"client_disconnected"}
    assert len(rows) <= 100
    assert await store.count_turns("running") == 0
    assert len(lab.calls) <= len(rows)
