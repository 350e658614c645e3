"""Answers and their items in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from trio_agent.store import forgetting
from trio_agent.store.kept import AnswerRow, ItemDirection, ItemRow, MissingAnswer, Order, check_size
from trio_agent.store.kept_rows import ANSWERS, ITEMS, NO_BODY
from trio_agent.store.limits import CHAIN_MAX
from trio_agent.store.pages import up_to_size
from trio_agent.store.rows import can_be_id, list_of
from trio_agent.store.sqlite_part import SqlitePart

_CHAIN_IDS = f"""
    WITH RECURSIVE chain (id, previous_id, depth) AS (
        SELECT id, previous_id, 1 FROM answers WHERE id = ?1 AND owner = ?2
        UNION ALL
        SELECT answers.id, answers.previous_id, depth + 1 FROM chain CROSS JOIN answers
        ON answers.id = chain.previous_id AND answers.owner = ?2 WHERE depth < {CHAIN_MAX}
    )
"""  # noqa: S608 -- constants
# `length` of a blob is known without reading it.
_CHAIN_SIZES = f"""
    {_CHAIN_IDS} SELECT answers.previous_id, length(answers.messages)
    FROM chain CROSS JOIN answers ON answers.id = chain.id ORDER BY depth DESC
"""  # noqa: S608 -- constants
_CHAIN = f"""
    {_CHAIN_IDS}
    SELECT {ANSWERS.without("body", f"CASE depth WHEN 1 THEN answers.body ELSE {NO_BODY} END")}, used_at
    FROM chain CROSS JOIN answers ON answers.id = chain.id ORDER BY depth DESC
"""  # noqa: S608 -- constants
_FIND_ITEMS = """
    SELECT {} FROM json_each(?1) AS asked CROSS JOIN items
    ON items.rowid = (SELECT max(rowid) FROM items WHERE owner = ?2 AND id = asked.value) ORDER BY asked.key
"""
_FIND_ITEMS_AMONG = """
    SELECT {} FROM json_each(?1) AS asked CROSS JOIN items
    ON items.holder = ?3 AND items.id = asked.value AND items.owner = ?2 ORDER BY asked.key
"""


class SqliteAnswers(SqlitePart):
    """The part of `KeptStore` that is about answers."""

    async def get_answer(self, owner: str, answer_id: str) -> AnswerRow | None:
        if not can_be_id(answer_id):
            return None
        found = await self._select(
            f"SELECT {ANSWERS.columns}, used_at FROM answers WHERE id = ? AND owner = ?",  # noqa: S608 -- constants
            (answer_id, owner),
        )
        if not found:
            return None
        await self._touch("answers", [answer_id] if self._is_stale(found[0][-1]) else [], owner)
        return ANSWERS.row(found[0])

    async def get_chain(
        self, owner: str, answer_id: str, *, most_bytes: int | None = None
    ) -> list[AnswerRow]:
        if not can_be_id(answer_id):
            raise MissingAnswer(answer_id)
        asked = (answer_id, owner)

        def read(db: sqlite3.Connection) -> list[tuple[Any, ...]]:
            sizes = db.execute(_CHAIN_SIZES, asked).fetchall()
            missing = sizes[0][0] if sizes else answer_id
            if missing is not None:
                raise MissingAnswer(missing)
            check_size((size for _, size in sizes), most_bytes)
            return db.execute(_CHAIN, asked).fetchall()

        found = await self._read_at_once(read)
        chain = [ANSWERS.row(values) for values in found]
        stale = [row.id for row, values in zip(chain, found, strict=True) if self._is_stale(values[-1])]
        await self._touch("answers", stale, owner)
        return chain

    async def delete_answer(self, owner: str, answer_id: str) -> bool:
        def delete(db: sqlite3.Connection) -> bool:
            mine = db.execute("SELECT 1 FROM answers WHERE id = ? AND owner = ?", (answer_id, owner))
            return mine.fetchone() is not None and forgetting.forget_answer(db, answer_id) > 0

        return can_be_id(answer_id) and await self._writer.submit(delete)

    async def find_items(
        self,
        owner: str,
        item_ids: Sequence[str],
        *,
        conversation_id: str | None = None,
        most_bytes: int | None = None,
    ) -> list[ItemRow]:
        asked: tuple[str, ...] = (list_of(item_ids), owner)
        query = _FIND_ITEMS
        if conversation_id is not None:
            query = _FIND_ITEMS_AMONG
            asked += (conversation_id if can_be_id(conversation_id) else "",)

        def read(db: sqlite3.Connection) -> list[tuple[Any, ...]]:
            if most_bytes is not None:
                check_size(
                    (size for (size,) in db.execute(query.format("length(items.item)"), asked)), most_bytes
                )
            return db.execute(query.format(f"{ITEMS.columns}, holder"), asked).fetchall()

        found = await self._read_at_once(read)
        await self._touch_holders({values[-1] for values in found}, owner)
        return [ITEMS.row(values) for values in found]

    async def list_items(
        self,
        owner: str,
        *,
        answer_id: str | None = None,
        conversation_id: str | None = None,
        direction: ItemDirection | None = None,
        after: str | None = None,
        limit: int = 20,
        order: Order = "asc",
        most_bytes: int | None = None,
    ) -> list[ItemRow]:
        """Raises ValueError when not exactly one of answer and conversation is given."""
        holder = conversation_id if answer_id is None else answer_id
        if holder is None or (answer_id is not None and conversation_id is not None):
            raise ValueError("items are listed of one answer or of one conversation")
        if not can_be_id(holder) or (after is not None and not can_be_id(after)):
            return []
        terms, values = ["holder = ?", "owner = ?"], [holder, owner]
        if direction is not None:
            terms.append("direction = ?")
            values.append(direction)
        if after is not None:
            side = ">" if order == "asc" else "<"
            terms.append(
                f"(position, rowid) {side} (SELECT position, rowid FROM items "  # noqa: S608 -- constants
                "WHERE holder = ? AND id = ? AND owner = ?)"
            )
            values += [holder, after, owner]
        way = "ASC" if order == "asc" else "DESC"
        query = (
            f"SELECT {ITEMS.columns} FROM items WHERE {' AND '.join(terms)} "  # noqa: S608 -- constants
            f"ORDER BY position {way}, rowid {way} LIMIT ?"
        )

        def read(db: sqlite3.Connection) -> list[ItemRow]:
            # The index has this order: a row is read when it is asked for, and not before.
            with closing(db.execute(query, (*values, max(0, limit)))) as rows:
                return list(up_to_size(map(ITEMS.row, rows), most_bytes))

        found = await self._readers.read(read)
        await self._touch_holders([holder], owner)
        return found

    async def _touch_holders(self, holders: Sequence[str] | set[str], owner: str) -> None:
        """Note that answers and conversations were used."""
        if not holders:
            return
        asked = (list_of(holders), owner)

        def look(db: sqlite3.Connection) -> list[list[tuple[Any, ...]]]:
            return [
                db.execute(
                    f"SELECT id, used_at FROM {table} WHERE id IN (SELECT value FROM json_each(?)) "  # noqa: S608 -- constants
                    "AND owner = ?",
                    asked,
                ).fetchall()
                for table in ("answers", "conversations")
            ]

        answers, conversations = await self._readers.read(look)
        await self._touch("answers", [name for name, used in answers if self._is_stale(used)], owner)
        stale = [name for name, used in conversations if self._is_stale(used)]
        await self._touch("conversations", stale, owner)
