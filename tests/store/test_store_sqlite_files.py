"""The files of a SQLite store: rights, schema versions, and files that are no store."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from store_samples import EPOCH, Now, call, full_turn, park, turn

from trio_agent.private_files import FileLock
from trio_agent.store.contract import StoreError
from trio_agent.store.schema import APPLICATION_ID, connect_writer, load_migrations, migrate
from trio_agent.store.sqlite import SqliteStore, open_store


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def modes_in(folder: Path) -> dict[str, int]:
    return {path.name: mode(path) for path in folder.iterdir()}


async def opening_fails(path: Path, now: Now) -> str:
    with pytest.raises(StoreError) as failure:
        async with open_store(path, instance_id="one", now=now):
            pytest.fail("opened")
    assert str(path) in str(failure.value)
    return str(failure.value)


def hand_made(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.executescript(statement)


async def test_nobody_else_may_read_the_store(database: Path, now: Now) -> None:
    """Folder 0700 and every file 0600, also when the process would give rights away."""
    mask = os.umask(0)
    try:
        async with open_store(database, instance_id="one", now=now) as store:
            await store.open_turn(turn("t"))
            modes = modes_in(database.parent)
    finally:
        os.umask(mask)
    assert mode(database.parent) == 0o700
    assert modes == dict.fromkeys(
        ["store.db", "store.db-wal", "store.db-shm", "store.db.lock", "store.db.instance-one.lock"], 0o600
    )


async def test_rights_of_an_existing_database_are_taken_back(tmp_path: Path, now: Now) -> None:
    """A database that was restored readable for all is closed to others before it is opened."""
    database = tmp_path / "store.db"
    async with open_store(database, instance_id="one", now=now):
        pass
    database.chmod(0o644)
    async with open_store(database, instance_id="one", now=now) as store:
        await store.open_turn(turn("t"))
        assert set(modes_in(tmp_path).values()) == {0o600}


async def test_a_link_leads_to_the_same_store(database: Path, tmp_path: Path, now: Now) -> None:
    """Two paths to one database share the locks, so neither sees the other as dead."""
    async with open_store(database, instance_id="one", now=now) as one:
        await one.open_turn(turn("t"))
        (tmp_path / "link.db").symlink_to(database)
        async with open_store(tmp_path / "link.db", instance_id="two", now=now) as two:
            assert two.recovered == 0
            row = await two.get_turn("t")
            assert row is not None
            assert row.outcome == "running"


async def test_an_orderly_end_leaves_one_file_and_its_lock(database: Path, now: Now) -> None:
    """The WAL is folded into the database and the instance is gone without a trace."""
    async with open_store(database, instance_id="one", now=now) as store:
        await store.open_turn(turn("t"))
    assert sorted(modes_in(database.parent)) == ["store.db", "store.db.lock"]


@pytest.mark.parametrize("instance_id", ["", "a/b", "..\0", "ä", "x" * 101])
async def test_an_instance_id_is_part_of_a_file_name(database: Path, now: Now, instance_id: str) -> None:
    """Ids that could lead elsewhere are refused before anything is made."""
    with pytest.raises(ValueError, match="instance_id"):
        async with open_store(database, instance_id=instance_id, now=now):
            pytest.fail("opened")
    assert not database.parent.exists()


async def test_a_newer_schema_is_refused(database: Path, now: Now) -> None:
    """An older program keeps its hands off what a newer one wrote."""
    async with open_store(database, instance_id="one", now=now):
        pass
    hand_made(database, "PRAGMA user_version = 99")
    message = await opening_fails(database, now)
    assert "newer trio-agent: its schema is 99" in message
    assert "Upgrade trio-agent" in message


@pytest.mark.parametrize(
    "statements",
    [["CREATE TABLE notes (text)"], ["PRAGMA user_version = 1"], ["PRAGMA application_id = 7"]],
    ids=["tables", "version", "application"],
)
async def test_another_programs_database_is_left_alone(
    tmp_path: Path, now: Now, statements: list[str]
) -> None:
    """A SQLite file that is not ours is neither migrated nor changed."""
    database = tmp_path / "store.db"
    hand_made(database, *statements)
    assert "another program" in await opening_fails(database, now)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'turns'").fetchone() == (
            0,
        )


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path, now: Now) -> None:
    """The file stays as it was, and the message says what to do."""
    database = tmp_path / "store.db"
    database.write_bytes(b"not a database, but somebody's file\n" * 200)
    assert "restore a backup" in await opening_fails(database, now)
    assert database.read_bytes() == b"not a database, but somebody's file\n" * 200


async def test_a_damaged_database_is_an_error(tmp_path: Path, now: Now) -> None:
    """Pages that were overwritten are reported by whoever meets them, not read as something else."""
    database = tmp_path / "store.db"
    async with open_store(database, instance_id="one", now=now) as store:
        for number in range(50):
            await store.close_turn(full_turn(f"t{number}"), [call(f"t{number}")])
    size = database.stat().st_size
    with database.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))
    assert "damaged" in await opening_fails(database, now)


async def test_a_folder_in_the_databases_place_is_refused(tmp_path: Path, now: Now) -> None:
    """What is not a regular file is not opened."""
    (tmp_path / "store.db").mkdir()
    assert "not a regular file" in await opening_fails(tmp_path / "store.db", now)


async def test_a_file_in_the_folders_place_is_refused(tmp_path: Path, now: Now) -> None:
    """A home that is a file is an error of the store, not a crash."""
    (tmp_path / "home").write_text("")
    await opening_fails(tmp_path / "home" / "store.db", now)


async def test_a_failed_opening_leaves_no_lock(database: Path, now: Now) -> None:
    """After the cause is mended, the same process can open the store."""
    async with open_store(database, instance_id="one", now=now):
        pass
    hand_made(database, "PRAGMA user_version = 99")
    await opening_fails(database, now)
    hand_made(database, f"PRAGMA user_version = {len(load_migrations())}")
    async with open_store(database, instance_id="one", now=now) as store:
        assert await store.list_turns() == []


async def test_a_version_1_database_is_brought_up_to_date(tmp_path: Path, now: Now) -> None:
    """A file that the first release made, with a turn that it left running, opens with all it holds."""
    database = tmp_path / "store.db"
    hand_made(
        database,
        load_migrations()[0],
        "PRAGMA user_version = 1",
        "INSERT INTO instances VALUES ('first', 1.0)",
        "INSERT INTO turns (id, face, model, created_at, outcome, owner, state, states, tools, usage,"
        " usage_source, notes, instance) VALUES ('t', 'chat', 'm', 1.0, 'running', '', 'STREAMING', '[]',"
        " '[]', '{}', 'unknown', '[]', 'first')",
    )
    async with open_store(database, instance_id="one", now=now) as store:
        row = await store.get_turn("t")
        assert row == turn(
            "t",
            model="m",
            created_at=1.0,
            state="STREAMING",
            outcome="abandoned",
            reason="crash",
            ended_at=EPOCH,
        )
        await store.park_turn(turn("t2"), [], park("t2", "c"), [])
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(load_migrations()),)


MIGRATIONS = [
    f"PRAGMA application_id = {APPLICATION_ID}; CREATE TABLE a (x);",
    "ALTER TABLE a ADD COLUMN y DEFAULT 7; INSERT INTO a (x) VALUES (1);",
    "CREATE TABLE b AS SELECT x + y AS z FROM a;",
]


def test_migrations_go_on_where_the_database_stands(tmp_path: Path) -> None:
    """Each step is applied once, in order, whatever the version to begin with."""
    for begin in range(4):
        with closing(connect_writer(tmp_path / f"{begin}.db", 1)) as connection:
            migrate(connection, MIGRATIONS[:begin])
            migrate(connection, MIGRATIONS)
            migrate(connection, MIGRATIONS)
            assert connection.execute("SELECT z FROM b").fetchall() == [(8,)]
            assert connection.execute("PRAGMA user_version").fetchone() == (3,)


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    """The steps before it stand, its own beginning is rolled back, and a better one can follow."""
    broken = [*MIGRATIONS[:2], "CREATE TABLE b (z); INSERT INTO nowhere VALUES (1);"]
    with closing(connect_writer(tmp_path / "store.db", 1)) as connection:
        with pytest.raises(sqlite3.OperationalError, match="nowhere"):
            migrate(connection, broken)
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("a",)]
        migrate(connection, MIGRATIONS)
        assert connection.execute("SELECT z FROM b").fetchall() == [(8,)]


async def test_commits_are_synced(sqlite_store: SqliteStore) -> None:
    """The settings that durability hangs on are in force on the connection that writes."""

    def settings(db: sqlite3.Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [db.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert await sqlite_store._writer.submit(settings) == ["wal", 2, 1]


async def test_readers_cannot_write(sqlite_store: SqliteStore) -> None:
    """A query that would change something is refused by SQLite itself."""
    with pytest.raises(StoreError, match="read-only"):
        await sqlite_store._readers.read(lambda db: db.execute("DELETE FROM turns"))


def test_a_lock_whose_file_was_deleted_is_taken_anew(tmp_path: Path) -> None:
    """Whoever locks a deleted file has locked nothing that others can see, so it tries again."""
    path = tmp_path / "lock"
    first, second = FileLock(path), FileLock(path)
    assert first.acquire(0)
    assert not second.acquire(0)
    first.remove()
    assert second.acquire(0)
    third = FileLock(path)
    assert not third.acquire(0)
    for lock in (first, second, third):
        lock.close()


def test_migrations_are_in_the_package() -> None:
    """The SQL files are found the way that an installed package finds them."""
    assert all("CREATE TABLE" in sql for sql in load_migrations()[:1])


async def test_the_wal_does_not_grow_without_end(sqlite_store: SqliteStore, database: Path) -> None:
    """Commits make checkpoints, so that readers and restarts stay quick."""
    for number in range(40):
        await sqlite_store.park_turn(
            turn(f"t{number}"), [], park(f"t{number}", "c", snapshot=bytes(500_000)), []
        )
    assert database.with_name("store.db-wal").stat().st_size < 10_000_000
