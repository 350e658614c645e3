"""What all parts of the SQLite store stand on: its writer, its readers, its instance."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal, TypeVar

import trio

from trio_agent.store.bounds import Bounds
from trio_agent.store.contract import StoreError
from trio_agent.store.instance import Instance
from trio_agent.store.limits import TOUCH_S, Limits
from trio_agent.store.readers import Readers
from trio_agent.store.rows import list_of
from trio_agent.store.writer import Writer

Work = Callable[[sqlite3.Connection], object]
T = TypeVar("T")

_TOUCH_WAIT_S: Final = 1.0


class SqlitePart:
    """One database as a store's methods see it."""

    def __init__(
        self,
        writer: Writer,
        readers: Readers,
        instance: Instance,
        now: Callable[[], float],
        limits: Limits,
        last_use: float,
    ) -> None:
        """`last_use` is the newest time of use in the database, in seconds since the epoch."""
        self._writer = writer
        self._readers = readers
        self._instance = instance
        self._now = now
        self._limits = limits
        self._bounds = Bounds(limits)
        self._last_use = last_use

    def keep_to(self, limits: Limits) -> None:
        """See `Store.keep_to`. A transaction that runs meanwhile may go by either."""
        self._limits = limits
        self._bounds = Bounds(limits)

    async def _read_at_once(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """The result of a query of several statements, which all see the database as it is at one time."""

        def read(db: sqlite3.Connection) -> T:
            db.execute("BEGIN")
            try:
                return query(db)
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

        return await self._readers.read(read)

    async def _select(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        return await self._readers.read(lambda db: db.execute(sql, values).fetchall())

    def _time_of_use(self) -> float:
        """The time that it is now, and never earlier than a use before.

        A clock may go back. What is used then would be taken for what was unused longest, and go first.
        """
        self._last_use = max(self._last_use, self._now())
        return self._last_use

    def _is_stale(self, used_at: float | None) -> bool:
        """Whether it is time to note that a row was used."""
        return used_at is not None and used_at <= self._time_of_use() - TOUCH_S

    async def _touch(
        self, table: Literal["answers", "conversations", "sessions"], stale: Iterable[str], owner: str
    ) -> None:
        """Note that rows were used now. Whoever reads does not fail for it, nor wait long to begin it."""
        ids = list_of(stale)
        if ids == "[]":
            return
        sql = (
            f"UPDATE {table} SET used_at = max(used_at, ?) "  # noqa: S608 -- constants
            "WHERE id IN (SELECT value FROM json_each(?)) AND owner = ?"
        )
        now = self._time_of_use()
        with contextlib.suppress(StoreError), trio.move_on_after(_TOUCH_WAIT_S):
            await self._writer.submit(lambda db: db.execute(sql, (now, ids, owner)))
