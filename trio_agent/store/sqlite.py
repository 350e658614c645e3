"""The embedded store: one SQLite database in WAL mode, written by one task, read beside it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import trio

from trio_agent.private_files import make_private_folder
from trio_agent.store import forgetting
from trio_agent.store.contract import ObserveStore, Store, StoreError
from trio_agent.store.failures import explain
from trio_agent.store.files import Gate, gate_path, make_private_database
from trio_agent.store.instance import Instance
from trio_agent.store.limits import KEYS_KEPT_S, Limits
from trio_agent.store.readers import Readers
from trio_agent.store.schema import connect_reader, connect_writer, load_migrations, migrate
from trio_agent.store.sqlite_answers import SqliteAnswers
from trio_agent.store.sqlite_audit import SqliteAudit
from trio_agent.store.sqlite_conversations import SqliteConversations
from trio_agent.store.sqlite_logs import SqliteLogs
from trio_agent.store.sqlite_transcripts import SqliteTranscripts
from trio_agent.store.sqlite_turns import SqliteTurns
from trio_agent.store.writer import Writer

REASONING_KEPT_S: Final = 30 * 24 * 3600.0
"""Reasoning is kept this long, in seconds; conversations older than that lose it."""

_READERS: Final = 2
# The conditions are those of the indexes: nothing is read but their ends.
_LAST_USE: Final = """
    SELECT max(
        coalesce((SELECT max(used_at) FROM answers WHERE status NOT IN ('queued', 'in_progress')), 0),
        coalesce((SELECT max(used_at) FROM conversations WHERE writer IS NULL), 0),
        coalesce((SELECT max(used_at) FROM sessions), 0)
    )
"""
_SMALL_ROWS: Final = 200
_LARGE_ROWS: Final = 20
"""So many rows go in one transaction of a sweep; those with megabytes in them are fewer."""


class SqliteStore(
    SqliteTurns, SqliteAnswers, SqliteLogs, SqliteConversations, SqliteTranscripts, SqliteAudit, Store
):
    """A store in one SQLite database. Made by `open_store`.

    A write is on the disk when its method returns. `Cancelled` out of a writing method means that
    nothing was written; see `Writer.submit`. Every method raises StoreError.
    """

    def __init__(
        self,
        writer: Writer,
        readers: Readers,
        instance: Instance,
        now: Callable[[], float],
        limits: Limits,
        recovered: int,
        last_use: float,
    ) -> None:
        super().__init__(writer, readers, instance, now, limits, last_use)
        self.recovered = recovered
        """How many turns of crashed processes were closed as `abandoned` when the store was opened."""

    async def sweep(self, now: float) -> None:
        """Hourly housekeeping: forget what is past its time, and close what processes left that died since.

        Deletes in small transactions, so that turns don't wait behind it.
        """
        await self._writer.submit(lambda db: self._instance.recover(db, now))
        limits = self._limits
        for forget, before, at_once in (
            (forgetting.forget_old_reasoning, now - REASONING_KEPT_S, _SMALL_ROWS),
            (forgetting.forget_old_keys, now - KEYS_KEPT_S, _SMALL_ROWS),
            (forgetting.forget_unused_answers, now - limits.responses, _LARGE_ROWS),
            (forgetting.forget_unused_conversations, now - limits.responses, _LARGE_ROWS),
            (forgetting.forget_old_logs, now - limits.events, _LARGE_ROWS),
            (forgetting.forget_unused_sessions, now - limits.sessions, _LARGE_ROWS),
        ):
            work = partial(forget, before=before, limit=at_once)
            while await self._writer.submit(work) == at_once:
                pass
        for bound in self._bounds.all:
            while await self._writer.submit(partial(bound.enforce, limit=_LARGE_ROWS)):
                pass


class _Opened:
    """What `open_store` has opened in the worker thread."""

    def __init__(self, path: Path, instance_id: str, now: float, time_limit: float) -> None:
        """Open everything or nothing. Raises StoreError, sqlite3.Error, OSError and ValueError."""
        with ExitStack() as undo:
            database = path.resolve()
            self.instance = Instance(database, instance_id)
            make_private_folder(database.parent)
            self.gate = Gate(gate_path(database), time_limit / 2)
            undo.callback(self.gate.close)
            with self.gate.held():
                make_private_database(database)
                self.connection = connect_writer(database, time_limit / 4)
                undo.callback(self.connection.close)
                migrate(self.connection, load_migrations())
                self.recovered = self.instance.join(self.connection, now)
                undo.callback(self.instance.drop)
                (self.last_use,) = self.connection.execute(_LAST_USE).fetchone()
                self.read_connections: list[sqlite3.Connection] = []
                for _ in range(_READERS):
                    self.read_connections.append(connect_reader(database, time_limit / 4))
                    undo.callback(self.read_connections[-1].close)
            undo.pop_all()

    def close(self, readers: Readers, now: float) -> None:
        """Close everything, the writing connection last: whoever closes last makes a checkpoint."""
        with ExitStack() as stack:
            stack.callback(self.gate.close)
            stack.callback(self.instance.drop)
            stack.callback(self.connection.close)
            readers.close()
            try:
                with self.gate.held():
                    self.instance.leave(self.connection, now)
                    self.connection.close()
            except (sqlite3.Error, OSError, StoreError):
                pass  # Nothing more can be written; the next process to open the store cleans up.


@asynccontextmanager
async def open_store(
    path: Path,
    *,
    instance_id: str,
    now: Callable[[], float],
    write_timeout: float = 10.0,
    limits: Limits | None = None,
    observe: ObserveStore | None = None,
) -> AsyncIterator[SqliteStore]:
    """The store in the SQLite database `path`, made if it is missing, its folder too.

    Several processes may have one store open. Turns that crashed processes left running are closed as
    `abandoned` first. What the block raises comes out as it is, not in an exception group.

    Args:
        path: of the database file; readable by its owner alone. The folder is made with mode 0700.
        instance_id: unique to this opening, of letters, digits and `_ . -`.
        now: the time in seconds since the epoch. Called in Trio's thread only.
        write_timeout: seconds after which a write or a read that the disk does not answer fails.
        limits: what is kept beside turns, how long and how much of it.
        observe: is told of each operation.

    Raises:
        StoreError: the store cannot be opened; the message names the path and says what to do.
        ValueError: `instance_id` cannot be part of a file name.
    """
    try:
        opened = await trio.to_thread.run_sync(
            _Opened, path, instance_id, now(), write_timeout, limiter=trio.CapacityLimiter(1)
        )
    except (StoreError, sqlite3.Error, OSError) as error:
        raise StoreError(f"Cannot open the store {path}: {explain(error)}") from error
    readers = Readers(opened.read_connections, read_timeout=write_timeout, observe=observe)
    writer = Writer(
        opened.connection,
        opened.gate,
        write_timeout=write_timeout,
        farewell=lambda at: opened.close(readers, at),
        observe=observe,
    )
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            try:
                yield SqliteStore(
                    writer,
                    readers,
                    opened.instance,
                    now,
                    limits or Limits(),
                    opened.recovered,
                    opened.last_use,
                )
            except BaseException as error:
                failure = error
                raise
            finally:
                await writer.aclose(now())  # noqa: ASYNC102 - it has its own limit and shield
    except BaseExceptionGroup as group:
        if failure is None or group.exceptions != (failure,):
            raise
    if failure is not None:
        raise failure
