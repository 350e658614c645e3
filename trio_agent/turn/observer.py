"""Who watches turns: the log, the metrics, the traces.

A watcher hears of a turn when its rows are durable, from the rows alone. It holds nothing while a turn runs,
and so can neither leak nor delay one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from trio_agent.store.contract import CallRow, TurnRow

logger = logging.getLogger("trio_agent")


class TurnObserver(Protocol):
    """Hears what happened in turns. Its methods return at once: what takes longer it does elsewhere."""

    def began(self, row: TurnRow) -> None:
        """A turn's row is in the store, new or resumed. The model has not been called yet."""

    def ended(self, row: TurnRow, calls: Sequence[CallRow], traceparent: str | None = None) -> None:
        """A turn ended or parked, or was rejected before it began.

        Args:
            row: with its outcome. It sums up the whole turn, earlier responses of a parked one included.
            calls: the model calls since the turn began or was resumed.
            traceparent: the trace that the request belongs to, where it said so; it is in no row.
        """


class Observers(TurnObserver):
    """Several observers as one. One that fails is logged and harms neither the turn nor the others."""

    def __init__(self, observers: Sequence[TurnObserver] = ()) -> None:
        self._observers = tuple(observers)

    def began(self, row: TurnRow) -> None:
        for observer in self._observers:
            try:
                observer.began(row)
            except Exception:
                logger.exception("turn %s: %s failed", row.id, type(observer).__name__)

    def ended(self, row: TurnRow, calls: Sequence[CallRow], traceparent: str | None = None) -> None:
        for observer in self._observers:
            try:
                observer.ended(row, calls, traceparent)
            except Exception:
                logger.exception("turn %s: %s failed", row.id, type(observer).__name__)


__all__ = ["Observers", "TurnObserver"]
