"""The audit log in SQLite. Triggers of the schema refuse to change it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from functools import partial
from typing import Any

from trio_agent.store import queries, rows
from trio_agent.store.audit import SERVER, AuditEntry, AuditKind
from trio_agent.store.sqlite_part import SqlitePart


class SqliteAudit(SqlitePart):
    """The part of the store that is about the audit log; see `AuditStore` for what each method means."""

    async def audit(self, kind: AuditKind, details: Mapping[str, Any], *, actor: str = SERVER) -> None:
        values = (self._now(), self._instance.id, kind, actor, rows.to_json(details))

        def add(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO audit (at, instance, kind, actor, details) VALUES (?, ?, ?, ?, ?)", values
            )

        await self._writer.submit(add)

    async def list_audit(
        self, *, kind: AuditKind | None = None, after: int | None = None, limit: int = 100
    ) -> list[AuditEntry]:
        return await self._readers.read(partial(queries.list_audit, kind=kind, after=after, limit=limit))
