"""What a log adds to the transactions that open and end its turn."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from trio_agent.event_log.batches import TERMINAL, Batch, ending
from trio_agent.event_log.live import LiveLog
from trio_agent.statemachine import Turn
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.failure import Problem
from trio_agent.store.contract import TurnRow
from trio_agent.store.kept import Keeping, LogRow
from trio_agent.turn.keeper import Guarded, Keeper, joined


class LogKeeper:
    """Opens and ends a turn's log in one transaction with the turn's row.

    Args:
        inner: what else is kept of the turn. It is given the outputs of the log's end: with the one that ends
            the answer, also where nobody was there to be told.
        now: wall time in seconds since the epoch.
    """

    def __init__(self, log: LiveLog, inner: Keeper | None, *, now: Callable[[], float]) -> None:
        self._log = log
        self._inner = None if inner is None else Guarded(inner)
        self._now = now
        self._last: Batch | None = None

    def opening(self, row: TurnRow) -> Keeping | None:
        theirs = None if self._inner is None else self._inner.opening(row)
        return joined(theirs, Keeping(log=self._row(row)))

    def closing(self, turn: Turn, row: TurnRow, rest: Batch, *, parked: bool) -> Keeping | None:
        last = self._ended(row, rest)
        self._log.ended_at = self._now()
        theirs = None if self._inner is None else self._inner.closing(turn, row, last, parked=parked)
        entries = self._log.rest(last)
        self._last = last
        return joined(theirs, Keeping(log=self._row(row, self._log.ended_at), entries=entries))

    def written(self) -> None:
        if self._inner is not None:
            self._inner.written()
        if self._last is None:
            self._log.opened()
        else:
            self._log.seal(self._last)

    def _row(self, row: TurnRow, ended_at: float | None = None) -> LogRow:
        log = self._log
        return LogRow(
            id=log.id,
            owner=log.owner,
            turn_id=row.id,
            face=log.face,
            head=log.head or b"{}",
            created_at=log.created_at,
            ended_at=ended_at,
        )

    def _ended(self, row: TurnRow, rest: Batch) -> Batch:
        """The last batch, which ends the answer as the row has it."""
        whole = row.outcome in ("completed", "parked")
        ends = [each for each in rest if type(each) in TERMINAL and (whole or type(each) is not fx.Finish)]
        said = [each for each in rest if type(each) not in TERMINAL]
        return [*said, ends[-1] if ends else ending(_problem(row), [*self._log.batches, said])]


def _problem(row: TurnRow) -> Problem:
    """What is read of an answer that ended when nobody was there to be told."""
    if row.error is not None:
        return msgspec.convert(row.error, Problem)
    if row.reason == "shutdown":
        return Problem(code="server_shutdown", message="The server is shutting down.")
    return Problem(code="turn_cancelled", message="The turn was cancelled before its answer was complete.")
