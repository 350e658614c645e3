"""Writing down what a turn finds in the store, what it puts there, and where the store fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec
import trio

from trio_agent.recording.format import Found, StoreFailed
from trio_agent.recording.plain import plain
from trio_agent.recording.trace import RawOutcome, Trace
from trio_agent.store.contract import CallRow, ParkRow, ReasoningRow, StoreError, TurnRow, TurnStore
from trio_agent.store.kept import Keeping

T = TypeVar("T")


class TracedStore:
    """What one turn does with the store, written down.

    Args:
        turn_is: called with the turn's row before it is written for the first time.
        left_early: called when a write is cancelled; notes that the client has left, if that is why.
    """

    def __init__(
        self,
        inner: TurnStore,
        trace: Trace,
        turn_is: Callable[[TurnRow], None],
        left_early: Callable[[], bool],
    ) -> None:
        self._inner = inner
        self._trace = trace
        self._turn_is: Callable[[TurnRow], None] | None = turn_is
        self._left_early = left_early
        self._parks: dict[str, ParkRow] = {}
        self._row: TurnRow | None = None

    async def open_turn(self, row: TurnRow, keeping: Keeping | None = None) -> None:
        self._introduce(row)
        await self._write("open_turn", self._inner.open_turn(row, keeping))

    async def close_turn(
        self,
        row: TurnRow,
        calls: Sequence[CallRow],
        reasoning: Sequence[ReasoningRow] = (),
        keeping: Keeping | None = None,
    ) -> None:
        self._introduce(row)
        await self._write("close_turn", self._inner.close_turn(row, calls, reasoning, keeping))
        self._trace.put |= {kept.message for kept in reasoning}
        self._outcome(row, calls)

    async def park_turn(
        self,
        row: TurnRow,
        calls: Sequence[CallRow],
        park: ParkRow,
        reasoning: Sequence[ReasoningRow],
        keeping: Keeping | None = None,
    ) -> None:
        self._introduce(row)
        await self._write("park_turn", self._inner.park_turn(row, calls, park, reasoning, keeping))
        self._trace.put |= {park.snapshot, *(kept.message for kept in reasoning)}
        self._outcome(msgspec.structs.replace(row, outcome="parked"), calls)

    async def find_parks(self, owner: str, call_ids: Sequence[str]) -> list[ParkRow]:
        parks = await self._read("find_parks", self._inner.find_parks(owner, call_ids))
        self._parks = {park.turn_id: park for park in parks}
        return parks

    async def get_turn(self, turn_id: str) -> TurnRow | None:
        row = await self._read("get_turn", self._inner.get_turn(turn_id))
        self._row = row
        return row

    async def take_park(self, turn_id: str, now: float, snapshot: bytes | None = None) -> bool:
        got = await self._read("take_park", self._inner.take_park(turn_id, now, snapshot))
        park = self._parks.get(turn_id)
        if park is not None and park.snapshot not in self._trace.put:
            turn = None if self._row is None else plain(self._row)
            self._found(Found(park=plain(park), turn=turn, taken=not got))
        return got

    async def find_reasoning(self, owner: str, tool_call_ids: Sequence[str]) -> list[ReasoningRow]:
        rows = await self._read("find_reasoning", self._inner.find_reasoning(owner, tool_call_ids))
        news = [row for row in rows if row.message not in self._trace.put]
        if news:
            self._found(Found(reasoning=plain(news)))
        return rows

    def _found(self, line: Found) -> None:
        line.t = self._trace.now()
        self._trace.add(line, 4000)

    def _introduce(self, row: TurnRow) -> None:
        turn_is, self._turn_is = self._turn_is, None
        if turn_is is not None:
            turn_is(row)

    async def _read(self, op: str, work: Awaitable[T]) -> T:
        nth = self._trace.next_operation(op)
        try:
            return await work
        except StoreError as error:
            self._trace.add(StoreFailed(t=self._trace.now(), op=op, nth=nth, message=str(error)))
            raise

    async def _write(self, op: str, work: Awaitable[None]) -> None:
        nth = self._trace.next_operation(op)
        try:
            await work
        except StoreError as error:
            self._trace.add(StoreFailed(t=self._trace.now(), op=op, nth=nth, message=str(error)))
            raise
        except trio.Cancelled:
            # A turn's writes are shielded from whoever leaves: their own time limit is over.
            if not self._left_early():
                self._trace.add(StoreFailed(t=self._trace.now(), op=op, nth=nth, hangs=True))
            raise

    def _outcome(self, row: TurnRow, calls: Sequence[CallRow]) -> None:
        self._trace.add(RawOutcome(self._trace.now(), row, tuple(calls)), 1000)
