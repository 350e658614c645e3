"""The audit log in SQLite. Triggers of the schema refuse to change it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

import msgspec

from trio_agent.store import rows
from trio_agent.store.audit import SERVER, AuditEntry, AuditKind
from trio_agent.store.sqlite_part import SqlitePart

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_NEWEST = 2**63 - 1


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
        of_kind = "" if kind is None else "AND kind = ? "
        values = (_NEWEST if after is None else after, *(() if kind is None else (kind,)), max(0, limit))
        found = await self._select(
            "SELECT number, at, instance, kind, actor, details FROM audit "  # noqa: S608 -- constants
            f"WHERE number < ? {of_kind}ORDER BY number DESC LIMIT ?",
            values,
        )
        return [
            AuditEntry(
                number=number, at=at, instance=instance, kind=kind, actor=actor, details=_decode(details)
            )
            for number, at, instance, kind, actor, details in found
        ]
