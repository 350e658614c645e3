"""Conversations in SQLite."""

from __future__ import annotations

import sqlite3

import msgspec

from trio_agent.store import forgetting
from trio_agent.store.kept import Claim, ConversationEntry, ConversationRow, check_size
from trio_agent.store.kept_rows import CONVERSATIONS
from trio_agent.store.rows import can_be_id
from trio_agent.store.sqlite_keeping import add_entry, release, remove_entry
from trio_agent.store.sqlite_part import SqlitePart

_GET = f"SELECT {CONVERSATIONS.columns}, used_at, instance FROM conversations WHERE id = ? AND owner = ?"  # noqa: S608 -- constants


class SqliteConversations(SqlitePart):
    """The part of `KeptStore` that is about conversations."""

    async def put_conversation(self, row: ConversationRow) -> None:
        now = self._time_of_use()
        before: list[bytes | None] = []

        def put(db: sqlite3.Connection) -> None:
            before.clear()
            held = db.execute("SELECT metadata FROM conversations WHERE id = ?", (row.id,)).fetchone()
            if held is None:
                fresh = msgspec.structs.replace(row, writer=None)
                db.execute(CONVERSATIONS.put, CONVERSATIONS.values(fresh, now))
                self._bounds.conversations.added(db)
            else:
                db.execute(
                    "UPDATE conversations SET metadata = ?, used_at = max(used_at, ?) "
                    "WHERE id = ? AND owner = ?",
                    (row.metadata, now, row.id, row.owner),
                )
            before.append(None if held is None else held[0])

        def undo(db: sqlite3.Connection) -> None:
            if before[0] is None:
                forgetting.forget_conversation(db, row.id)
            else:
                db.execute(
                    "UPDATE conversations SET metadata = ? WHERE id = ? AND owner = ?",
                    (before[0], row.id, row.owner),
                )

        await self._writer.submit(put, undo=undo)

    async def get_conversation(self, owner: str, conversation_id: str) -> ConversationRow | None:
        if not can_be_id(conversation_id):
            return None
        found = await self._select(_GET, (conversation_id, owner))
        if not found:
            return None
        await self._touch("conversations", [conversation_id] if self._is_stale(found[0][-2]) else [], owner)
        return CONVERSATIONS.row(found[0])

    async def delete_conversation(self, owner: str, conversation_id: str) -> bool:
        def delete(db: sqlite3.Connection) -> bool:
            mine = db.execute(_GET, (conversation_id, owner)).fetchone() is not None
            return mine and forgetting.forget_conversation(db, conversation_id) > 0

        return can_be_id(conversation_id) and await self._writer.submit(delete)

    async def add_to_conversation(self, entry: ConversationEntry) -> bool:
        now, used = self._now(), self._time_of_use()
        made: list[int | None] = [None]

        def add(db: sqlite3.Connection) -> bool:
            made[0] = None
            held = db.execute(_GET, (entry.conversation_id, entry.owner)).fetchone()
            if held is None or self._busy(db, held[-1], CONVERSATIONS.row(held), now) is not None:
                return False
            made[0] = add_entry(db, entry, None, used)
            return made[0] is not None

        return can_be_id(entry.conversation_id) and await self._writer.submit(
            add, undo=lambda db: remove_entry(db, entry, made[0])
        )

    async def conversation_messages(
        self, owner: str, conversation_id: str, *, most_bytes: int | None = None
    ) -> list[bytes]:
        if await self.get_conversation(owner, conversation_id) is None:
            return []

        def read(db: sqlite3.Connection) -> list[bytes]:
            # `length` of a blob is known without reading it.
            sizes = db.execute(
                "SELECT length(messages) FROM conversation_entries WHERE conversation_id = ?",
                (conversation_id,),
            )
            check_size((size for (size,) in sizes), most_bytes)
            found = db.execute(
                "SELECT messages FROM conversation_entries WHERE conversation_id = ? ORDER BY number",
                (conversation_id,),
            )
            return [messages for (messages,) in found]

        return await self._read_at_once(read)

    async def claim_conversation(self, owner: str, conversation_id: str, writer: str) -> Claim | None:
        now, used = self._now(), self._time_of_use()

        def claim(db: sqlite3.Connection) -> Claim | None:
            held = db.execute(_GET, (conversation_id, owner)).fetchone()
            if held is None:
                return None
            row = CONVERSATIONS.row(held)
            busy = self._busy(db, held[-1], row, now)
            if busy not in (None, writer):
                turn = db.execute(
                    "SELECT turn_id FROM answers WHERE id = ?1 UNION SELECT turn_id FROM logs WHERE id = ?1",
                    (busy,),
                ).fetchone()
                return Claim(row, busy, None if turn is None else turn[0])
            db.execute(
                "UPDATE conversations SET writer = ?, instance = ?, used_at = max(used_at, ?) WHERE id = ?",
                (writer, self._instance.id, used, conversation_id),
            )
            return Claim(msgspec.structs.replace(row, writer=writer))

        if not can_be_id(conversation_id):
            return None
        return await self._writer.submit(claim, undo=lambda db: release(db, conversation_id, writer))

    def _busy(
        self, db: sqlite3.Connection, instance: str | None, row: ConversationRow, now: float
    ) -> str | None:
        """Who writes. An answer that has ended does not, nor does one whose process is dead."""
        if row.writer is not None and instance != self._instance.id:
            self._instance.look(db, now)
        found = db.execute(
            "SELECT writer FROM conversations WHERE id = ? AND NOT EXISTS (SELECT 1 FROM answers "
            "WHERE answers.id = writer AND status NOT IN ('queued', 'in_progress'))",
            (row.id,),
        ).fetchone()
        return None if found is None else found[0]

    async def release_conversation(self, conversation_id: str, writer: str) -> None:
        await self._writer.submit(lambda db: release(db, conversation_id, writer))
