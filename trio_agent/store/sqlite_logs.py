"""Event logs and idempotency keys in SQLite."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

import trio

from trio_agent.store.contract import StoreError
from trio_agent.store.kept import KeyRow, LogEntry, LogRow
from trio_agent.store.kept_rows import ENTRIES, KEYS, LOGS
from trio_agent.store.limits import KEYS_KEPT_S
from trio_agent.store.rows import can_be_id
from trio_agent.store.sqlite_keeping import add_to_log, forget_key
from trio_agent.store.sqlite_part import SqlitePart

LOOK_AFTER_OTHERS_S: Final = 5.0
"""How often, at most, a reader of a log that another process writes looks whether that one is alive."""

# By the index alone: what stands before the entry that holds the number is not looked at.
_FROM_NUMBER = f"""
    SELECT {ENTRIES.columns} FROM log_entries WHERE log_id = ?1 AND number + count > ?2
    AND number >= ifnull((SELECT max(number) FROM log_entries WHERE log_id = ?1 AND number <= ?2), 0)
    ORDER BY number LIMIT ?3
"""  # noqa: S608 -- constants


class SqliteLogs(SqlitePart):
    """The part of `KeptStore` that is about event logs."""

    _looked: float = float("-inf")

    async def append_log(self, log_id: str, entries: Sequence[LogEntry]) -> None:
        await self._writer.submit(lambda db: add_to_log(db, log_id, entries))

    async def find_log(self, owner: str, log_id: str) -> LogRow | None:
        """The log's row. One that another process was writing when it died comes back broken."""
        found = await self._find_log(owner, log_id)
        if not found:
            return None
        row, instance = LOGS.row(found[0]), found[0][-1]
        time = trio.current_time()
        if (
            row.ended_at is not None
            or instance == self._instance.id
            or time - self._looked < LOOK_AFTER_OTHERS_S
        ):
            return row
        self._looked = time
        now = self._now()
        with contextlib.suppress(StoreError):  # It is readable all the same.
            await self._writer.submit(lambda db: self._instance.look(db, now))
        found = await self._find_log(owner, log_id)
        return LOGS.row(found[0]) if found else None

    async def _find_log(self, owner: str, log_id: str) -> list[tuple[Any, ...]]:
        if not can_be_id(log_id):
            return []
        return await self._select(
            f"SELECT {LOGS.columns}, turns.instance FROM logs LEFT JOIN turns ON turns.id = logs.turn_id "  # noqa: S608 -- constants
            "WHERE logs.id = ? AND logs.owner = ?",
            (log_id, owner),
        )

    async def read_log(self, log_id: str, start: int, *, limit: int = 1000) -> list[LogEntry]:
        if not can_be_id(log_id):
            return []
        found = await self._select(
            _FROM_NUMBER,
            (log_id, start, max(0, limit)),
        )
        return [ENTRIES.row(values) for values in found]

    async def claim_key(self, row: KeyRow) -> KeyRow:
        now = self._now()
        values = KEYS.values(row, self._instance.id)

        def claim(db: sqlite3.Connection) -> KeyRow:
            held, instance, unfinished = _holder(db, row)
            if held is not None and unfinished and instance != self._instance.id:
                self._instance.look(db, now)
                held, _, _ = _holder(db, row)
            if held is not None and held.created_at >= row.created_at - KEYS_KEPT_S:
                return held
            db.execute(KEYS.put, values)
            return row

        return await self._writer.submit(
            claim, undo=lambda db: forget_key(db, row.owner, row.scope, row.key, row.log_id)
        )

    async def forget_key(self, row: KeyRow) -> None:
        await self._writer.submit(lambda db: forget_key(db, row.owner, row.scope, row.key, row.log_id))


def _holder(db: sqlite3.Connection, row: KeyRow) -> tuple[KeyRow | None, str | None, bool]:
    """Who has a key: its row, the instance that took it, and whether its log is not finished."""
    found = db.execute(
        f"SELECT {KEYS.columns}, instance, NOT EXISTS (SELECT 1 FROM logs "  # noqa: S608 -- constants
        "WHERE id = idempotency_keys.log_id AND ended_at IS NOT NULL) FROM idempotency_keys "
        "WHERE owner = ? AND scope = ? AND key = ?",
        (row.owner, row.scope, row.key),
    ).fetchone()
    if found is None:
        return None, None, False
    return KEYS.row(found), found[-2], bool(found[-1])
