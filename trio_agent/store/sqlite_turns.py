"""Turns, their calls, parks and reasoning in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from trio_agent.store import queries, rows
from trio_agent.store.contract import CallRow, ParkRow, ReasoningRow, TurnRow
from trio_agent.store.kept import Keeping
from trio_agent.store.rows import list_of
from trio_agent.store.sqlite_keeping import KeptWriting, Phase
from trio_agent.store.sqlite_part import SqlitePart, Work

_ROWS_PER_SWEEP: Final = 200

# A park is taken while its turn runs, and free while it is parked; nothing else says so.
_EXPIRED: Final = (
    "SELECT turn_id FROM parks WHERE expires_at <= ? "
    "AND turn_id NOT IN (SELECT id FROM turns WHERE outcome = 'running') ORDER BY expires_at, turn_id LIMIT ?"
)


class SqliteTurns(SqlitePart):
    """The part of the store that is about turns."""

    async def open_turn(self, row: TurnRow, keeping: Keeping | None = None) -> None:
        """Write the row of a turn that begins or goes on, as `running` in this instance."""
        values = rows.turn_values(row, "running", self._instance.id)
        kept = self._kept(keeping, "begin")
        undo_open = self._undo_open(row.id)

        def open_(db: sqlite3.Connection) -> None:
            db.execute(rows.PUT_TURN, values)
            if kept is not None:
                kept.write(db)

        def undo(db: sqlite3.Connection) -> None:
            undo_open(db)
            if kept is not None:
                kept.undo(db)

        await self._writer.submit(open_, undo=undo)

    async def close_turn(
        self,
        row: TurnRow,
        calls: Sequence[CallRow],
        reasoning: Sequence[ReasoningRow] = (),
        keeping: Keeping | None = None,
    ) -> None:
        """Write a turn's outcome, its model calls and its reasoning; a park of the turn is gone then.

        A repeat replaces what it repeats. Raises ValueError for an outcome that ends nothing.
        """
        if row.outcome in ("running", "parked"):
            raise ValueError(f"a turn cannot be closed as {row.outcome!r}")
        write = _ending(row, row.outcome, calls, reasoning)
        kept = self._kept(keeping, "end")

        def close(db: sqlite3.Connection) -> None:
            write(db)
            db.execute("DELETE FROM parks WHERE turn_id = ?", (row.id,))
            if kept is not None:
                kept.write(db)

        await self._writer.submit(close)

    async def park_turn(
        self,
        row: TurnRow,
        calls: Sequence[CallRow],
        park: ParkRow,
        reasoning: Sequence[ReasoningRow],
        keeping: Keeping | None = None,
    ) -> None:
        """Write outcome `parked`, whatever `row.outcome` says, with calls, snapshot and reasoning.

        An earlier park of the turn is replaced, and the new one is free, even if that one was taken. Raises
        ValueError for a park of another turn.
        """
        if park.turn_id != row.id:
            raise ValueError(f"the park of turn {park.turn_id!r} does not belong to turn {row.id!r}")
        write = _ending(row, "parked", calls, reasoning)
        kept = self._kept(keeping, "end")
        values = rows.park_values(park)
        owed = [(park.owner, call_id, park.turn_id) for call_id in dict.fromkeys(park.call_ids)]

        def put(db: sqlite3.Connection) -> None:
            write(db)
            db.execute(rows.PUT_PARK, values)
            db.execute("DELETE FROM park_calls WHERE turn_id = ?", (park.turn_id,))
            db.executemany("INSERT INTO park_calls (owner, call_id, turn_id) VALUES (?, ?, ?)", owed)
            if kept is not None:
                kept.write(db)

        await self._writer.submit(put)

    async def close_late(self, row: TurnRow, calls: Sequence[CallRow]) -> None:
        """Write an outcome that is overdue, unless there is one. Raises as `close_turn` does."""
        if row.outcome in ("running", "parked"):
            raise ValueError(f"a turn cannot be closed as {row.outcome!r}")
        write, now = _ending(row, row.outcome, calls, ()), self._now()

        def close(db: sqlite3.Connection) -> None:
            held = db.execute("SELECT outcome, instance FROM turns WHERE id = ?", (row.id,)).fetchone()
            if held in (None, ("running", self._instance.id)):
                write(db)
                db.execute("DELETE FROM parks WHERE turn_id = ?", (row.id,))
            # Its answer has nobody who writes it any more.
            self._instance.recover(db, now)

        await self._writer.submit(close)

    async def find_parks(self, owner: str, call_ids: Sequence[str]) -> list[ParkRow]:
        """The free, unexpired parks of `owner` that wait for any of these calls, the newest first."""
        found = await self._select(
            f"SELECT {rows.PARK_COLUMNS} FROM parks CROSS JOIN turns ON turns.id = parks.turn_id "  # noqa: S608 -- constants
            "WHERE parks.expires_at > ? AND turns.outcome = 'parked' AND parks.turn_id IN ("
            "SELECT turn_id FROM park_calls WHERE owner = ? AND call_id IN (SELECT value FROM json_each(?))"
            ") ORDER BY parks.created_at DESC, parks.turn_id DESC",
            (self._now(), owner, list_of(call_ids)),
        )
        return [rows.park_of(values) for values in found]

    async def take_park(self, turn_id: str, now: float, snapshot: bytes | None = None) -> bool:
        """Take an unexpired park; of all callers, in whatever process, one gets True until it is put back.

        The turn's return to `running` is the taking. The park lies beside it until the turn is closed or
        parked again, so it outlives the process that took it (see `Instance.recover`).
        """

        def take(db: sqlite3.Connection) -> bool:
            taken = db.execute(
                "UPDATE turns SET outcome = 'running', reason = NULL, ended_at = NULL, instance = ? "
                "WHERE id = ? AND outcome = 'parked' AND EXISTS (SELECT * FROM parks "
                "WHERE turn_id = turns.id AND expires_at > ? AND snapshot = coalesce(?, snapshot))",
                (self._instance.id, turn_id, now, snapshot),
            )
            return taken.rowcount == 1

        def give_back(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE turns SET outcome = 'parked', reason = 'tool_calls', instance = NULL "
                "WHERE id = ? AND outcome = 'running' AND instance = ?",
                (turn_id, self._instance.id),
            )

        return await self._writer.submit(take, undo=give_back)

    async def expire_parks(self, now: float) -> int:
        """Close the turns whose park has expired (`abandoned`, `host_tool_timeout`); returns how many.

        One that is taken is left alone; it expires when it is put back.
        """

        def expire(db: sqlite3.Connection) -> tuple[int, int]:
            due = db.execute(_EXPIRED, (now, _ROWS_PER_SWEEP)).fetchall()
            closed = 0
            for (turn_id,) in due:
                closed += db.execute(
                    "UPDATE turns SET outcome = 'abandoned', reason = 'host_tool_timeout', ended_at = ? "
                    "WHERE id = ? AND outcome = 'parked'",
                    (now, turn_id),
                ).rowcount
                db.execute("DELETE FROM parks WHERE turn_id = ?", (turn_id,))
            return len(due), closed

        closed_in_all = 0
        while True:
            due, closed = await self._writer.submit(expire)
            closed_in_all += closed
            if due < _ROWS_PER_SWEEP:
                return closed_in_all

    async def find_reasoning(self, owner: str, tool_call_ids: Sequence[str]) -> list[ReasoningRow]:
        """What is kept of `owner` for these calls, in the order of the ids; missing ones are left out."""
        found = await self._select(
            f"SELECT {rows.REASONING_COLUMNS} FROM json_each(?) AS asked CROSS JOIN reasoning "  # noqa: S608 -- constants
            "ON reasoning.owner = ? AND reasoning.tool_call_id = asked.value ORDER BY asked.key",
            (list_of(tool_call_ids), owner),
        )
        return [rows.reasoning_of(values) for values in found]

    async def get_turn(self, turn_id: str) -> TurnRow | None:
        return await self._readers.read(lambda db: queries.get_turn(db, turn_id))

    async def count_turns(self, outcome: str) -> int:
        """How many turns have this outcome now."""
        found = await self._select("SELECT count(*) FROM turns WHERE outcome = ?", (outcome,))
        return int(found[0][0])

    async def size(self) -> int:
        """Bytes of the database; what its log has not brought there yet is not counted."""
        found = await self._select(
            "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size", ()
        )
        return int(found[0][0])

    async def list_turns(
        self,
        *,
        limit: int = 100,
        owner: str | None = None,
        session_id: str | None = None,
        outcome: str | None = None,
        model: str | None = None,
        after: str | None = None,
        before: str | None = None,
    ) -> list[TurnRow]:
        """A page of turns, the newest first."""
        query = partial(
            queries.list_turns,
            limit=limit,
            owner=owner,
            session_id=session_id,
            outcome=outcome,
            model=model,
            after=after,
            before=before,
        )
        return await self._readers.read(query)

    async def list_calls(self, *turn_ids: str) -> list[CallRow]:
        """The model calls of turns, those of each in the order in which they were written."""
        return await self._readers.read(lambda db: queries.list_calls(db, turn_ids))

    def _kept(self, keeping: Keeping | None, phase: Phase) -> KeptWriting | None:
        if keeping is None:
            return None
        return KeptWriting(
            keeping,
            phase,
            now=self._time_of_use(),
            bounds=self._bounds,
            session_turns=self._limits.max_session_turns,
        )

    def _undo_open(self, turn_id: str) -> Work:
        """Closes a turn whose owner was told that it could not be opened, though it was.

        A resumed turn is left alone: its owner puts the park back next and, if that fails, recovery does.
        """
        values = (self._now(), turn_id, self._instance.id)
        return lambda db: db.execute(
            "UPDATE turns SET outcome = 'abandoned', reason = 'store_timeout', ended_at = ?, instance = NULL "
            "WHERE id = ? AND outcome = 'running' AND instance = ? AND id NOT IN (SELECT turn_id FROM parks)",
            values,
        )


def _ending(
    row: TurnRow, outcome: str, calls: Sequence[CallRow], reasoning: Sequence[ReasoningRow]
) -> Callable[[sqlite3.Connection], None]:
    if strangers := {call.turn_id for call in calls} - {row.id}:
        raise ValueError(f"model calls of {sorted(strangers)} do not belong to turn {row.id!r}")
    turn = rows.turn_values(row, outcome, None)
    call_values = [rows.call_values(call) for call in calls]
    reasoning_values = [rows.reasoning_values(kept) for kept in reasoning]

    def write(db: sqlite3.Connection) -> None:
        db.execute(rows.PUT_TURN, turn)
        db.executemany(rows.PUT_CALL, call_values)
        db.executemany(rows.PUT_REASONING, reasoning_values)

    return write
