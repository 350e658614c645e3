"""The store as the run sees it: each write noted, and held against what a turn's row may go through."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

import trio
from msgspec import Struct
from simulation.chronicle import Chronicle

from trio_agent.store.contract import CallRow, ParkRow, ReasoningRow, StoreError, TurnRow
from trio_agent.store.kept import Keeping

T = TypeVar("T")


class Change(Struct, frozen=True):
    """A write that succeeded: of which turn, what it was called, where the turn stood then, and when."""

    turn_id: str
    what: str
    then: str
    at: float
    row: TurnRow | None = None


class Ledger:
    """What was written of each turn, over all lives of the server.

    `standing` is where a turn stands: `running`, `parked`, `resumed` (taken, or running again), `closed`.
    `unsure` are turns one of whose writes failed, so that only the database knows.
    """

    def __init__(self, chronicle: Chronicle) -> None:
        self._chronicle = chronicle
        self.standing: dict[str, str] = {}
        self.unsure: set[str] = set()
        self.crashed: set[str] = set()
        self.changes: list[Change] = []

    def outcome_after(self, turn_id: str, mark: int) -> TurnRow | None:
        """The first end or park of a turn that was written after so many changes."""
        for change in self.changes[mark:]:
            if change.turn_id == turn_id and change.then in ("closed", "parked"):
                return change.row
        return None

    def last_written(self, turn_id: str) -> TurnRow | None:
        """The turn's row as it was written last, where nothing but a turn has written it since."""
        changes = [change for change in self.changes if change.turn_id == turn_id]
        return changes[-1].row if changes and changes[-1].then in ("closed", "parked") else None

    def begun_at(self, turn_id: str, before: float) -> float | None:
        """When the turn's response began that was running at that moment."""
        times = [
            each.at
            for each in self.changes
            if each.turn_id == turn_id and each.what == "opened" and each.at <= before + 1e-6
        ]
        return times[-1] if times else None

    def moved(
        self,
        turn_id: str,
        what: str,
        allowed: Sequence[str | None],
        then: str,
        row: TurnRow | None = None,
    ) -> None:
        self._chronicle.note("store", f"{turn_id} {what}")
        stood = self.standing.get(turn_id)
        if stood not in allowed and turn_id not in self.unsure:
            self._chronicle.violate(1, f"{turn_id}: {what}, though it is {stood}")
        self.standing[turn_id] = then
        self.changes.append(Change(turn_id, what, then, trio.current_time(), row))

    def failed(self, turn_id: str, what: str, error: Exception) -> None:
        self._chronicle.note("store", f"{turn_id} {what} failed: {str(error)[:60]}")
        self.unsure.add(turn_id)

    def process_ended(self, *, crashed: bool) -> None:
        """What recovery makes of turns that were left running."""
        for turn_id, stood in self.standing.items():
            if stood in ("running", "resumed"):
                then = self.standing[turn_id] = "closed" if stood == "running" else "parked"
                self.changes.append(Change(turn_id, "recovered", then, trio.current_time()))
                if crashed:
                    self.crashed.add(turn_id)
                elif turn_id not in self.unsure:
                    self._chronicle.violate(
                        1, f"{turn_id}: left {stood} by a server that ended in good order"
                    )


class ObservedStore:
    """A store that tells the ledger of every write before its caller hears of it."""

    def __init__(self, store: Any, ledger: Ledger) -> None:
        self.inner = store
        self._ledger = ledger

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def _noted(
        self,
        write: Awaitable[T],
        turn_id: str,
        what: str,
        allowed: Sequence[str | None],
        then: str,
        row: TurnRow | None = None,
    ) -> T:
        try:
            result = await write
        except BaseException as error:
            if isinstance(error, StoreError):
                self._ledger.failed(turn_id, what, error)
            else:
                self._ledger.unsure.add(turn_id)
            raise
        if result is not False:
            self._ledger.moved(turn_id, what, allowed, then, row)
        return result

    async def open_turn(self, row: TurnRow, keeping: Keeping | None = None) -> None:
        again = self._ledger.standing.get(row.id) == "resumed"
        await self._noted(
            self.inner.open_turn(row, keeping),
            row.id,
            "opened",
            ["resumed"] if again else [None],
            "resumed" if again else "running",
            row,
        )

    async def close_turn(
        self,
        row: TurnRow,
        calls: Sequence[CallRow],
        reasoning: Sequence[ReasoningRow] = (),
        keeping: Keeping | None = None,
    ) -> None:
        fresh: list[str | None] = [None] if row.outcome == "rejected" else []
        await self._noted(
            self.inner.close_turn(row, calls, reasoning, keeping),
            row.id,
            f"closed as {row.outcome}, {row.reason}",
            ["running", "resumed", *fresh],
            "closed",
            row,
        )

    async def park_turn(
        self,
        row: TurnRow,
        calls: Sequence[CallRow],
        park: ParkRow,
        reasoning: Sequence[ReasoningRow],
        keeping: Keeping | None = None,
    ) -> None:
        await self._noted(
            self.inner.park_turn(row, calls, park, reasoning, keeping),
            row.id,
            f"parked, {row.reason}",
            ["running", "resumed"],
            "parked",
            row,
        )

    async def take_park(self, turn_id: str, now: float, snapshot: bytes | None = None) -> bool:
        taking = self.inner.take_park(turn_id, now, snapshot)
        taken: bool = await self._noted(taking, turn_id, "taken", ["parked"], "resumed")
        return taken
