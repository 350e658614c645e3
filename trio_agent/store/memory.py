"""A store in memory: what replays and tests run on. Nothing in it is durable: no server runs on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import trio

from trio_agent.store.contract import CallRow, ParkRow, ReasoningRow, TurnRow
from trio_agent.store.kept import Keeping
from trio_agent.store.limits import Limits
from trio_agent.store.memory_audit import MemoryAudit
from trio_agent.store.memory_kept import MemoryKept

REASONING_KEPT_S = 30 * 24 * 3600.0


class MemoryStore(MemoryKept, MemoryAudit):
    """Keeps the store contract for one process. Without threads, so it works in virtual time.

    Args:
        now: wall time in seconds since the epoch.
        limits: what is kept of answers and conversations.
    """

    def __init__(self, now: Callable[[], float], limits: Limits | None = None) -> None:
        MemoryKept.__init__(self, now, limits or Limits())
        MemoryAudit.__init__(self)
        self.turns: dict[str, TurnRow] = {}
        self.calls: dict[str, list[CallRow]] = {}
        self.parks: dict[str, ParkRow] = {}
        self.reasoning: dict[tuple[str, str, str], ReasoningRow] = {}

    async def _io(self, op: str) -> None:
        """What every operation does first; a subclass may wait here, or fail with StoreError."""
        del op
        await trio.lowlevel.checkpoint()

    async def _kept_io(self, op: str) -> None:
        await self._io(op)

    # --- what turns write ---------------------------------------------------------------------------

    async def open_turn(self, row: TurnRow, keeping: Keeping | None = None) -> None:
        await self._io("open_turn")
        self.turns[row.id] = msgspec.structs.replace(row, outcome="running")
        self.keep(keeping, "begin")

    async def close_turn(
        self,
        row: TurnRow,
        calls: Sequence[CallRow],
        reasoning: Sequence[ReasoningRow] = (),
        keeping: Keeping | None = None,
    ) -> None:
        """Raises ValueError for an outcome that ends nothing."""
        if row.outcome in ("running", "parked"):
            raise ValueError(f"a turn cannot be closed as {row.outcome!r}")
        _check_calls(row, calls)
        await self._io("close_turn")
        self._put(row, calls, reasoning)
        self.parks.pop(row.id, None)
        self.keep(keeping, "end")

    async def close_late(self, row: TurnRow, calls: Sequence[CallRow]) -> None:
        if row.outcome in ("running", "parked"):
            raise ValueError(f"a turn cannot be closed as {row.outcome!r}")
        await self._io("close_late")
        held = self.turns.get(row.id)
        if held is None or held.outcome == "running":
            self._put(row, calls, ())
            self.parks.pop(row.id, None)
        self.break_off(row.id)

    async def park_turn(
        self,
        row: TurnRow,
        calls: Sequence[CallRow],
        park: ParkRow,
        reasoning: Sequence[ReasoningRow],
        keeping: Keeping | None = None,
    ) -> None:
        """Raises ValueError for a park of another turn."""
        if park.turn_id != row.id:
            raise ValueError(f"the park of turn {park.turn_id!r} does not belong to turn {row.id!r}")
        _check_calls(row, calls)
        await self._io("park_turn")
        self._put(msgspec.structs.replace(row, outcome="parked"), calls, reasoning)
        self.parks[row.id] = park
        self.keep(keeping, "end")

    def _put(self, row: TurnRow, calls: Sequence[CallRow], reasoning: Sequence[ReasoningRow]) -> None:
        kept = {_key(call): call for call in (*self.calls.get(row.id, ()), *calls)}
        self.turns[row.id] = row
        self.calls[row.id] = sorted(kept.values(), key=lambda call: call.number)
        self.reasoning |= {(each.owner, each.tool_call_id, each.asked): each for each in reasoning}

    # --- parks ------------------------------------------------------------------------------------------

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
            self.turns[turn_id] = msgspec.structs.replace(
                self.turns[turn_id], outcome="abandoned", reason="host_tool_timeout", ended_at=now
            )
        return len(expired)

    async def sweep(self, now: float) -> None:
        await self._io("sweep")
        self.reasoning = {
            key: kept for key, kept in self.reasoning.items() if kept.created_at >= now - REASONING_KEPT_S
        }
        self.forget_old(now)

    # --- reading ----------------------------------------------------------------------------------------

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
        await self._io("list_turns")
        filters = {"owner": owner, "session_id": session_id, "outcome": outcome, "model": model}
        wanted = {name: value for name, value in filters.items() if value is not None}
        rows = [
            row
            for row in sorted(self.turns.values(), key=_age, reverse=True)
            if all(getattr(row, name) == value for name, value in wanted.items())
        ]
        for cursor in {after, before} - {None}:
            if cursor not in self.turns:
                return []
        if after is not None:
            rows = [row for row in rows if _age(row) < _age(self.turns[after])]
        if before is not None:
            rows = [row for row in rows if _age(row) > _age(self.turns[before])]
            return rows[max(0, len(rows) - limit) :] if limit > 0 else []
        return rows[: max(0, limit)]

    async def list_calls(self, *turn_ids: str) -> list[CallRow]:
        await self._io("list_calls")
        return [call for turn_id in dict.fromkeys(turn_ids) for call in self.calls.get(turn_id, ())]

    async def size(self) -> int:
        await self._io("size")
        return 0

    async def count_turns(self, outcome: str) -> int:
        await self._io("count_turns")
        return sum(row.outcome == outcome for row in self.turns.values())


def _check_calls(row: TurnRow, calls: Sequence[CallRow]) -> None:
    strangers = {call.turn_id for call in calls} - {row.id}
    if strangers:
        raise ValueError(f"model calls of {sorted(strangers)} do not belong to turn {row.id!r}")


def _age(row: TurnRow) -> tuple[float, str]:
    return row.created_at, row.id


def _key(call: CallRow) -> tuple[int, float, int, str, str]:
    """What makes two rows the same call."""
    return call.number, call.started_at, call.attempt, call.provider, call.model
