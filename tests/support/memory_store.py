"""The store in memory for tests in virtual time, with faults on demand and a memory of the writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import trio

from trio_agent.store import memory
from trio_agent.store.contract import CallRow, ParkRow, ReasoningRow, StoreError, TurnRow
from trio_agent.store.kept import Keeping


class MemoryStore(memory.MemoryStore):
    """A store that can be told to fail.

    Every operation takes `delay` seconds. One named in `failing` raises StoreError, one in `hanging`
    never answers. `endings` counts how often each turn was given a final outcome, and `log` names
    the writes in order.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.failing: set[str] = set()
        self.hanging: set[str] = set()
        self.delay = 0.0
        self.endings: Counter[str] = Counter()
        self.log: list[tuple[str, str]] = []
        self.sweeps = 0

    @property
    def only(self) -> TurnRow:
        """The one turn there is."""
        (row,) = self.turns.values()
        return row

    @property
    def model_calls(self) -> list[CallRow]:
        return [call for calls in self.calls.values() for call in calls]

    async def open_turn(self, row: TurnRow, keeping: Keeping | None = None) -> None:
        await super().open_turn(row, keeping)
        self.log.append(("open", row.id))

    async def close_turn(
        self,
        row: TurnRow,
        calls: Sequence[CallRow],
        reasoning: Sequence[ReasoningRow] = (),
        keeping: Keeping | None = None,
    ) -> None:
        await super().close_turn(row, calls, reasoning, keeping)
        self.log.append(("close", row.id))
        self.endings[row.id] += 1

    async def close_late(self, row: TurnRow, calls: Sequence[CallRow]) -> None:
        await super().close_late(row, calls)
        if self.turns[row.id] is row:
            self.log.append(("close late", row.id))
            self.endings[row.id] += 1

    async def park_turn(
        self,
        row: TurnRow,
        calls: Sequence[CallRow],
        park: ParkRow,
        reasoning: Sequence[ReasoningRow],
        keeping: Keeping | None = None,
    ) -> None:
        await super().park_turn(row, calls, park, reasoning, keeping)
        self.log.append(("park", row.id))

    async def take_park(self, turn_id: str, now: float, snapshot: bytes | None = None) -> bool:
        taken = await super().take_park(turn_id, now, snapshot)
        if taken:
            self.log.append(("take", turn_id))
        return taken

    async def expire_parks(self, now: float) -> int:
        before = set(self.parks)
        closed = await super().expire_parks(now)
        self.endings.update(before - set(self.parks))
        return closed

    async def sweep(self, now: float) -> None:
        await super().sweep(now)
        self.sweeps += 1

    async def _io(self, op: str) -> None:
        if op in self.hanging:
            await trio.sleep_forever()
        await trio.sleep(self.delay)
        if op in self.failing:
            raise StoreError(f"The disk is gone ({op}).")
