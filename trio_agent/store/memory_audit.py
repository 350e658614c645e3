"""The audit log in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from trio_agent.store.audit import SERVER, AuditEntry, AuditKind


class MemoryAudit:
    """Keeps the contract `AuditStore`; see there what each method means.

    `audited` has all entries, the oldest first.
    """

    _now: Callable[[], float]

    def __init__(self) -> None:
        self.audited: list[AuditEntry] = []

    async def _kept_io(self, op: str) -> None:
        """What every operation does first."""
        raise NotImplementedError

    async def audit(self, kind: AuditKind, details: Mapping[str, Any], *, actor: str = SERVER) -> None:
        await self._kept_io("audit")
        entry = AuditEntry(
            number=len(self.audited) + 1,
            at=self._now(),
            instance="memory",
            kind=kind,
            actor=actor,
            details=msgspec.to_builtins(dict(details)),
        )
        self.audited.append(entry)

    async def list_audit(
        self, *, kind: AuditKind | None = None, after: int | None = None, limit: int = 100
    ) -> list[AuditEntry]:
        await self._kept_io("list_audit")
        found = [
            entry
            for entry in reversed(self.audited)
            if kind in (None, entry.kind) and (after is None or entry.number < after)
        ]
        return found[: max(0, limit)]
