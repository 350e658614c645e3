"""The store as the run sees it: each write noted, and held against what a turn's row may go through."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from simulation.chronicle import Chronicle

from trio_agent.store.contract import CallRow, ParkRow, ReasoningRow, StoreError, TurnRow

T = TypeVar("T")


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

    def moved(self, turn_id: str, what: str, allowed: Sequence[str | None], then: str) -> None:
        self._chronicle.note("store", f"{turn_id} {what}")
        stood = self.standing.get(turn_id)
        if stood not in allowed and turn_id not in self.unsure:
            self._chronicle.violate(1, f"{turn_id}: {what}, though it is {stood}")
        self.standing[turn_id] = then

    def failed(self, turn_id: str, what: str, error: Exception) -> None:
        self._chronicle.note("store", f"{turn_id} {what} failed: {str(error)[:60]}")
        self.unsure.add(turn_id)

    def process_ended(self, *, crashed: bool) -> None:
        """What recovery makes of turns that were left running."""
        for turn_id, stood in self.standing.items():
            if stood in ("running", "resumed"):
                self.standing[turn_id] = "closed" if stood == "running" else "parked"
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
        self, write: Awaitable[T], turn_id: str, what: str, allowed: Sequence[str | None], then: str
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
            self._ledger.moved(turn_id, what, allowed, then)
        return result

    async def open_turn(self, row: TurnRow) -> None:
        again = self._ledger.standing.get(row.id) == "resumed"
        await self._noted(
            self.inner.open_turn(row),
            row.id,
            "opened",
            ["resumed"] if again else [None],
            "resumed" if again else "running",
        )

    async def close_turn(
        self, row: TurnRow, calls: Sequence[CallRow], reasoning: Sequence[ReasoningRow] = ()
    ) -> None:
        fresh: list[str | None] = [None] if row.outcome == "rejected" else []
        await self._noted(
            self.inner.close_turn(row, calls, reasoning),
            row.id,
            f"closed as {row.outcome}, {row.reason}",
            ["running", "resumed", *fresh],
            "closed",
        )

    async def park_turn(
        self, row: TurnRow, calls: Sequence[CallRow], park: ParkRow, reasoning: Sequence[ReasoningRow]
    ) -> None:
        await self._noted(
            self.inner.park_turn(row, calls, park, reasoning),
            row.id,
            f"parked, {row.reason}",
            ["running", "resumed"],
            "parked",
        )

    async def take_park(self, turn_id: str, now: float, snapshot: bytes | None = None) -> bool:
        taking = self.inner.take_park(turn_id, now, snapshot)
        taken: bool = await self._noted(taking, turn_id, "taken", ["parked"], "resumed")
        return taken
