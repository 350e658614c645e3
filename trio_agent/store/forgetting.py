"""Taking what is kept beside turns out of the database again, with all that hangs on it.

All functions run in the writer's transaction. Those that take `before` forget what was not used since that
time or, without it, what was unused longest; they return how many rows went. What is being written stays.
"""

from __future__ import annotations

import sqlite3


def forget_answer(db: sqlite3.Connection, answer_id: str) -> int:
    """An answer with its list of items, its log and the keys that lead to it."""
    forget_log(db, answer_id)
    db.execute("DELETE FROM items WHERE holder = ?", (answer_id,))
    return db.execute("DELETE FROM answers WHERE id = ?", (answer_id,)).rowcount


def forget_log(db: sqlite3.Connection, log_id: str) -> int:
    """A log with its entries and the keys that lead to it."""
    db.execute("DELETE FROM idempotency_keys WHERE log_id = ?", (log_id,))
    return db.execute("DELETE FROM logs WHERE id = ?", (log_id,)).rowcount


def forget_conversation(db: sqlite3.Connection, conversation_id: str) -> int:
    """A conversation with its entries and its list of items; answers that were written to it stay."""
    db.execute("DELETE FROM items WHERE holder = ?", (conversation_id,))
    return db.execute("DELETE FROM conversations WHERE id = ?", (conversation_id,)).rowcount


def forget_unused_answers(db: sqlite3.Connection, before: float | None, limit: int) -> int:
    found = db.execute(
        "SELECT id FROM answers WHERE status NOT IN ('queued', 'in_progress') "
        "AND used_at < coalesce(?, 9e999) ORDER BY used_at, rowid LIMIT ?",
        (before, limit),
    ).fetchall()
    return sum(forget_answer(db, answer_id) for (answer_id,) in found)


def forget_old_logs(db: sqlite3.Connection, before: float | None, limit: int) -> int:
    """The age of a log counts from its end; where there are too many, those go that were begun first."""
    # The time of its end may be that of a clock that went back, and would make the newest one the oldest.
    sql = "SELECT id FROM logs WHERE ended_at IS NOT NULL ORDER BY rowid LIMIT ?"
    if before is not None:
        sql = "SELECT id FROM logs WHERE ended_at < ?2 ORDER BY ended_at LIMIT ?1"
    found = db.execute(sql, (limit,) if before is None else (limit, before)).fetchall()
    return sum(forget_log(db, log_id) for (log_id,) in found)


def forget_unused_conversations(db: sqlite3.Connection, before: float | None, limit: int) -> int:
    found = db.execute(
        "SELECT id FROM conversations WHERE writer IS NULL AND used_at < coalesce(?, 9e999) "
        "ORDER BY used_at, rowid LIMIT ?",
        (before, limit),
    ).fetchall()
    return sum(forget_conversation(db, conversation_id) for (conversation_id,) in found)


def forget_unused_sessions(db: sqlite3.Connection, before: float | None, limit: int) -> int:
    return db.execute(
        "DELETE FROM sessions WHERE rowid IN (SELECT rowid FROM sessions "
        "WHERE used_at < coalesce(?, 9e999) ORDER BY used_at, rowid LIMIT ?)",
        (before, limit),
    ).rowcount


def forget_old_keys(db: sqlite3.Connection, before: float, limit: int) -> int:
    return db.execute(
        "DELETE FROM idempotency_keys WHERE (owner, scope, key) IN (SELECT owner, scope, key "
        "FROM idempotency_keys WHERE created_at < ? ORDER BY created_at LIMIT ?)",
        (before, limit),
    ).rowcount


def forget_old_reasoning(db: sqlite3.Connection, before: float, limit: int) -> int:
    return db.execute(
        "DELETE FROM reasoning WHERE rowid IN "
        "(SELECT rowid FROM reasoning WHERE created_at < ? ORDER BY created_at LIMIT ?)",
        (before, limit),
    ).rowcount
