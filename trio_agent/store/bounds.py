"""Bounds on what is kept: rows that were unused longest go when there are too many."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

from trio_agent.store import forgetting
from trio_agent.store.limits import Limits

_AT_ONCE: Final = 4
"""So many rows go with one that comes: eviction is spread, no turn waits for a great heap of it."""


class Bound:
    """Keeps one table under a number of rows. Used in the writer's thread alone.

    Rows are counted once for every hundredth part of the bound that is added, since counting costs; other
    processes add too. So a table may be larger than its bound by about 1 % for each process.
    """

    def __init__(
        self, most: int, count: str, forget: Callable[[sqlite3.Connection, float | None, int], int]
    ) -> None:
        self._most = most
        self._count = count
        self._forget = forget
        self._interval = max(1, most // 100)
        self._uncounted = self._interval
        self._over = 0

    def added(self, db: sqlite3.Connection) -> None:
        """A row was added in this transaction."""
        self._uncounted += 1
        if self._uncounted >= self._interval:
            self._recount(db)
        if self._over > 0:
            self._over -= self._forget(db, None, min(self._over, _AT_ONCE))

    def enforce(self, db: sqlite3.Connection, limit: int) -> bool:
        """Forget up to `limit` rows; whether more of them are too many."""
        self._recount(db)
        if self._over <= 0:
            return False
        gone = self._forget(db, None, min(self._over, limit))
        self._over -= gone
        return gone > 0 and self._over > 0

    def _recount(self, db: sqlite3.Connection) -> None:
        (rows,) = db.execute(self._count).fetchone()
        self._uncounted = 0
        self._over = rows - self._most


class Bounds:
    """The bounds of one store."""

    def __init__(self, limits: Limits) -> None:
        self.answers = Bound(
            limits.max_responses, "SELECT count(*) FROM answers", forgetting.forget_unused_answers
        )
        self.logs = Bound(limits.max_responses, "SELECT count(*) FROM logs", forgetting.forget_old_logs)
        self.conversations = Bound(
            limits.max_conversations,
            "SELECT count(*) FROM conversations",
            forgetting.forget_unused_conversations,
        )
        self.sessions = Bound(
            limits.max_sessions, "SELECT count(*) FROM sessions", forgetting.forget_unused_sessions
        )

    @property
    def all(self) -> tuple[Bound, ...]:
        return self.answers, self.logs, self.conversations, self.sessions
