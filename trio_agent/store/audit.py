"""The audit log as stores keep it: what was done to the server, by whom, when. It is only ever added to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol, TypeAlias, get_args

from msgspec import Struct

AuditKind: TypeAlias = Literal[
    "server.started",
    "server.stopped",
    "config.loaded",
    "config.reloaded",
    "config.refused",
    "credential.set",
    "credential.removed",
    "credential.cleared",
]
"""What can be in the log. A new kind is named here first."""

AUDIT_KINDS: Final[tuple[AuditKind, ...]] = get_args(AuditKind)
SERVER: Final = "server"
"""The actor of what the server did by itself."""


class AuditEntry(Struct, frozen=True, kw_only=True):
    """One entry. `number` rises with each, and is never given twice in one store.

    `at` is in seconds since the epoch; `instance` names the opening of the store that wrote it, of which each
    process has its own; `actor` is who did it; `details` depend on the kind, and never hold a secret.
    """

    number: int
    at: float
    instance: str
    kind: str
    actor: str
    details: dict[str, Any]


class AuditStore(Protocol):
    """What a store keeps of the audit log. Every method raises StoreError when the store is out of reach."""

    async def audit(self, kind: AuditKind, details: Mapping[str, Any], *, actor: str = SERVER) -> None:
        """Add an entry, durably. There is no other way to change the log, and nothing of it is forgotten.

        Args:
            details: JSON values, without secrets.
            actor: who did it.
        """

    async def list_audit(
        self, *, kind: AuditKind | None = None, after: int | None = None, limit: int = 100
    ) -> list[AuditEntry]:
        """The newest entries first, at most `limit`.

        Args:
            kind: only those.
            after: the number of the last entry of the page before.
        """
