"""Parks that were taken and are put back: one taker at a time, whole or not at all, nothing forgotten."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from store_samples import EPOCH, Now, call, park, reasoning, turn

from trio_agent.store.contract import ParkRow, Store, StoreError
from trio_agent.store.sqlite import SqliteStore, open_store

changed = msgspec.structs.replace
ROW = turn("t", owner="key_1", state="host_tool_wait", reason="tool_calls")


async def taken(store: Store) -> ParkRow:
    """A park that has been taken."""
    await store.park_turn(ROW, [call("t", 1)], park("t", "c"), [])
    assert await store.take_park("t", EPOCH)
    return park("t", "c")


async def test_a_park_that_is_put_back_can_be_taken_once_more(any_store: Store) -> None:
    """With its new snapshot, the calls made since, why the response failed, and the wait as it was."""
    old = await taken(any_store)
    await any_store.open_turn(ROW)
    new = changed(old, snapshot=b"newer")
    row = changed(ROW, reason="upstream_error", error={"code": "upstream_error"})
    await any_store.park_turn(row, [call("t", 2)], new, [])
    assert await any_store.find_parks("key_1", ["c"]) == [new]
    stored = await any_store.get_turn("t")
    assert stored is not None
    assert (stored.outcome, stored.reason, stored.error) == ("parked", "upstream_error", row.error)
    assert [made.number for made in await any_store.list_calls("t")] == [1, 2]
    assert await any_store.take_park("t", EPOCH) is True
    assert await any_store.take_park("t", EPOCH) is False


async def test_a_park_that_changed_since_the_look_is_not_taken(any_store: Store) -> None:
    """Who restored an older snapshot would forget what was spent since."""
    old = await taken(any_store)
    new = changed(old, snapshot=b"newer")
    await any_store.park_turn(ROW, [], new, [])
    assert await any_store.take_park("t", EPOCH, old.snapshot) is False
    assert await any_store.take_park("t", EPOCH, new.snapshot) is True


async def test_a_park_does_not_expire_while_it_is_taken(any_store: Store) -> None:
    """Its response may still complete the turn; put back after its time, it is abandoned."""
    old = await taken(any_store)
    assert await any_store.expire_parks(EPOCH + 900) == 0
    await any_store.park_turn(ROW, [], old, [])
    assert await any_store.take_park("t", EPOCH + 900) is False
    assert await any_store.expire_parks(EPOCH + 900) == 1
    row = await any_store.get_turn("t")
    assert row is not None
    assert (row.outcome, row.reason) == ("abandoned", "host_tool_timeout")


async def test_closing_a_turn_that_went_on_ends_its_park(any_store: Store) -> None:
    """Nothing is left to be taken, or put back by recovery."""
    await taken(any_store)
    await any_store.close_turn(changed(ROW, outcome="completed", reason="stop"), [])
    await any_store.sweep(EPOCH)
    assert await any_store.take_park("t", EPOCH) is False
    row = await any_store.get_turn("t")
    assert row is not None
    assert row.outcome == "completed"


@pytest.mark.parametrize("was_taken", [True, False])
async def test_no_row_of_a_closed_turns_park_is_left(sqlite_store: SqliteStore, was_taken: bool) -> None:
    """Its snapshot holds the whole conversation, so it goes with the turn and not only when it expires."""
    await (taken(sqlite_store) if was_taken else sqlite_store.park_turn(ROW, [], park("t", "c", "d"), []))

    def kept(db: sqlite3.Connection) -> list[int]:
        return [
            db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("parks", "park_calls")
        ]

    assert await sqlite_store._writer.submit(kept) == [1, 1 if was_taken else 2]
    await sqlite_store.close_turn(changed(ROW, outcome="cancelled", reason="cancelled"), [])
    assert await sqlite_store._writer.submit(kept) == [0, 0]


async def test_a_park_left_taken_at_the_end_is_put_back(open_any: Any, now: Now) -> None:
    """An orderly end that never learned what became of the response leaves the park to the next process."""
    async with open_any("one") as store:
        await taken(store)
    async with open_any("two") as store:
        row = await store.get_turn("t")
        assert (row.outcome, row.reason, row.ended_at) == ("parked", "crash", None)
        assert await store.take_park("t", now.at) is True


async def test_the_living_keep_what_they_took(open_any: Any, now: Now) -> None:
    """A process that starts, sweeps or ends puts back nothing of one that is alive."""
    async with open_any("one") as one:
        await taken(one)
        async with open_any("two") as two:
            await two.sweep(now.at)
            assert await two.take_park("t", now.at) is False
        row = await one.get_turn("t")
        assert row is not None
        assert row.outcome == "running"


@pytest.mark.parametrize("table", ["turns", "calls", "parks", "park_calls", "reasoning"])
async def test_putting_back_is_done_whole_or_not_at_all(sqlite_store: SqliteStore, table: str) -> None:
    """Whichever of the writes fails, the turn runs on as it was: same park, same row, no call."""
    old = await taken(sqlite_store)

    def break_(db: sqlite3.Connection) -> None:
        for what in ("INSERT", "UPDATE"):
            db.execute(
                f"CREATE TRIGGER no_{what} BEFORE {what} ON {table} BEGIN SELECT raise(ABORT, 'broken'); END"
            )

    def mend(db: sqlite3.Connection) -> None:
        for what in ("INSERT", "UPDATE"):
            db.execute(f"DROP TRIGGER no_{what}")

    new = changed(old, snapshot=b"newer")
    await sqlite_store._writer.submit(break_)
    with pytest.raises(StoreError):
        await sqlite_store.park_turn(ROW, [call("t", 2)], new, [reasoning("c")])
    row = await sqlite_store.get_turn("t")
    assert row is not None
    assert row.outcome == "running"
    assert [made.number for made in await sqlite_store.list_calls("t")] == [1]
    await sqlite_store._writer.submit(mend)
    await sqlite_store.park_turn(ROW, [call("t", 2)], old, [])
    assert await sqlite_store.find_parks("key_1", ["c"]) == [old]


@settings(max_examples=20, deadline=None)
@given(order=st.random_module(), takers=st.integers(2, 8))
def test_never_two_hold_a_park_at_once(
    tmp_path_factory: pytest.TempPathFactory, order: object, takers: int
) -> None:
    """However takers and those who put back interleave, over two stores: the snapshots are one chain."""
    database = tmp_path_factory.mktemp("held") / "store.db"

    async def main() -> None:
        holders = 0
        won = 0

        async def client(store: Store) -> None:
            nonlocal holders, won
            for _ in range(4):
                for found in await store.find_parks("key_1", ["c"]):
                    if not await store.take_park("t", EPOCH, found.snapshot):
                        continue
                    holders += 1
                    won += 1
                    assert holders == 1
                    await trio.lowlevel.checkpoint()
                    following = b"%d" % (int(found.snapshot) + 1)
                    holders -= 1
                    await store.park_turn(ROW, [], changed(found, snapshot=following), [])

        async with (
            open_store(database, instance_id="one", now=lambda: EPOCH) as one,
            open_store(database, instance_id="two", now=lambda: EPOCH) as two,
        ):
            await one.park_turn(ROW, [], park("t", "c", snapshot=b"0"), [])
            async with trio.open_nursery() as nursery:
                for number in range(takers):
                    nursery.start_soon(client, two if number % 2 else one)
            (last,) = await one.find_parks("key_1", ["c"])
        assert int(last.snapshot) == won > 0

    trio.run(main)
