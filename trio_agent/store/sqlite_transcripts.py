"""Transcripts of sessions in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from trio_agent.store.kept import TranscriptNode, check_size
from trio_agent.store.kept_rows import NO_MESSAGES, NODES
from trio_agent.store.rows import can_be_id, list_of
from trio_agent.store.sqlite_part import SqlitePart

_Query: TypeAlias = Callable[[sqlite3.Connection], list[tuple[Any, ...]]]

_BARE = NODES.without("messages", NO_MESSAGES)
# The plus keeps SQLite from reading the whole session in its order.
_FIND = f"""
    SELECT {_BARE} FROM nodes WHERE owner = ?1 AND session_id = ?2
    AND digest IN (SELECT value FROM json_each(?3)) ORDER BY +created_at DESC, rowid DESC
"""  # noqa: S608 -- constants
_PATH_IDS = """
    WITH RECURSIVE path (id, parent_id, depth) AS (
        SELECT id, parent_id, 0 FROM (
            SELECT id, parent_id FROM nodes WHERE owner = ?1 AND session_id = ?2 AND id = coalesce(?3, id)
            ORDER BY created_at DESC, rowid DESC LIMIT 1
        )
        UNION ALL
        SELECT nodes.id, nodes.parent_id, depth + 1 FROM path CROSS JOIN nodes
        ON nodes.id = path.parent_id AND nodes.owner = ?1 AND nodes.session_id = ?2 WHERE depth < ?4
    )
"""
# `length` of a blob is known without reading it.
_PATH_SIZES = f"""
    {_PATH_IDS} SELECT length(nodes.messages) FROM path CROSS JOIN nodes ON nodes.id = path.id
"""  # noqa: S608 -- constants
_PATH = f"""
    {_PATH_IDS} SELECT {NODES.columns} FROM path CROSS JOIN nodes ON nodes.id = path.id ORDER BY depth DESC
"""  # noqa: S608 -- constants
_LIST = f"""
    SELECT {_BARE} FROM nodes WHERE owner = ?1 AND session_id = ?2 ORDER BY created_at DESC, rowid DESC
"""  # noqa: S608 -- constants


class SqliteTranscripts(SqlitePart):
    """The part of `KeptStore` that is about transcripts."""

    async def find_nodes(self, owner: str, session_id: str, digests: Sequence[str]) -> list[TranscriptNode]:
        if not can_be_id(session_id):
            return []
        asked = (owner, session_id, list_of(digests))
        return await self._nodes(lambda db: db.execute(_FIND, asked).fetchall(), owner, session_id)

    async def transcript(
        self,
        owner: str,
        session_id: str,
        node_id: str | None = None,
        *,
        most_bytes: int | None = None,
    ) -> list[TranscriptNode]:
        if not can_be_id(session_id) or (node_id is not None and not can_be_id(node_id)):
            return []
        asked = (owner, session_id, node_id, self._limits.max_session_turns)

        def read(db: sqlite3.Connection) -> list[tuple[Any, ...]]:
            check_size((size for (size,) in db.execute(_PATH_SIZES, asked)), most_bytes)
            return db.execute(_PATH, asked).fetchall()

        return await self._nodes(read, owner, session_id)

    async def list_nodes(self, owner: str, session_id: str) -> list[TranscriptNode]:
        if not can_be_id(session_id):
            return []
        asked = (owner, session_id)
        return await self._nodes(lambda db: db.execute(_LIST, asked).fetchall(), owner, session_id)

    async def _nodes(self, query: _Query, owner: str, session_id: str) -> list[TranscriptNode]:
        """The nodes of a session that a query finds. That counts as a use."""

        def read(db: sqlite3.Connection) -> tuple[list[tuple[Any, ...]], tuple[float] | None]:
            session = db.execute(
                "SELECT used_at FROM sessions WHERE owner = ? AND id = ?", (owner, session_id)
            )
            return query(db), session.fetchone()

        found, session = await self._read_at_once(read)
        if session is not None and self._is_stale(session[0]):
            await self._touch("sessions", [session_id], owner)
        return [NODES.row(values) for values in found]
