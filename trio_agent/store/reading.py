"""The database of a store for whoever has its file: beside a server, after a crash, or without one.

Nothing is written, brought up to date or cleaned up: that is for the server to do.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from trio_agent.store import queries
from trio_agent.store.audit import AuditEntry
from trio_agent.store.contract import CallRow, StoreError, TurnRow
from trio_agent.store.failures import explain
from trio_agent.store.schema import check_ours, connect_onlooker, load_migrations

T = TypeVar("T")

BUSY_SECONDS: Final = 5.0
_AUDIT_SINCE: Final = 3
_SHUT: Final = frozenset(
    {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}
)
_LOCKED: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})


class Records:
    """Reads turns and the audit log. Made by `open_records`. Every method raises StoreError.

    What each method gives is told by the method of `Store` that has its name.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._version = self._read(lambda db: check_ours(db, len(load_migrations())))
        if not self._version:
            raise StoreError(f"{path} is empty: no server has used it yet.")

    def get_turn(self, turn_id: str) -> TurnRow | None:
        return self._read(lambda db: queries.get_turn(db, turn_id))

    def list_turns(
        self,
        *,
        limit: int,
        session_id: str | None = None,
        outcome: str | None = None,
        model: str | None = None,
        after: str | None = None,
        before: str | None = None,
    ) -> list[TurnRow]:
        query = partial(queries.list_turns, limit=limit, session_id=session_id, outcome=outcome)
        return self._read(partial(query, model=model, after=after, before=before))

    def list_calls(self, turn_ids: Sequence[str]) -> list[CallRow]:
        return self._read(lambda db: queries.list_calls(db, turn_ids))

    def find_turn_ids(self, prefix: str, *, limit: int) -> list[str]:
        """The ids of turns that begin with `prefix`, in their order, at most `limit`."""
        return self._read(lambda db: queries.find_turn_ids(db, prefix, limit=limit))

    def list_audit(self, *, kind: str | None, after: int | None, limit: int) -> list[AuditEntry]:
        if self._version < _AUDIT_SINCE:
            raise StoreError(
                f"{self._path} is of an older trio-agent, which kept no audit log. A server that is started "
                "with this version begins one."
            )
        return self._read(partial(queries.list_audit, kind=kind, after=after, limit=limit))

    def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return query(self._connection)
        except (sqlite3.Error, StoreError, OverflowError, UnicodeError) as error:
            raise _told(self._path, error) from error


@contextmanager
def open_records(path: Path, *, busy_timeout: float = BUSY_SECONDS) -> Iterator[Records]:
    """Open the database of a store, for reading alone.

    Args:
        busy_timeout: seconds to wait for a program that has it locked.

    Raises:
        StoreError: it is missing, another program's, a newer version's, damaged, locked, or not to be opened.
    """
    if not path.exists():
        raise StoreError(
            f"There is no database at {path}: no server has run with it yet. TRIO_AGENT_HOME or --config "
            "may name another one."
        )
    try:
        connection = connect_onlooker(path, busy_timeout)
    except sqlite3.Error as error:
        raise _told(path, error) from error
    with closing(connection):
        yield Records(path, connection)


def _told(path: Path, error: Exception) -> StoreError:
    code = getattr(error, "sqlite_errorcode", -1) & 0xFF
    if code in _SHUT:
        why: object = (
            "you may not use the file, or its folder. Readers share a file there with the server, so they "
            "need to write to the folder. Run this as the user whom the server runs as."
        )
    elif code in _LOCKED:
        why = "another program holds it locked. End that program, or try again later."
    else:
        why = explain(error)
    return StoreError(f"{path} cannot be read: {why}")


__all__ = ["Records", "open_records"]
