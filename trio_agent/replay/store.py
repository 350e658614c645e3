"""The store of a replay: what the file says was found in it, and the failures that the file says it had."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

import msgspec
import trio

from trio_agent.recording.format import Found, StoreFailed
from trio_agent.store.contract import ParkRow, ReasoningRow, StoreError, TurnRow
from trio_agent.store.memory import MemoryStore

READS = frozenset({"find_parks", "take_park", "get_turn", "find_reasoning"})
WRITES = frozenset({"open_turn", "close_turn", "park_turn"})


class ReplayStore(MemoryStore):
    """A store that fails when the file says so.

    Args:
        now: wall time in seconds since the epoch.
        failure_of: the file's line for the operation that is asked for the nth time in this response, from 1.
        failed: called with that line when the operation fails.
        written: returns when a write may be done.
        answered: returns when what was looked for may be given.
    """

    def __init__(
        self,
        now: Callable[[], float],
        failure_of: Callable[[str, int], StoreFailed | None],
        failed: Callable[[StoreFailed], None],
        written: Callable[[], Awaitable[None]],
        answered: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(now)
        self._failure_of = failure_of
        self._failed = failed
        self._written = written
        self._answered = answered
        self._asked: Counter[str] = Counter()
        self._taken: set[str] = set()

    async def _io(self, op: str) -> None:
        self._asked[op] += 1
        failure = self._failure_of(op, self._asked[op])
        if failure is None:
            await super()._io(op)
            await (self._written if op in WRITES else self._answered)()
            return
        if failure.hangs:
            try:
                await trio.sleep_forever()
            finally:
                self._failed(failure)
        if op in WRITES:
            await self._written()  # who leaves amid a write leaves before it fails
        self._failed(failure)
        raise StoreError(failure.message or "The store failed.")

    async def _kept_io(self, op: str) -> None:
        """What is kept beside turns is no part of a recording, so nothing there says when it is read."""
        del op
        await trio.lowlevel.checkpoint()

    def renumber(self) -> None:
        """Count operations anew: another response begins."""
        self._asked.clear()

    async def take_park(self, turn_id: str, now: float, snapshot: bytes | None = None) -> bool:
        if turn_id in self._taken:
            await self._io("take_park")
            return False
        return await super().take_park(turn_id, now, snapshot)

    def put(self, found: Found) -> None:
        """Put the rows of a line into the store."""
        reasoning, turn, park = rows_of(found)
        for each in reasoning:
            self.reasoning[each.owner, each.tool_call_id, each.asked] = each
        if turn is not None and park is not None:
            self.turns[turn.id] = msgspec.structs.replace(turn, outcome="parked")
            self.parks[turn.id] = park
            if found.taken:
                self._taken.add(turn.id)


def rows_of(found: Found) -> tuple[list[ReasoningRow], TurnRow | None, ParkRow | None]:
    """The rows of a line, as those of whoever asks: a replay knows no keys.

    Raises:
        msgspec.ValidationError: they are no rows, or a park comes without its turn's row.
    """
    reasoning = [msgspec.convert({**each, "owner": ""}, ReasoningRow) for each in found.reasoning]
    if found.park is None and found.turn is None:
        return reasoning, None, None
    if found.park is None or found.turn is None:
        raise msgspec.ValidationError("a park and its turn's row come together")
    turn = msgspec.convert({**found.turn, "owner": ""}, TurnRow)
    park = msgspec.convert({**found.park, "owner": ""}, ParkRow)
    if park.turn_id != turn.id:
        raise msgspec.ValidationError("the park is another turn's than the row")
    return reasoning, turn, park
