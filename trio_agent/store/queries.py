"""How turns and the audit log are read from SQLite: by the store, and by whoever has its file alone.

Each function runs on one connection and fetches all that it returns. `LIMIT`s and indexes bound what is read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from trio_agent.store import rows
from trio_agent.store.audit import AuditEntry
from trio_agent.store.contract import CallRow, TurnRow

_NEWEST: Final = 2**63 - 1
_details_of = msgspec.json.Decoder(dict[str, Any]).decode


def get_turn(db: sqlite3.Connection, turn_id: str) -> TurnRow | None:
    found = db.execute(f"SELECT {rows.TURN_COLUMNS} FROM turns WHERE id = ?", (turn_id,)).fetchone()  # noqa: S608 -- constants
    return None if found is None else rows.turn_of(found)


def list_turns(
    db: sqlite3.Connection,
    *,
    limit: int = 100,
    after: str | None = None,
    before: str | None = None,
    **filters: str | None,
) -> list[TurnRow]:
    """See `Store.list_turns`."""
    sql, values = turns_query(limit=limit, after=after, before=before, **filters)
    found = [rows.turn_of(each) for each in db.execute(sql, values)]
    return found if before is None else found[::-1]


def turns_query(
    *, limit: int, after: str | None, before: str | None, **filters: str | None
) -> tuple[str, tuple[Any, ...]]:
    """The statement for a page of turns with its values; with `before` it finds the oldest first."""
    wanted = [(name, filters[name]) for name in _narrowest_first(filters) if filters.get(name) is not None]
    # The plus keeps SQLite from another index than that of the first filter: it has no figures to choose by.
    terms = [f"{'+' if place else ''}turns.{name} = ?" for place, (name, _) in enumerate(wanted)]
    if wanted and wanted[0][0] == "owner" and wanted[0][1]:
        terms.append("turns.owner <> ''")  # So that the partial index can serve.
    values: list[Any] = [value for _, value in wanted]
    for cursor, sign in ((after, "<"), (before, ">")):
        if cursor is not None:
            terms.append(f"(created_at, id) {sign} (SELECT created_at, id FROM turns WHERE id = ?)")  # noqa: S608 -- constants
            values.append(cursor)
    where = f"WHERE {' AND '.join(terms)} " if terms else ""
    order = "DESC" if before is None else "ASC"
    sql = (
        f"SELECT {rows.TURN_COLUMNS} FROM turns {where}"  # noqa: S608 -- constants
        f"ORDER BY created_at {order}, id {order} LIMIT ?"
    )
    return sql, (*values, max(0, limit))


def _narrowest_first(filters: Mapping[str, str | None]) -> Sequence[str]:
    """The filters in order: along the first one's index turns are found, and the others look at those.

    Most turns are completed, and where there are no keys, all are nobody's: that narrows nothing.
    """
    broad = {name for name, value in (("outcome", "completed"), ("owner", "")) if filters.get(name) == value}
    return sorted(("session_id", "outcome", "owner", "model"), key=lambda name: name in broad)


def list_calls(db: sqlite3.Connection, turn_ids: Sequence[str]) -> list[CallRow]:
    """The model calls of several turns, in the order of the turns; of one turn, in the order of its calls."""
    found = db.execute(
        f"SELECT {rows.CALL_COLUMNS} FROM json_each(?) AS asked CROSS JOIN calls "  # noqa: S608 -- constants
        "ON calls.turn_id = asked.value ORDER BY asked.key, calls.number, calls.rowid",
        (rows.list_of(turn_ids),),
    )
    return [rows.call_of(values) for values in found]


def find_turn_ids(db: sqlite3.Connection, prefix: str, *, limit: int) -> list[str]:
    """The ids of turns that begin with `prefix`, in their order, at most `limit`."""
    found = db.execute(
        "SELECT id FROM turns WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
        (prefix, prefix + "\U0010ffff", limit),
    )
    return [turn_id for (turn_id,) in found]


def list_audit(
    db: sqlite3.Connection, *, kind: str | None = None, after: int | None = None, limit: int = 100
) -> list[AuditEntry]:
    """See `AuditStore.list_audit`."""
    of_kind = "" if kind is None else "AND kind = ? "
    values = (_NEWEST if after is None else after, *(() if kind is None else (kind,)), max(0, limit))
    found = db.execute(
        "SELECT number, at, instance, kind, actor, details FROM audit "  # noqa: S608 -- constants
        f"WHERE number < ? {of_kind}ORDER BY number DESC LIMIT ?",
        values,
    )
    return [
        AuditEntry(
            number=number,
            at=at,
            instance=instance,
            kind=kind_of_it,
            actor=actor,
            details=_details_of(details),
        )
        for number, at, instance, kind_of_it, actor, details in found
    ]
