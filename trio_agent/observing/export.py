"""Sending the spans of turns to a collector, beside the turns and at their expense as little as possible.

A turn that ended waits in a bounded queue, as rows. A task takes what has gathered from time to time, and a
worker thread makes the spans and sends them: a collector that is slow or away costs turns nothing.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import trio

from trio_agent.store.contract import CallRow, TurnRow
from trio_agent.turn.observer import TurnObserver

logger = logging.getLogger("trio_agent.telemetry")

Ended: TypeAlias = tuple[TurnRow, Sequence[CallRow], str | None]
"""What an observer is told of a turn's end."""
Send: TypeAlias = Callable[[Sequence[Ended]], bool]
"""Sends turns, in a worker thread; whether they arrived."""

QUEUE_MAX: Final = 4096
"""Turns that wait to be sent. While so many do, those that end are left out of the traces."""
BATCH_MAX: Final = 256
GATHER_SECONDS: Final = 2.0
"""How long turns are gathered before they are sent together."""
LAST_SECONDS: Final = 1.0
"""What the last sending may take, when the server ends."""


class Export(TurnObserver):
    """Takes turns that ended, and sends them in batches. `lost` counts those that did not get there.

    Args:
        send: the way to the collector; one batch at a time is in it.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._limiter = trio.CapacityLimiter(1)
        self._waiting: deque[Ended] = deque()
        self._came = trio.Event()
        self._ending = trio.Event()
        self._over = trio.Event()
        self._scope = trio.CancelScope(shield=True)
        self._failing = False
        self.lost = 0

    def began(self, row: TurnRow) -> None:
        """A turn is sent when it has ended."""

    def ended(self, row: TurnRow, calls: Sequence[CallRow], traceparent: str | None = None) -> None:
        if len(self._waiting) >= QUEUE_MAX:
            self._lose(1)
            return
        self._waiting.append((row, calls, traceparent))
        self._came.set()

    async def run(self) -> None:
        """Send until `aclose`. Shielded: what turns that are cancelled did belongs to the traces, too."""
        with self._scope:
            over = False
            while not over:
                await self._came.wait()
                with trio.move_on_after(GATHER_SECONDS):
                    await self._ending.wait()
                over, self._came = self._ending.is_set(), trio.Event()
                while self._waiting:
                    await self._send_some()
        self._over.set()
        if self.lost or self._waiting:
            logger.warning("%d turns are in no trace", self.lost + len(self._waiting))

    async def aclose(self) -> None:
        """Send what waits, then end `run`. Shielded, with a limit."""
        self._ending.set()
        self._came.set()
        with trio.move_on_after(LAST_SECONDS, shield=True):
            await self._over.wait()
        self._scope.cancel()

    async def _send_some(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))]
        arrived = False
        try:
            # A thread that hangs is left behind. It keeps the only token, so there is never a second.
            arrived = await trio.to_thread.run_sync(
                self._send, batch, limiter=self._limiter, abandon_on_cancel=True
            )
        except trio.Cancelled:
            self.lost += len(batch)
            raise
        except Exception:
            if not self._failing:
                logger.exception("turns could not be made into spans")
        if arrived:
            self._note_arrival()
        else:
            self._lose(len(batch))

    def _lose(self, count: int) -> None:
        self.lost += count
        if not self._failing:
            self._failing = True
            logger.warning(
                "traces do not get through to the collector; the turns meanwhile are in no trace. Look at "
                "OTEL_EXPORTER_OTLP_ENDPOINT and whether the collector runs."
            )

    def _note_arrival(self) -> None:
        if self._failing:
            self._failing = False
            logger.info("traces get through to the collector again; %d turns are in none so far", self.lost)


__all__ = ["BATCH_MAX", "Export", "GATHER_SECONDS", "LAST_SECONDS", "QUEUE_MAX"]
