"""The turns that run in one agent: in their callers' tasks, or in the agent's own nursery."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from functools import partial

import trio

from trio_agent.admission import Admitted
from trio_agent.event_log import EventLogs, KeptSink, LiveLog, LogKeeper
from trio_agent.in_flight import InFlightTurn
from trio_agent.nursery import open_plain_nursery
from trio_agent.queueing import Slot
from trio_agent.statemachine.events import Begin, CancelReason, Resume
from trio_agent.store.contract import TurnRow
from trio_agent.store.owed_outcomes import OwedOutcomes
from trio_agent.turn.context import TurnContext
from trio_agent.turn.driver import Driver
from trio_agent.turn.keeper import Keeper
from trio_agent.turn.observer import TurnObserver
from trio_agent.turn.sink import Sink

logger = logging.getLogger("trio_agent")


class StartedTurn:
    """A turn that runs without a client of its own; what it says is in its log."""

    def __init__(self, driver: Driver, log: LiveLog) -> None:
        self.id = driver.turn.spec.turn_id
        self.log = log
        self.scope = trio.CancelScope()
        self.done = trio.Event()
        self._driver = driver
        # Who cancels it from outside is a server that ends, unless `leave` says otherwise.
        driver.end_as("shutdown")
        log.leave = self.leave

    async def cancel(self, reason: CancelReason = "cancelled") -> None:
        """End the turn for `reason`, which whoever reads its log is told. `wait` waits for its outcome."""
        await self._driver.stop(reason)

    def leave(self) -> None:
        """End the turn as one whose client has gone."""
        if not (self._driver.over or self._driver.ending.stopped):
            self._driver.end_as("client_disconnected")
            # A server that ends before the turn has noticed is not the reason.
            self._driver.ending.settled = True
        self.scope.cancel()

    async def wait(self) -> None:
        """Wait until nothing of the turn is left."""
        await self.done.wait()


class RunningTurns:
    """Runs turns, knows those that run, and ends them.

    Args:
        logs: of the agent.
        now: wall time in seconds since the epoch.
        nursery: where turns run that outlive their request. Without it there are none: `start` fails.
        owed: takes the outcomes that the store did not.
        observer: is told of those; of all others it is told by the turn.
    """

    def __init__(
        self,
        logs: EventLogs,
        now: Callable[[], float],
        nursery: trio.Nursery | None,
        owed: OwedOutcomes,
        observer: TurnObserver,
    ) -> None:
        self._logs = logs
        self._now = now
        self._owed = owed
        self._observer = observer
        self._nursery = nursery
        self._drivers: dict[Driver, None] = {}  # in the order in which they began
        self._started: dict[StartedTurn, None] = {}
        self._idle = trio.lowlevel.ParkingLot()
        self._stopping: CancelReason | None = None
        self._ending: CancelReason | None = None

    def __len__(self) -> int:
        return len(self._drivers)

    def __iter__(self) -> Iterator[Driver]:
        return iter(self._drivers)

    async def run(
        self,
        admitted: Admitted,
        sink: Sink,
        keeper: Keeper | None,
        log: LiveLog | None,
        context: TurnContext | None = None,
    ) -> TurnRow:
        """See `Agent.run`."""
        with admitted.slot, admitted.uses:
            if log is None:
                return await self._drive(admitted.make_driver(sink, keeper), admitted.first)
            ended_at = self._now if context is None else context.ended_at
            driver = admitted.make_driver(KeptSink(log, sink), LogKeeper(log, keeper, now=ended_at))
            return await self._drive_logged(driver, admitted.first, log)

    def start(
        self, admitted: Admitted, log: LiveLog, keeper: Keeper | None, context: TurnContext
    ) -> StartedTurn:
        """See `Agent.start`."""
        if self._nursery is None:
            raise RuntimeError("this agent has no nursery for turns that outlive their request")
        sink = context.sink(KeptSink(log))
        driver = admitted.make_driver(sink, LogKeeper(log, keeper, now=context.ended_at))
        turn = StartedTurn(driver, log)
        # From now on it counts, and is told of the server's end.
        admitted.uses.begin()
        self._drivers[driver] = None
        self._started[turn] = None
        slot = admitted.slot.heir()
        self._nursery.start_soon(self._run_started, turn, driver, admitted, slot)
        slot.take_over(admitted.slot)
        return turn

    def started(self, owner: str, log_id: str) -> StartedTurn | None:
        """See `Agent.started`."""
        return next(
            (turn for turn in self._started if turn.log.id == log_id and turn.log.owner == owner), None
        )

    async def idle(self) -> None:
        """Wait until no started turn is left."""
        while self._started:
            await self._idle.park()

    async def stop(self, reason: CancelReason, *, coming: bool) -> None:
        """End all turns for `reason`; each tells its client so.

        Args:
            coming: whether those as well that have been let in, and have not begun.
        """
        if coming:
            self._stopping = reason
        async with trio.open_nursery() as nursery:
            for driver in tuple(self._drivers):
                nursery.start_soon(driver.stop, reason)

    def in_flight(self, turn_ids: Collection[str]) -> list[InFlightTurn]:
        """Those of these turns that run here, as they stand."""
        found = [driver.journal.in_flight for driver in self._drivers if driver.turn.spec.turn_id in turn_ids]
        return [InFlightTurn(*each) for each in found if each is not None]

    def end_as(self, reason: CancelReason) -> None:
        """Say what a cancellation from outside means from now on."""
        self._ending = reason
        for driver in self._drivers:
            driver.end_as(reason)

    async def _run_started(self, turn: StartedTurn, driver: Driver, admitted: Admitted, slot: Slot) -> None:
        try:
            with slot, turn.scope:
                await self._drive_logged(driver, admitted.first, turn.log)
        except Exception:
            # It must harm no other turn of this nursery.
            logger.exception("turn %s: it failed outside of its own bounds", turn.id)
        finally:
            admitted.uses.end()
            turn.done.set()
            del self._started[turn]
            if not self._started:
                self._idle.unpark_all()

    async def _drive_logged(self, driver: Driver, first: Begin | Resume, log: LiveLog) -> TurnRow:
        try:
            async with open_plain_nursery() as nursery:
                nursery.start_soon(partial(log.write_behind, self._logs.store))
                row = await self._drive(driver, first)
                nursery.cancel_scope.cancel()
            return row
        finally:
            self._logs.end(log)

    async def _drive(self, driver: Driver, first: Begin | Resume) -> TurnRow:
        self._drivers[driver] = None
        try:
            if self._ending is not None:
                driver.end_as(self._ending)
            if self._stopping is not None:
                await driver.stop(self._stopping)
            await driver.run(first)
        finally:
            self._drivers.pop(driver, None)
            if (owed := driver.journal.owed) is not None:
                self._owed.add(*owed)
                self._observer.ended(*owed, driver.journal.traceparent)
        return driver.journal.row


__all__ = ["RunningTurns", "StartedTurn"]
