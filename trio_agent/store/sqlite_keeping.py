"""Writing what is kept with a turn's row, inside the transaction that writes that row."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Literal

from trio_agent.store import forgetting
from trio_agent.store.bounds import Bound, Bounds
from trio_agent.store.kept import (
    AnswerRow,
    ConversationEntry,
    ItemRow,
    Keeping,
    LogEntry,
    LogRow,
    TranscriptNode,
)
from trio_agent.store.kept_rows import ANSWERS, ENTRIES, ITEMS, LOGS, NODES

Phase = Literal["begin", "end"]

_ADD_ENTRY = """
    INSERT INTO log_entries (number, count, data, log_id)
    SELECT ?1, ?2, ?3, id FROM logs WHERE id = ?4 AND ?1 >= ifnull(
        (SELECT number + count FROM log_entries WHERE log_id = ?4 ORDER BY number DESC LIMIT 1), 0
    )
"""


class KeptWriting:
    """One `Keeping` on its way to the disk; it may be written again after a roll-back.

    Args:
        phase: what the turn is at. A repeat of the same phase doubles nothing.
        now: the time of use, seconds since the epoch.
        session_turns: the most nodes of one session.
    """

    def __init__(
        self, keeping: Keeping, phase: Phase, *, now: float, bounds: Bounds, session_turns: int
    ) -> None:
        self._keeping = keeping
        self._source = None if keeping.writing is None else f"{phase} {keeping.writing}"
        self._now = now
        self._bounds = bounds
        self._session_turns = session_turns
        self._entry: int | None = None

    def write(self, db: sqlite3.Connection) -> None:
        keeping = self._keeping
        grown: list[Bound] = []
        if keeping.answer is not None and self._put_answer(db, keeping.answer):
            grown.append(self._bounds.answers)
        put_items(db, ((item, item.answer_id or "") for item in keeping.items))
        if keeping.log is not None and self._put_log(db, keeping.log):
            grown.append(self._bounds.logs)
        if keeping.conversation is not None:
            self._entry = add_entry(db, keeping.conversation, self._source, self._now)
        if keeping.node is not None and self._put_node(db, keeping.node):
            grown.append(self._bounds.sessions)
        if keeping.forget_answer is not None:
            forgetting.forget_answer(db, keeping.forget_answer)
        if keeping.forget_key is not None:
            row = keeping.forget_key
            forget_key(db, row.owner, row.scope, row.key, row.log_id)
        if keeping.release is not None:
            release(db, keeping.release.conversation_id, keeping.release.answer_id)
        for bound in grown:
            bound.added(db)

    def undo(self, db: sqlite3.Connection) -> None:
        """Take back what a turn's beginning has put there; its caller was told that it failed."""
        keeping = self._keeping
        if keeping.writing is not None:
            forgetting.forget_answer(db, keeping.writing)
        for item in keeping.items:
            db.execute("DELETE FROM items WHERE holder = ? AND id = ?", (item.answer_id, item.id))
        if keeping.conversation is not None:
            remove_entry(db, keeping.conversation, self._entry)
        if keeping.node is not None:
            node = keeping.node
            db.execute("DELETE FROM nodes WHERE id = ?", (node.id,))
            db.execute(
                "DELETE FROM sessions WHERE owner = ?1 AND id = ?2 AND NOT EXISTS "
                "(SELECT 1 FROM nodes WHERE owner = ?1 AND session_id = ?2)",
                (node.owner, node.session_id),
            )

    def _put_answer(self, db: sqlite3.Connection, answer: AnswerRow) -> bool:
        """Whether it is a new one; so below."""
        new = not _has(db, "SELECT 1 FROM answers WHERE id = ?", answer.id)
        db.execute(ANSWERS.put, ANSWERS.values(answer, self._now))
        return new

    def _put_log(self, db: sqlite3.Connection, log: LogRow) -> bool:
        new = not _has(db, "SELECT 1 FROM logs WHERE id = ?", log.id)
        db.execute(LOGS.put, LOGS.values(log))
        entries = self._keeping.entries
        if entries:
            first = entries[0].number
            db.execute("DELETE FROM log_entries WHERE log_id = ? AND number >= ?", (log.id, first))
            db.executemany(ENTRIES.put, [ENTRIES.values(entry, log.id) for entry in entries])
        return new

    def _put_node(self, db: sqlite3.Connection, node: TranscriptNode) -> bool:
        session = (node.owner, node.session_id)
        new = not _has(db, "SELECT 1 FROM sessions WHERE owner = ? AND id = ?", *session)
        db.execute(
            "INSERT INTO sessions (owner, id, used_at) VALUES (?, ?, ?) "
            "ON CONFLICT (owner, id) DO UPDATE SET used_at = max(used_at, excluded.used_at)",
            (*session, self._now),
        )
        db.execute(NODES.put, NODES.values(node))
        trim_session(db, *session, self._session_turns)
        return new


def _has(db: sqlite3.Connection, sql: str, *values: str) -> bool:
    return db.execute(sql, values).fetchone() is not None


def put_items(db: sqlite3.Connection, items: Iterable[tuple[ItemRow, str]]) -> None:
    """Put items into the lists of their holders, or replace the ones with their ids there."""
    db.executemany(ITEMS.put, [ITEMS.values(item, holder) for item, holder in items])


def add_to_log(db: sqlite3.Connection, log_id: str, entries: Sequence[LogEntry]) -> None:
    """Add what is not there yet; nothing where there is no such log."""
    db.executemany(_ADD_ENTRY, [ENTRIES.values(entry, log_id) for entry in entries])


def add_entry(db: sqlite3.Connection, entry: ConversationEntry, source: str | None, now: float) -> int | None:
    """Add to a conversation's end, or replace what `source` has added; the entry's number.

    `None` if the conversation is not there.
    """
    used = db.execute(
        "UPDATE conversations SET used_at = max(used_at, ?) WHERE id = ? AND owner = ?",
        (now, entry.conversation_id, entry.owner),
    )
    if used.rowcount == 0:
        return None
    (number,) = db.execute(
        "INSERT INTO conversation_entries (conversation_id, source, messages) VALUES (?, ?, ?) "
        "ON CONFLICT (conversation_id, source) DO UPDATE SET messages = excluded.messages RETURNING number",
        (entry.conversation_id, source, entry.messages),
    ).fetchone()
    for item in entry.items:
        _put_conversation_item(db, entry.conversation_id, item)
    return int(number)


def remove_entry(db: sqlite3.Connection, entry: ConversationEntry, number: int | None) -> None:
    """Undo what `add_entry` did when it gave this number."""
    if number is not None:
        db.execute("DELETE FROM conversation_entries WHERE number = ?", (number,))
        db.executemany(
            "DELETE FROM items WHERE holder = ? AND id = ?",
            [(entry.conversation_id, item.id) for item in entry.items],
        )


def _put_conversation_item(db: sqlite3.Connection, conversation_id: str, item: ItemRow) -> None:
    """At the end of the list, or in the place of the item with its id."""
    (place,) = db.execute(
        "SELECT coalesce((SELECT position FROM items WHERE holder = ? AND id = ?), "
        "(SELECT max(position) + 1 FROM items WHERE holder = ?), 0)",
        (conversation_id, item.id, conversation_id),
    ).fetchone()
    db.execute(
        ITEMS.put,
        ITEMS.values(
            ItemRow(
                id=item.id,
                owner=item.owner,
                position=place,
                direction=item.direction,
                item=item.item,
                answer_id=item.answer_id,
                conversation_id=conversation_id,
            ),
            conversation_id,
        ),
    )


def forget_key(db: sqlite3.Connection, owner: str, scope: str, key: str, log_id: str) -> None:
    """Free a key that this log holds."""
    db.execute(
        "DELETE FROM idempotency_keys WHERE owner = ? AND scope = ? AND key = ? AND log_id = ?",
        (owner, scope, key, log_id),
    )


def release(db: sqlite3.Connection, conversation_id: str, writer: str) -> None:
    """Free a conversation of this writer."""
    db.execute(
        "UPDATE conversations SET writer = NULL, instance = NULL WHERE id = ? AND writer = ?",
        (conversation_id, writer),
    )


_OLDEST_LEAVES = """
    SELECT id FROM nodes WHERE owner = ?1 AND session_id = ?2 AND NOT EXISTS (
        SELECT 1 FROM nodes AS child WHERE child.parent_id = nodes.id
        AND child.owner = ?1 AND child.session_id = ?2
    ) ORDER BY created_at, rowid LIMIT 2
"""
_ROOT = """
    SELECT id FROM nodes WHERE owner = ?1 AND session_id = ?2 AND NOT EXISTS (
        SELECT 1 FROM nodes AS parent WHERE parent.id = nodes.parent_id
        AND parent.owner = ?1 AND parent.session_id = ?2
    ) ORDER BY created_at, rowid LIMIT 1
"""


def trim_session(db: sqlite3.Connection, owner: str, session_id: str, most: int) -> None:
    """Forget the oldest end of a branch that is not the newest or, of the only branch, its root."""
    session = (owner, session_id)
    (count,) = db.execute("SELECT count(*) FROM nodes WHERE owner = ? AND session_id = ?", session).fetchone()
    for _ in range(count - most):
        leaves = db.execute(_OLDEST_LEAVES, session).fetchall()
        least = leaves[0] if len(leaves) > 1 else db.execute(_ROOT, session).fetchone()
        db.execute("DELETE FROM nodes WHERE id = ?", least)
