"""Group commit: company, isolation, cancellation, and disks that are full or hang."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from store_blocks import Block
from store_samples import EPOCH, Now, call, full_turn, park, reasoning, turn

from trio_agent.private_files import FileLock
from trio_agent.store.contract import StoreError
from trio_agent.store.files import gate_path
from trio_agent.store.sqlite import SqliteStore, open_store
from trio_agent.store.writer import BATCH_MAX, QUEUE_MAX


async def together(store: SqliteStore, *work: Callable[[], Awaitable[object]]) -> int:
    """Run the calls so that they meet in one batch; how many transactions that took."""
    block = Block()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store._writer.submit, block)
        await block.inside()
        begun = store._writer.transactions
        for one in work:
            nursery.start_soon(one)
        await trio.testing.wait_all_tasks_blocked()
        block.let_go()
    return store._writer.transactions - begun - 1


async def test_a_hundred_writers_share_transactions(sqlite_store: SqliteStore) -> None:
    """What is queued while one commit runs goes into the next one, all of it."""
    begun = sqlite_store._writer.transactions
    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(sqlite_store.open_turn, turn(f"t{number}"))
    assert len(await sqlite_store.list_turns()) == 100
    assert sqlite_store._writer.transactions - begun <= 10


async def test_a_lone_writer_does_not_wait_for_company(sqlite_store: SqliteStore) -> None:
    """One operation after another is one transaction each."""
    begun = sqlite_store._writer.transactions
    for number in range(5):
        await sqlite_store.open_turn(turn(f"t{number}"))
    assert sqlite_store._writer.transactions - begun == 5


async def test_a_batch_has_an_upper_bound(sqlite_store: SqliteStore) -> None:
    """A full queue, with more callers waiting at its door, is worked off in bounded transactions."""
    count = QUEUE_MAX + 100
    done: list[int] = []

    async def write(number: int) -> None:
        await sqlite_store._writer.submit(lambda db: db.execute("SELECT 1"))
        done.append(number)

    transactions = await together(
        sqlite_store, *[lambda number=number: write(number) for number in range(count)]
    )
    assert sorted(done) == list(range(count))
    assert transactions >= -(-count // BATCH_MAX)


async def test_a_bad_operation_fails_alone(sqlite_store: SqliteStore) -> None:
    """Its neighbours in the same transaction are written; of itself nothing is."""
    failed: list[str] = []

    async def bad(name: str, **changes: object) -> None:
        with pytest.raises(StoreError, match="refused"):
            await sqlite_store.close_turn(full_turn(name), [call(name), call(name, 2, **changes)])
        failed.append(name)

    def good(name: str) -> Callable[[], Awaitable[object]]:
        return lambda: sqlite_store.close_turn(full_turn(name), [call(name)], [reasoning(name)])

    transactions = await together(
        sqlite_store,
        good("a"),
        lambda: bad("no-time", started_at=float("nan")),
        good("b"),
        lambda: bad("no-id", model=None),
        lambda: bad("too-large", attempt=1 << 80),
        lambda: bad("unprintable", provider="\ud800"),
        good("c"),
    )
    assert transactions == 1
    assert sorted(failed) == ["no-id", "no-time", "too-large", "unprintable"]
    assert sorted(row.id for row in await sqlite_store.list_turns()) == ["a", "b", "c"]


async def test_a_bug_in_an_operation_reaches_its_caller_only(sqlite_store: SqliteStore) -> None:
    """An error that is no matter of the store comes out as it is, and the writer lives."""

    def bug(db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM turns")
        raise ZeroDivisionError("mine")

    async def buggy() -> None:
        with pytest.raises(ZeroDivisionError, match="mine"):
            await sqlite_store._writer.submit(bug)

    await sqlite_store.open_turn(turn("a"))
    assert await together(sqlite_store, buggy, lambda: sqlite_store.open_turn(turn("b"))) == 1
    assert {row.id for row in await sqlite_store.list_turns()} == {"a", "b"}


async def test_a_lost_transaction_is_done_again_one_by_one(sqlite_store: SqliteStore) -> None:
    """When one operation costs the whole transaction, the others are still written, each once."""

    def lose(db: sqlite3.Connection) -> None:
        db.execute("ROLLBACK")
        raise sqlite3.OperationalError("lost")

    async def loser() -> None:
        with pytest.raises(StoreError, match="lost"):
            await sqlite_store._writer.submit(lose)

    await together(
        sqlite_store,
        lambda: sqlite_store.close_turn(full_turn("a"), [call("a")]),
        loser,
        lambda: sqlite_store.close_turn(full_turn("b"), [call("b")]),
    )
    assert {row.id for row in await sqlite_store.list_turns()} == {"a", "b"}
    assert await sqlite_store.list_calls("a") == [call("a")]


async def test_a_full_disk_is_an_error_and_passes(sqlite_store: SqliteStore) -> None:
    """What does not fit is refused whole, what fits beside it is written, and later there is room again."""

    def limit(pages: int) -> Callable[[sqlite3.Connection], object]:
        def set_limit(db: sqlite3.Connection) -> None:
            (used,) = db.execute("PRAGMA page_count").fetchone()
            db.execute(f"PRAGMA max_page_count = {used + pages}")

        return set_limit

    big = park("big", "c", snapshot=bytes(1_000_000))

    async def too_big() -> None:
        with pytest.raises(StoreError, match="disk of the store is full"):
            await sqlite_store.park_turn(turn("big"), [call("big")], big, [reasoning("c")])

    await sqlite_store._writer.submit(limit(8))
    await together(sqlite_store, too_big, lambda: sqlite_store.open_turn(turn("small")))
    assert [row.id for row in await sqlite_store.list_turns()] == ["small"]
    assert await sqlite_store.find_reasoning("key_1", ["c"]) == []
    await sqlite_store._writer.submit(limit(1000))
    await sqlite_store.park_turn(turn("big"), [call("big")], big, [reasoning("c")])
    assert await sqlite_store.find_parks("key_1", ["c"]) == [big]


async def test_reads_do_not_wait_for_a_write_transaction(sqlite_store: SqliteStore) -> None:
    """While a transaction is open and has written, readers see what was committed before it."""
    await sqlite_store.open_turn(turn("before"))
    block = Block()

    def write_and_hold(db: sqlite3.Connection) -> None:
        db.execute("UPDATE turns SET outcome = 'failed'")
        block(db)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sqlite_store._writer.submit, write_and_hold)
        await block.inside()
        assert await sqlite_store.get_turn("before") == turn("before")
        assert await sqlite_store.find_parks("key_1", ["c"]) == []
        block.let_go()
    row = await sqlite_store.get_turn("before")
    assert row is not None
    assert row.outcome == "failed"


async def test_a_foreign_lock_is_named(database: Path, now: Now) -> None:
    """Another program that holds a transaction open makes writes fail with a message about it."""
    async with open_store(database, instance_id="one", now=now, write_timeout=0.4) as store:
        other = sqlite3.connect(database, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked by another program"):
            await store.open_turn(turn("t"))
        other.execute("ROLLBACK")
        other.close()
        await store.open_turn(turn("t"))


async def test_a_caller_that_leaves_the_queue_has_written_nothing(sqlite_store: SqliteStore) -> None:
    """Cancelled before its turn came, an operation never runs; the others in the queue do."""
    block = Block()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sqlite_store._writer.submit, block)
        await block.inside()
        nursery.start_soon(sqlite_store.open_turn, turn("stays"))
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as leaving:
                leaving.start_soon(sqlite_store.open_turn, turn("leaves"))
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
        block.let_go()
    assert [row.id for row in await sqlite_store.list_turns()] == ["stays"]


async def test_a_caller_that_is_cancelled_too_late_gets_its_result(sqlite_store: SqliteStore) -> None:
    """Work that has begun is done; the caller learns so and is cancelled at its next checkpoint."""
    block = Block()
    results: list[str] = []

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def caller() -> None:
                results.append(await sqlite_store._writer.submit(block))
                await trio.lowlevel.checkpoint()
                results.append("cancellation got lost")

            nursery.start_soon(caller)
            await block.inside()
            scope.cancel()
            block.let_go()
    assert results == ["let go"]
    assert scope.cancelled_caught


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 100)), min_size=1, max_size=25))
async def test_a_cancelled_write_is_done_whole_or_not_at_all(steps: list[tuple[int, int]]) -> None:
    """Callers leave after any number of steps: done means all rows, cancelled none; the writer lives."""
    outcomes: dict[str, str] = {}

    async def pause(checkpoints: int) -> None:
        for _ in range(checkpoints):
            await trio.lowlevel.checkpoint()

    async def writer(store: SqliteStore, name: str, before: int, patience: int) -> None:
        async def leave(scope: trio.CancelScope) -> None:
            await pause(patience)
            scope.cancel()

        outcomes[name] = "cancelled"
        await pause(before)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave, nursery.cancel_scope)
            await store.park_turn(
                turn(name), [call(name), call(name, 2)], park(name, name), [reasoning(name)]
            )
            outcomes[name] = "done"
            nursery.cancel_scope.cancel()

    with tempfile.TemporaryDirectory() as folder:
        async with open_store(Path(folder) / "store.db", instance_id="one", now=Now()) as store:
            async with trio.open_nursery() as nursery:
                for number, (before, patience) in enumerate(steps):
                    nursery.start_soon(writer, store, f"t{number}", before, patience)
            await store.open_turn(turn("after"))
            for name, outcome in outcomes.items():
                found = [
                    await store.get_turn(name) is not None,
                    len(await store.list_calls(name)),
                    len(await store.find_parks("key_1", [name])),
                    len(await store.find_reasoning("key_1", [name])),
                ]
                assert found == ([True, 2, 1, 1] if outcome == "done" else [False, 0, 0, 0])


async def test_a_disk_that_hangs_is_reported_and_no_second_writer_begins(
    database: Path, now: Now, mock_clock: trio.testing.MockClock
) -> None:
    """Who was being written is told that it is not known; who waited is told that nothing was written.

    Later writes wait for the thread that hangs, and go on when it comes back.
    """
    errors: dict[str, str] = {}
    block = Block()

    async with open_store(database, instance_id="one", now=now) as store:

        async def write(name: str, work: Callable[[], Awaitable[object]]) -> None:
            with pytest.raises(StoreError) as failure:
                await work()
            errors[name] = str(failure.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, "writing", lambda: store._writer.submit(block))
            await block.inside()
            nursery.start_soon(write, "queued", lambda: store.open_turn(turn("queued")))
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(10.5)
        assert "not known" in errors["writing"]
        assert "Nothing was written" in errors["queued"]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, "while it hangs", lambda: store.open_turn(turn("while it hangs")))
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(10.5)
        assert "Nothing was written" in errors["while it hangs"]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.open_turn, turn("later"))
            await trio.testing.wait_all_tasks_blocked()
            assert await store.list_turns() == []
            block.let_go()
        assert [row.id for row in await store.list_turns()] == ["later"]


@pytest.mark.parametrize(
    ("begin", "left"),
    [
        ("open", ("abandoned", "store_timeout")),
        ("take", ("parked", "tool_calls")),
        ("go on", ("running", None)),
    ],
)
async def test_a_turn_that_nobody_knows_to_run_is_closed(
    database: Path, now: Now, mock_clock: trio.testing.MockClock, begin: str, left: tuple[str, str | None]
) -> None:
    """A turn whose opener was told that the disk hangs is not left `running` by a late commit.

    One that goes on is left to its owner, who puts the park back next.
    """
    first, second = Block(), Block()
    async with open_store(database, instance_id="one", now=now) as store:
        if begin != "open":
            await store.park_turn(turn("t"), [], park("t", "c"), [])
        if begin == "go on":
            assert await store.take_park("t", EPOCH)

        async def open_it() -> None:
            with pytest.raises(StoreError, match="not known"):
                await (store.take_park("t", EPOCH) if begin == "take" else store.open_turn(turn("t")))

        async def hold(block: Block, error: bool) -> None:
            if error:
                with pytest.raises(StoreError, match="not known"):
                    await store._writer.submit(block)
            else:
                await store._writer.submit(block)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, first, False)
            await first.inside()
            nursery.start_soon(hold, second, True)
            nursery.start_soon(open_it)
            await trio.testing.wait_all_tasks_blocked()
            first.let_go()
            await second.inside()
            mock_clock.jump(10.5)
        second.let_go()
        await store.open_turn(turn("after"))
        row = await store.get_turn("t")
        assert row is not None
        assert (row.outcome, row.reason) == left
        assert await store.take_park("t", EPOCH) is (begin == "take")


async def test_closing_does_not_wait_for_ever(database: Path, now: Now) -> None:
    """A store whose disk hangs is left behind in bounded time; its thread cleans up if it ever returns."""
    block = Block()
    with trio.fail_after(5):
        async with open_store(database, instance_id="one", now=now, write_timeout=0.1) as store:
            await store.open_turn(turn("t"))
            with pytest.raises(StoreError, match="not known"):
                await store._writer.submit(block)
    block.let_go()
    gate = FileLock(gate_path(database))
    assert await trio.to_thread.run_sync(gate.acquire, 5)
    gate.close()
    async with open_store(database, instance_id="one", now=now) as store:
        row = await store.get_turn("t")
        assert row is not None
        assert (row.outcome, row.reason) == ("abandoned", "crash")


async def test_a_reader_that_hangs_is_reported(
    database: Path, now: Now, mock_clock: trio.testing.MockClock
) -> None:
    """A query that the disk does not answer costs its caller the time limit, and the pool goes on."""
    block = Block()
    async with open_store(database, instance_id="one", now=now) as store:

        async def read() -> None:
            with pytest.raises(StoreError, match="not answered within 10 s"):
                await store._readers.read(block)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await block.inside()
            mock_clock.jump(10.5)
        assert await store.get_turn("t") is None
        block.let_go()


async def test_the_end_waits_for_what_is_queued(database: Path, now: Now) -> None:
    """Everything that was accepted before the store closes is on the disk after it."""
    block = Block()
    async with trio.open_nursery() as nursery, open_store(database, instance_id="one", now=now) as store:
        nursery.start_soon(store._writer.submit, block)
        await block.inside()
        for number in range(300):
            nursery.start_soon(store.close_turn, full_turn(f"t{number}"), [])
        await trio.testing.wait_all_tasks_blocked()
        block.let_go()
    async with open_store(database, instance_id="two", now=now) as store:
        assert len(await store.list_turns(limit=1000)) == 300
