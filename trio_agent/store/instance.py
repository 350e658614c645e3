"""Crash recovery: which open stores are alive, and what the dead ones left running.

Every open store is an instance: a row in `instances` and a lock that the kernel drops when its process
ends, however it ends. A `running` turn names its instance. Where the lock can be taken, the instance is
dead and its turns are closed as `abandoned`. Parked turns belong to nobody and survive; a turn that the
dead had taken up again is parked as before, for its caller may repeat the request.

What the dead were saying fails with that: answers that nobody writes any more are `failed`, their logs
broken, their idempotency keys and the conversations that they held are free.
"""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

from trio_agent.private_files import FileLock
from trio_agent.store.contract import StoreError
from trio_agent.store.files import instance_ids, instance_lock_path

_SAFE_ID = re.compile(r"[A-Za-z0-9_.-]{1,100}")

_ORPHANED = "outcome = 'running' AND (instance IS NULL OR instance NOT IN (SELECT id FROM instances))"
_PUT_BACK = f"""
    UPDATE turns SET outcome = 'parked', reason = 'crash', instance = NULL
    WHERE {_ORPHANED} AND id IN (SELECT turn_id FROM parks)
"""  # noqa: S608 -- constants
_ABANDON = f"""
    UPDATE turns SET outcome = 'abandoned', reason = 'crash', ended_at = ?, instance = NULL
    WHERE {_ORPHANED}
"""  # noqa: S608 -- constants

_UNWRITTEN = """turn_id NOT IN (
    SELECT id FROM turns WHERE outcome = 'running' AND instance IN (SELECT id FROM instances)
)"""
_FREE_KEYS_OF_BROKEN_LOGS = f"""
    DELETE FROM idempotency_keys WHERE log_id IN (SELECT id FROM logs WHERE ended_at IS NULL AND {_UNWRITTEN})
"""  # noqa: S608 -- constants
_FREE_KEYS_WITHOUT_LOGS = """
    DELETE FROM idempotency_keys
    WHERE instance NOT IN (SELECT id FROM instances) AND log_id NOT IN (SELECT id FROM logs)
"""
_BREAK_LOGS = f"UPDATE logs SET ended_at = ?, broken = 1 WHERE ended_at IS NULL AND {_UNWRITTEN}"  # noqa: S608 -- constants
_FAIL_ANSWERS = f"""
    UPDATE answers SET status = 'failed', used_at = max(used_at, ?)
    WHERE status IN ('queued', 'in_progress') AND {_UNWRITTEN}
"""  # noqa: S608 -- constants
_FREE_CONVERSATIONS = """
    UPDATE conversations SET writer = NULL, instance = NULL
    WHERE writer IS NOT NULL AND instance NOT IN (SELECT id FROM instances)
"""


class Instance:
    """An open store, alive for as long as its lock is held.

    All methods run in a worker thread, behind the gate, so that nobody looks for dead instances while
    another one comes or goes.
    """

    def __init__(self, database: Path, instance_id: str) -> None:
        """Raises ValueError for an id that cannot be part of a file name."""
        if not _SAFE_ID.fullmatch(instance_id):
            raise ValueError(f"instance_id {instance_id!r} must be 1 to 100 of letters, digits and _ . -")
        self.id = instance_id
        self._database = database
        self._lock = FileLock(instance_lock_path(database, instance_id))

    def join(self, connection: sqlite3.Connection, now: float) -> int:
        """Become alive, then close what dead instances left; returns how many turns were abandoned.

        Raises StoreError when a living instance has the same id.
        """
        if not self._lock.acquire(0):
            self._lock.close()
            raise StoreError(
                f"The instance id {self.id!r} is in use by a running process. Choose another one."
            )
        try:
            connection.execute("BEGIN IMMEDIATE")
            # A dead instance may have had our id: without its row, what it left counts as abandoned.
            connection.execute("DELETE FROM instances WHERE id = ?", (self.id,))
            closed = self.recover(connection, now)
            connection.execute("INSERT INTO instances (id, started_at) VALUES (?, ?)", (self.id, now))
            connection.execute("COMMIT")
        except BaseException:
            self._lock.remove()
            raise
        return closed

    def recover(self, connection: sqlite3.Connection, now: float) -> int:
        """Park again or abandon what dead instances ran, inside the caller's transaction.

        Returns how many turns were abandoned.
        If that transaction is rolled back, the dead are found again the next time.
        """
        self._bury(connection)
        return _close_orphans(connection, now)

    def look(self, connection: sqlite3.Connection, now: float) -> None:
        """As `recover`, but cheap where nobody has died: for whoever waits for another instance."""
        if self._bury(connection):
            _close_orphans(connection, now)

    def _bury(self, connection: sqlite3.Connection) -> bool:
        """Strike the dead off the list; whether there were any."""
        found = False
        known = {instance_id for (instance_id,) in connection.execute("SELECT id FROM instances")}
        for other in (known | instance_ids(self._database)) - {self.id}:
            lock = FileLock(instance_lock_path(self._database, other))
            if lock.acquire(0):
                connection.execute("DELETE FROM instances WHERE id = ?", (other,))
                lock.remove()
                found = True
            else:
                lock.close()
        return found

    def leave(self, connection: sqlite3.Connection, now: float) -> None:
        """End in good order. Turns whose end was never recorded are closed as after a crash."""
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM instances WHERE id = ?", (self.id,))
        _close_orphans(connection, now)
        connection.execute("COMMIT")
        self._lock.remove()

    def drop(self) -> None:
        """Let go of the lock without a word; whoever looks next finds a dead instance."""
        self._lock.close()


def _close_orphans(connection: sqlite3.Connection, now: float) -> int:
    connection.execute(_PUT_BACK)
    abandoned = connection.execute(_ABANDON, (now,)).rowcount
    connection.execute(_FREE_KEYS_OF_BROKEN_LOGS)
    connection.execute(_FREE_KEYS_WITHOUT_LOGS)
    connection.execute(_BREAK_LOGS, (now,))
    connection.execute(_FAIL_ANSWERS, (now,))
    connection.execute(_FREE_CONVERSATIONS)
    return abandoned
