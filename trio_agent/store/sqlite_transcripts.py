"""Transcripts of sessions in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from trio_agent.store.kept import TranscriptNode
from trio_agent.store.kept_rows import NO_MESSAGES, NODES
from trio_agent.store.sqlite_part import SqlitePart, can_be_id, list_of

_BARE = NODES.without("messages", NO_MESSAGES)
# The plus keeps SQLite from reading the whole session in its order.
_FIND = f"""
    SELECT {_BARE} FROM nodes WHERE owner = ?1 AND session_id = ?2
    AND digest IN (SELECT value FROM json_each(?3)) ORDER BY +created_at DESC, rowid DESC
"""  # noqa: S608 -- constants
_PATH = f"""
    WITH RECURSIVE path (id, parent_id, depth) AS (
        SELECT id, parent_id, 0 FROM (
            SELECT id, parent_id FROM nodes WHERE owner = ?1 AND session_id = ?2 AND id = coalesce(?3, id)
            ORDER BY created_at DESC, rowid DESC LIMIT 1
        )
        UNION ALL
        SELECT nodes.id, nodes.parent_id, depth + 1 FROM path CROSS JOIN nodes
        ON nodes.id = path.parent_id AND nodes.owner = ?1 AND nodes.session_id = ?2 WHERE depth < ?4
    )
    SELECT {NODES.columns} FROM path CROSS JOIN nodes ON nodes.id = path.id ORDER BY depth DESC
"""  # noqa: S608 -- constants
_LIST = f"""
    SELECT {_BARE} FROM nodes WHERE owner = ?1 AND session_id = ?2 ORDER BY created_at DESC, rowid DESC
"""  # noqa: S608 -- constants


class SqliteTranscripts(SqlitePart):
    """The part of `KeptStore` that is about transcripts."""

    async def find_nodes(self, owner: str, session_id: str, digests: Sequence[str]) -> list[TranscriptNode]:
        return await self._nodes(_FIND, owner, session_id, list_of(digests))

    async def transcript(
        self, owner: str, session_id: str, node_id: str | None = None
    ) -> list[TranscriptNode]:
        if node_id is not None and not can_be_id(node_id):
            return []
        return await self._nodes(_PATH, owner, session_id, node_id, self._limits.max_session_turns)

    async def list_nodes(self, owner: str, session_id: str) -> list[TranscriptNode]:
        return await self._nodes(_LIST, owner, session_id)

    async def _nodes(self, sql: str, owner: str, session_id: str, *values: Any) -> list[TranscriptNode]:
        if not can_be_id(session_id):
            return []

        def read(db: sqlite3.Connection) -> tuple[list[tuple[Any, ...]], tuple[float] | None]:
            found = db.execute(sql, (owner, session_id, *values)).fetchall()
            session = db.execute(
                "SELECT used_at FROM sessions WHERE owner = ? AND id = ?", (owner, session_id)
            )
            return found, session.fetchone()

        found, session = await self._readers.read(read)
        if session is not None and self._is_stale(session[0]):
            await self._touch("sessions", [session_id], owner)
        return [NODES.row(values) for values in found]
