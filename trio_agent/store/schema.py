"""Connections to the database and the migrations that bring its schema up to this program's."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final
from urllib.parse import quote

from trio_agent.store.contract import StoreError

APPLICATION_ID: Final = 0x74616774
"""Marks a database file as ours (SQLite's `application_id`)."""

_WAL_SIZE_LIMIT_BYTES: Final = 64 * 1024 * 1024
_BUSY_LIMIT_S: Final = 5.0


def load_migrations() -> list[str]:
    """The SQL of each migration, in order: number 1 first, none missing."""
    folder = files("trio_agent.store") / "migrations"
    found = sorted(
        (item.name, item.read_text("utf-8")) for item in folder.iterdir() if item.name.endswith(".sql")
    )
    numbers = [int(name.partition("_")[0]) for name, _ in found]
    if numbers != list(range(1, len(found) + 1)):
        raise StoreError(
            f"The installation is incomplete: the store's migrations are {numbers}. Install it again."
        )
    return [sql for _, sql in found]


def connect_writer(database: Path, busy_timeout: float) -> sqlite3.Connection:
    """The one connection that writes. Transactions are explicit, every commit is synced to the disk.

    The connection moves between worker threads, one at a time. Raises sqlite3.Error and StoreError.
    """
    connection = _connect(database, busy_timeout)
    try:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreError(
                "The file system of the store cannot hold a SQLite database in WAL mode. "
                "Put the store on a local disk, not on a network share."
            )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_SIZE_LIMIT_BYTES}")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(database: Path, busy_timeout: float) -> sqlite3.Connection:
    """A connection that cannot write; in WAL mode it neither waits for the writer nor delays it."""
    connection = _connect(database, busy_timeout)
    try:
        connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_onlooker(database: Path, busy_timeout: float) -> sqlite3.Connection:
    """A connection for whoever is not the store's server: it makes no file, and changes none.

    Raises sqlite3.Error.
    """
    uri = f"file:{quote(str(database))}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=busy_timeout, isolation_level=None)


def _connect(database: Path, busy_timeout: float) -> sqlite3.Connection:
    return sqlite3.connect(
        database, isolation_level=None, check_same_thread=False, timeout=min(busy_timeout, _BUSY_LIMIT_S)
    )


def check_ours(connection: sqlite3.Connection, newest: int) -> int:
    """The schema version of the database, 0 for an empty one.

    Raises StoreError for another program's database and for a schema that is newer than `newest`.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (version or application or objects):
        raise StoreError("The file is the database of another program. Choose another path for the store.")
    if version > newest:
        raise StoreError(
            f"The store was written by a newer trio-agent: its schema is {version}, this program knows "
            f"{newest} at most. Upgrade trio-agent, or use another TRIO_AGENT_HOME."
        )
    return int(version)


def migrate(connection: sqlite3.Connection, migrations: Sequence[str]) -> None:
    """Apply the migrations that the database does not have yet, each in a transaction of its own.

    `user_version` counts them and changes with them, so a crash in between leaves a valid older
    schema. Call it behind the gate. Raises sqlite3.Error and StoreError.
    """
    version = check_ours(connection, len(migrations))
    for number, sql in enumerate(migrations[version:], start=version + 1):
        try:
            connection.executescript(f"BEGIN IMMEDIATE;\n{sql}\nPRAGMA user_version = {number};\nCOMMIT;")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
