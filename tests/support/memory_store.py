"""A store in memory for tests in virtual time, with faults on demand. Nothing in it is durable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
import trio

from trio_agent.store.contract import CallRow, ParkRow, ReasoningRow, StoreError, TurnRow


class MemoryStore:
    """Keeps the store contract as far as turns lean on it; filters, instances and closing are left out.

    Every write takes `delay` seconds. A method named in `failing` raises StoreError, one in `hanging`
    never answers. `endings` counts how often each turn was given a final outcome, and `log` names
    the writes in order.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.turns: dict[str, TurnRow] = {}
        self.calls: dict[str, list[CallRow]] = {}
        self.parks: dict[str, ParkRow] = {}
        self.reasoning: dict[tuple[str, str, str], ReasoningRow] = {}
        self.failing: set[str] = set()
        self.hanging: set[str] = set()
        self.delay = 0.0
        self.endings: Counter[str] = Counter()
        self.log: list[tuple[str, str]] = []
        self.sweeps = 0
        self._now = now

    @property
    def only(self) -> TurnRow:
        """The one turn there is."""
        (row,) = self.turns.values()
        return row

    @property
    def model_calls(self) -> list[CallRow]:
        return [call for calls in self.calls.values() for call in calls]

    async def open_turn(self, row: TurnRow) -> None:
        await self._io("open_turn")
        self.log.append(("open", row.id))
        self.turns[row.id] = msgspec.structs.replace(row, outcome="running")

    async def close_turn(
        self, row: TurnRow, calls: Sequence[CallRow], reasoning: Sequence[ReasoningRow] = ()
    ) -> None:
        if row.outcome in ("running", "parked"):
            raise ValueError(f"a turn cannot be closed as {row.outcome!r}")
        await self._io("close_turn")
        self.log.append(("close", row.id))
        self.endings[row.id] += 1
        self._end(row, calls, reasoning)
        self.parks.pop(row.id, None)

    async def park_turn(
        self, row: TurnRow, calls: Sequence[CallRow], park: ParkRow, reasoning: Sequence[ReasoningRow]
    ) -> None:
        if park.turn_id != row.id:
            raise ValueError("the park belongs to another turn")
        await self._io("park_turn")
        self.log.append(("park", row.id))
        self._end(msgspec.structs.replace(row, outcome="parked"), calls, reasoning)
        self.parks[row.id] = park

    def _end(self, row: TurnRow, calls: Sequence[CallRow], reasoning: Sequence[ReasoningRow]) -> None:
        if any(call.turn_id != row.id for call in calls):
            raise ValueError("a model call belongs to another turn")
        self.turns[row.id] = row
        self.calls.setdefault(row.id, []).extend(calls)
        self.reasoning |= {(kept.owner, kept.tool_call_id, kept.asked): kept for kept in reasoning}

    async def find_parks(self, owner: str, call_ids: Sequence[str]) -> list[ParkRow]:
        await self._io("find_parks")
        found = [
            park
            for park in self.parks.values()
            if park.owner == owner
            and set(park.call_ids) & set(call_ids)
            and park.expires_at > self._now()
            and self.turns[park.turn_id].outcome == "parked"
        ]
        return sorted(found, key=lambda park: (park.created_at, park.turn_id), reverse=True)

    async def take_park(self, turn_id: str, now: float, snapshot: bytes | None = None) -> bool:
        await self._io("take_park")
        park = self.parks.get(turn_id)
        if park is None or park.expires_at <= now or self.turns[turn_id].outcome != "parked":
            return False
        if snapshot not in (None, park.snapshot):
            return False
        self.log.append(("take", turn_id))
        self.turns[turn_id] = msgspec.structs.replace(
            self.turns[turn_id], outcome="running", reason=None, ended_at=None
        )
        return True

    async def expire_parks(self, now: float) -> int:
        await self._io("expire_parks")
        expired = [
            park.turn_id
            for park in self.parks.values()
            if park.expires_at <= now and self.turns[park.turn_id].outcome != "running"
        ]
        for turn_id in expired:
            del self.parks[turn_id]
            self.endings[turn_id] += 1
            self.turns[turn_id] = msgspec.structs.replace(
                self.turns[turn_id], outcome="abandoned", reason="host_tool_timeout", ended_at=now
            )
        return len(expired)

    async def sweep(self, now: float) -> None:
        await self._io("sweep")
        self.sweeps += 1

    async def find_reasoning(self, owner: str, tool_call_ids: Sequence[str]) -> list[ReasoningRow]:
        await self._io("find_reasoning")
        return [
            kept
            for call_id in dict.fromkeys(tool_call_ids)
            for kept in self.reasoning.values()
            if (kept.owner, kept.tool_call_id) == (owner, call_id)
        ]

    async def get_turn(self, turn_id: str) -> TurnRow | None:
        await self._io("get_turn")
        return self.turns.get(turn_id)

    async def list_turns(self, *, limit: int = 100) -> list[TurnRow]:
        await self._io("list_turns")
        return sorted(self.turns.values(), key=lambda row: (row.created_at, row.id), reverse=True)[:limit]

    async def list_calls(self, turn_id: str) -> list[CallRow]:
        await self._io("list_calls")
        return list(self.calls.get(turn_id, ()))

    async def count_turns(self, outcome: str) -> int:
        await self._io("count_turns")
        return sum(row.outcome == outcome for row in self.turns.values())

    async def _io(self, method: str) -> None:
        if method in self.hanging:
            await trio.sleep_forever()
        await trio.sleep(self.delay)
        if method in self.failing:
            raise StoreError(f"The disk is gone ({method}).")
