"""Several processes on one SQLite store, some of which die."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from store_processes import process, ready
from store_samples import EPOCH, Now, call, full_turn, park, turn

from trio_agent.private_files import FileLock
from trio_agent.store.contract import StoreError
from trio_agent.store.files import gate_path, instance_ids
from trio_agent.store.sqlite import SqliteStore, open_store


def check(database: Path) -> str:
    with closing(sqlite3.connect(database)) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


async def outcomes(store: SqliteStore) -> dict[str, tuple[str, str | None, float | None]]:
    return {row.id: (row.outcome, row.reason, row.ended_at) for row in await store.list_turns()}


AFTER_THE_CRASH = {
    "running": ("abandoned", "crash", EPOCH + 60),
    "resumed": ("parked", "crash", None),
    "parked": ("parked", None, None),
    "done": ("completed", "stop", EPOCH + 2.5),
}


async def test_a_killed_process_leaves_no_turn_open(database: Path, now: Now) -> None:
    """After `kill -9` the next start closes what ran; parks can be taken, those of resumed turns too."""
    async with ready("midturn", database) as child:
        await child.kill()
    now.at = EPOCH + 60
    async with open_store(database, instance_id="next", now=now) as store:
        assert store.recovered == 1
        assert await outcomes(store) == AFTER_THE_CRASH
        assert instance_ids(database) == {"next"}
        found = await store.find_parks("key_1", ["call-parked", "call-resumed"])
        assert [park.turn_id for park in found] == ["resumed", "parked"]
        for park in found:
            assert await store.take_park(park.turn_id, now.at, park.snapshot) is True
            assert await store.take_park(park.turn_id, now.at) is False


async def test_the_living_clean_up_after_the_dead(
    sqlite_store: SqliteStore, database: Path, now: Now
) -> None:
    """A process that goes on serving closes at its sweep what another one left, and not before it died."""
    await sqlite_store.open_turn(turn("mine"))
    async with ready("midturn", database) as child:
        await sqlite_store.sweep(EPOCH + 30)
        before = await outcomes(sqlite_store)
        assert before["running"][0] == before["resumed"][0] == "running"
        await child.kill()
    await sqlite_store.sweep(EPOCH + 60)
    assert await outcomes(sqlite_store) == AFTER_THE_CRASH | {"mine": ("running", None, None)}


async def test_a_kill_in_the_middle_of_writing_tears_nothing(database: Path, now: Now) -> None:
    """Whatever was being committed at the kill, every turn is whole: open, or closed with its calls."""
    async with ready("storm", database) as child:
        await child.kill()
    async with open_store(database, instance_id="next", now=now) as store:
        rows = await store.list_turns(limit=100_000)
        assert len(rows) > 20
        assert {row.outcome for row in rows} <= {"completed", "abandoned"}
        for row in rows[:300]:
            assert len(await store.list_calls(row.id)) == (2 if row.outcome == "completed" else 0)
    assert check(database) == "ok"


async def test_two_processes_write_one_database(sqlite_store: SqliteStore, database: Path) -> None:
    """Writers of two processes take turns; all rows of both arrive and the database is sound."""
    async with ready("write", database) as child:
        child.go()
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(
                    sqlite_store.close_turn, full_turn(f"parent-{number}"), [call(f"parent-{number}")]
                )
        assert await child.ended() == 0
    rows = await sqlite_store.list_turns(limit=1000)
    assert sum(row.id.startswith("child-") for row in rows) == 100
    assert sum(row.id.startswith("parent-") for row in rows) == 100
    assert check(database) == "ok"


async def test_one_process_takes_the_park(sqlite_store: SqliteStore, database: Path) -> None:
    """Takers race over two processes; one of them all gets the park."""
    await sqlite_store.park_turn(turn("t"), [], park("t", "c"), [])
    taken: list[bool] = []

    async def take() -> None:
        taken.append(await sqlite_store.take_park("t", EPOCH))

    async with ready("take", database) as child:
        child.go()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(take)
        assert sum(taken) + int(await child.line()) == 1
        child.go()


async def test_a_writer_waits_for_the_other_process(sqlite_store: SqliteStore, database: Path) -> None:
    """While another process holds the gate nothing is written here; then the write goes through."""
    gate = FileLock(gate_path(database))
    assert gate.acquire(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sqlite_store.open_turn, turn("t"))
        await trio.testing.wait_all_tasks_blocked()
        assert await sqlite_store.get_turn("t") is None
        gate.close()
    assert await sqlite_store.get_turn("t") is not None


async def test_a_process_that_never_lets_go_is_named(database: Path, now: Now) -> None:
    """A stopped process that holds the gate costs others a clear error, not their life."""
    async with open_store(database, instance_id="one", now=now, write_timeout=0.2) as store:
        gate = FileLock(gate_path(database))
        assert gate.acquire(0)
        with pytest.raises(
            StoreError, match=r"Another trio-agent process has kept the store locked for 0\.1 s"
        ):
            await store.open_turn(turn("t"))
        gate.close()
        assert await store.get_turn("t") is None
        await store.open_turn(turn("t"))


async def test_a_size_limit_is_an_error_and_no_more(database: Path) -> None:
    """A write that fails in the file system is refused whole; the store works on when there is room again."""
    with process("size_limit", database) as child:
        assert (await child.line()).startswith("refused: The disk of the store failed")
        assert await child.line() == "running"
        assert await child.line() == "completed"
        assert await child.ended() == 0
    assert check(database) == "ok"


def set_mode(path: Path, mode: int) -> None:
    path.chmod(mode)


@contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that another user can reach, which pytest's own folders are not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder
        folder.chmod(0o700)


async def test_a_read_only_folder_is_refused() -> None:
    """A store that cannot be written is not opened, and the message says what to change."""
    with public_folder() as folder:
        set_mode(folder, 0o555)
        with process("as_somebody", folder / "store.db") as child:
            message = await child.line()
    assert message.startswith(
        f"error: Cannot open the store {folder / 'store.db'}: The store may not be written"
    )
    assert "write access to the file and to the folder" in message


async def test_a_read_only_database_is_refused(now: Now) -> None:
    """A database file that belongs to somebody else is named as the reason."""
    with public_folder() as folder:
        database = folder / "store.db"
        async with open_store(database, instance_id="one", now=now):
            pass
        set_mode(database, 0o444)
        set_mode(gate_path(database), 0o666)
        with process("as_somebody", database) as child:
            message = await child.line()
    assert message.startswith(f"error: Cannot open the store {database}: The store may not be written")
