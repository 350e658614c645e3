"""Where the machine meets Trio: one nursery a turn, and one place where it touches the world.

The task that enters `Driver.run` reads the upstream itself and, in the same wake-up, hands what came to
the machine and writes what the machine asks for. A slow client therefore slows the upstream, and no chunk
waits in a queue. Timers and tools run beside it in the turn's nursery; whoever brings an event takes the
turn's lock first, so events are applied one batch at a time and effects are performed in order.

Leaving `run`, by any door, leaves nothing behind: no task, no upstream connection, no timer, and exactly
one outcome (or a park) in the store.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec
import trio

from trio_agent.providers.contract import Provider, ProviderRequest
from trio_agent.statemachine import ProtocolViolation, Turn
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.failure import Failure
from trio_agent.turn.call import ModelCall
from trio_agent.turn.context import TurnContext
from trio_agent.turn.ending import Ending
from trio_agent.turn.journal import Journal
from trio_agent.turn.perform import Performer
from trio_agent.turn.sink import Sink, SinkClosedError
from trio_agent.turn.timers import ENDING
from trio_agent.turn.toolbox import HostTools, ToolBox
from trio_agent.turn.upstream import CALL_EVENTS

logger = logging.getLogger("trio_agent.turn")

_ENDS = frozenset({ev.Cancel, ev.ServerFailed, ev.TurnTimerFired})
# What a turn that was left in the middle may take to write its outcome, in seconds.
CLEANUP_LIMIT_SECONDS = 12.0
# How long an event that ends the turn waits for a client that does not read, in seconds.
BLOCKED_LIMIT_SECONDS = 0.5


class Driver:
    """Runs one turn, or one response of a turn that was parked.

    Args:
        turn: the machine, not begun (or restored from a park).
        providers: the provider of every candidate, by id.
        build_request: the model call that the turn's candidate is to be sent now, given a nonce.
        tools: the server-side tools.
        host: the host's callables, for a turn that waits alive.
        journal: the turn's rows.
        sink: where outputs go.
        context: what stands between the turn and the world.
    """

    def __init__(
        self,
        turn: Turn,
        *,
        providers: Mapping[str, Provider],
        build_request: Callable[[Turn, str], ProviderRequest],
        tools: ToolBox,
        host: HostTools | None,
        journal: Journal,
        sink: Sink,
        context: TurnContext,
    ) -> None:
        self.turn = turn
        self.journal = journal
        self._context = context
        self._heard = context.received if context.listens else None
        self._providers = context.providers(providers)
        self._build_request = build_request
        self._timers = context.timers()
        self._lock = trio.Lock()
        self._state = turn.state
        self._due: list[fx.Effect] = []  # nearly always empty, and an empty deque has 760 bytes
        self._performer = Performer(
            self,
            sink=sink,
            journal=journal,
            timers=self._timers,
            tools=context.tools(tools),
            host=context.host(host),
        )
        self._call_due: fx.StartCall | None = None
        self._call: ModelCall | None = None
        self._wake = trio.Event()
        self._scope: trio.CancelScope  # the nursery's, once the turn runs
        self._stop_first: ev.CancelReason | None = None
        self.ending = Ending()

    @property
    def over(self) -> bool:
        """Whether this response has nothing more to do: the turn ended, or is parked."""
        return self.turn.final or self._performer.parked

    # --- the frame of a turn -------------------------------------------------------------------

    async def run(self, first: ev.Begin | ev.Resume) -> None:
        """Run the turn to its end; all of it happens inside this call.

        A cancellation from outside means that the client is gone, unless `stop` said otherwise.

        Raises:
            trio.Cancelled: the surrounding scope was cancelled; the outcome has been written.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                self._performer.nursery = nursery
                self._context.last_event = partial(self.ending.event, self.turn)
                self._context.busy = self._lock.locked
                nursery.start_soon(self._run_timers)
                with self.ending:
                    await self._begin(first)
                    while not self.over:
                        await self._next_step()
                # Whoever brought the last event may still be telling the client.
                async with self._lock:
                    pass
                nursery.cancel_scope.cancel()
        except* SinkClosedError:
            self.ending.reason = "client_disconnected"
        except* Exception:
            logger.exception("turn %s: the server failed", self.turn.spec.turn_id)
            self.ending.crashed = True
        finally:
            if not self.over or self._due:
                await self._settle()  # noqa: ASYNC102 - it shields itself, with a limit

    async def _begin(self, first: ev.Begin | ev.Resume) -> None:
        stopped = self._stop_first
        # A turn that is stopped before it begins never does; one that was parked goes back to that.
        if stopped is None or isinstance(first, ev.Resume):
            await self.dispatch((first,))
        if stopped is not None:
            await self.dispatch((ev.Cancel(stopped, trio.current_time()),))

    async def _next_step(self) -> None:
        call = self._call_due
        if call is None:
            await self._wake.wait()
            self._wake = trio.Event()
            return
        # A client that has left must not cause another call, which might even be drained.
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._context.calling()
        call = self._call_due
        if call is not None and not self.over:
            await self._run_call(call)

    async def stop(self, reason: ev.CancelReason) -> None:
        """End the turn for `reason`; its client is told in its own format if it still reads.

        Returns when the turn has been told, which may be a little before `run` returns. A turn that is
        draining ends at once, and one that has not begun will end as soon as it does.
        """
        if self._performer.nursery is None:
            self._stop_first = reason
            return
        if self._call is not None and self._call.draining:
            self._call.stop()
            return
        if self.ending.settled:
            return  # it ends already, for another reason
        self.ending.stopped = True
        if not self.over:
            self.ending.reason = reason
        with trio.move_on_after(BLOCKED_LIMIT_SECONDS):
            try:
                # Where the turn is over already, this waits for its last outputs to go out.
                await self.dispatch((ev.Cancel(reason, trio.current_time()),))
            except SinkClosedError:
                pass
            except Exception:
                logger.exception("turn %s: its client could not be told", self.turn.spec.turn_id)
            else:
                return
        self._note_leaving(reason)
        self._scope.cancel()

    def end_as(self, reason: ev.CancelReason) -> None:
        """Say what a cancellation from outside means from now on. It ends no turn that has a client.

        A call that is only read on to learn what it cost ends at once: it is shielded from the cancellation.
        Its client has left before, and that stays the reason.
        """
        if self._call is not None and self._call.draining:
            self._call.stop()
            return
        if not self.ending.settled:
            self.ending.reason = reason

    # --- events in, effects out -------------------------------------------------------------------

    async def dispatch(self, events: Sequence[ev.Event], *, taken: Callable[[], None] | None = None) -> None:
        """Apply events and perform what they ask for. One batch at a time.

        Args:
            taken: called first, unless the turn is over.
        """
        try:
            # Waiting for a free lock would cost a pass through the scheduler for every chunk.
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()
        try:
            if not self.over:
                if taken is not None:
                    taken()
                self._apply(events)
                await self._performer.work_off(self._due)
        finally:
            self._lock.release()
            self._signal()

    def _signal(self) -> None:
        """Wake the turn's main task when there is something for it to do."""
        if self._heard is not None:
            self._context.freed()
        if self.over or self._call_due is not None:
            self._wake.set()

    def _apply(self, events: Sequence[ev.Event]) -> None:
        turn, due, heard = self.turn, self._due, self._heard
        for event in events:
            if type(event) in _ENDS:
                event = self._exact(event)
            state = self._state
            try:
                effects = turn.receive(event)
            except ProtocolViolation as violation:
                if type(event) not in CALL_EVENTS:
                    raise
                # The provider broke its contract; to the client that is a malformed upstream. The call is
                # not stopped with `StopCall`: its own task is here, and the client is still to be told.
                logger.warning("provider %s broke its contract: %s", turn.candidate.provider, violation)
                failure = Failure(kind="malformed", message=f"events out of order: {violation}")
                due.extend(self._told(ev.CallFailed(failure, trio.current_time())))
                if self._call is not None:
                    self._call.ended = True
                self._note_state()
                return
            if heard is not None:
                heard(state, event, effects)
            due.extend(effects)
            if turn.state is not state:
                self._note_state()

    def _note_state(self) -> None:
        state = self.turn.state
        if state is not self._state:
            self._state = state
            self.journal.note_state(state)

    def effects_of(self, event: ev.Event) -> list[fx.Effect]:
        """What the machine asks for on `event`; for the performer, which holds the lock."""
        effects = self._told(self._exact(event))
        self._note_state()
        return effects

    def _exact(self, event: ev.Event) -> ev.Event:
        """An event that ends the turn, with what only the driver knows: whether the call that was asked for
        has been made."""
        if type(event) not in _ENDS:
            return event
        due = self._call_due is not None or any(type(each) is fx.StartCall for each in self._due)
        return msgspec.structs.replace(event, call_begun=not due)

    def _told(self, event: ev.Event) -> list[fx.Effect]:
        state = self.turn.state
        effects = self.turn.receive(event)
        if self._heard is not None:
            self._heard(state, event, effects)
        return effects

    # --- the model call ---------------------------------------------------------------------------

    def call_model(self, effect: fx.StartCall) -> None:
        self._call_due = effect

    def stop_call(self) -> None:
        self._call_due = None
        if self._call is not None:
            self._call.stop()

    async def _run_call(self, effect: fx.StartCall) -> None:
        """One model call, read to its end. Its failure becomes an event unless the machine stopped it."""
        name = self.turn.spec.candidates[effect.candidate].provider
        nonce = f"{self.turn.spec.turn_id}.{effect.number}.{effect.candidate}.{effect.attempt}"
        request = self._build_request(self.turn, nonce)
        self._call_due = None
        self.journal.note_call_start()
        self._call = call = ModelCall(self, self._timers, name, self._providers[name])
        try:
            failure = await call.run(request)
        finally:
            self._call = None
            self.ending.drained = call.drained
        # A provider may have turned a cancellation into an error of its own.
        await trio.lowlevel.checkpoint_if_cancelled()
        if failure is not None:
            await self._context.failing()
            await self.dispatch((ev.CallFailed(failure, trio.current_time()),))

    def leave(self) -> None:
        """The reader has gone; end the turn, but for a call that is to be drained."""
        self._scope.cancel()

    # --- timers --------------------------------------------------------------------------------------

    async def _run_timers(self) -> None:
        try:
            with self.ending:
                await self._timers.run(self._fire)
        except BaseException as error:
            # The nursery is going down. If that was not our doing, the client has left.
            if isinstance(error, trio.Cancelled):
                self._note_leaving()
                self.ending.settled = True
            if self._call is not None:
                left = not (self.ending.is_ours or self.over)
                self._call.leave(drain=left and isinstance(error, trio.Cancelled))
            raise

    async def _fire(self, timer: ev.Timer) -> None:
        # A client that does not read holds the lock. That must not outlast a deadline that ends the turn.
        now = trio.current_time()
        limit = max(now, self._timers.end) if timer not in ENDING else now + BLOCKED_LIMIT_SECONDS
        with trio.CancelScope(deadline=limit) as scope:
            await self._dispatch_timer(timer)
        if scope.cancelled_caught:
            self.ending.expired = True
            self._timers.clear(timer)
            self._note_leaving()
            self._scope.cancel()
            if self._call is not None:
                # It may be shielded from that, and would write with the lock that has just become free.
                self._call.leave(drain=False)

    async def _dispatch_timer(self, timer: ev.Timer) -> None:
        async with self._lock:
            if not self._timers.due(timer):
                return
            self._timers.clear(timer)
            if self.over:
                return
            self._apply((ev.TIMER_EVENTS[timer](trio.current_time()),))
            await self._performer.work_off(self._due)
        self._signal()

    # --- the end -----------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Write what the turn still owes the store, when it was left in the middle.

        The client is told as well where it was not the one that left, and where no output was torn.
        """
        with trio.move_on_after(CLEANUP_LIMIT_SECONDS, shield=True) as scope:
            # `stop` may be at work on the same effects, from a task that is not the turn's.
            async with self._lock:
                if not self.over:
                    self._due.extend(self.effects_of(self.ending.event(self.turn)))
                untold = await self._performer.record_rest(self._due)
        if scope.cancelled_caught:
            logger.error("turn %s: its outcome could not be written in time", self.turn.spec.turn_id)
        elif self.ending.owes_a_word:
            with trio.move_on_after(BLOCKED_LIMIT_SECONDS, shield=True):
                await self._performer.tell(untold)

    def _note_leaving(self, stopped: ev.CancelReason | None = None) -> None:
        # A turn that has ended may still owe its reader the end.
        if not self._context.listens or (self.over and not self._due):
            return
        event = self.ending.cause(self.turn, over=self.over, stopped=stopped)
        left = isinstance(event, ev.Cancel) and event.reason == "client_disconnected"
        self._context.leaving(event, told=self.ending.stopped and not left)


__all__ = ["Driver"]
