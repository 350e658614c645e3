"""One model call: its stream read to the end in the turn's main task, batch after batch."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeAlias, cast

import trio

from trio_agent.providers.caller import CALLER, Caller
from trio_agent.providers.contract import Provider, ProviderRequest
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.failure import Failure
from trio_agent.turn.sink import SinkClosedError
from trio_agent.turn.timers import Timers
from trio_agent.turn.upstream import Intake, cancellation_of, failure_of

if TYPE_CHECKING:
    from trio_agent.turn.driver import Driver

logger = logging.getLogger("trio_agent.turn")

Batch: TypeAlias = Sequence[ev.CallEvent]

# What a provider may take to close a stream that was read to its end, in seconds.
CLOSE_LIMIT_SECONDS = 5.0


class ModelCall:
    """A running model call.

    `ended` says that the machine expects nothing more of it. `draining` says that its client has gone, and
    that it is only read on to learn what it cost; `drained` that this has succeeded.
    """

    def __init__(self, driver: Driver, timers: Timers, name: str, provider: Provider) -> None:
        self._driver = driver
        self._timers = timers
        self._name = name
        self._provider = provider
        self._intake = Intake(name, driver.turn.spec.limits.answer_chars)
        self._drains = provider.limits.on_disconnect == "drain"
        self._scope = trio.CancelScope(shield=self._drains)
        self._write_scope: trio.CancelScope | None = None
        self._trouble: Exception | None = None
        self._caller = Caller()
        self.ended = False
        self.draining = False
        self.drained = False

    async def run(self, request: ProviderRequest) -> Failure | None:
        """Read the call to its end.

        Returns:
            How the call failed; `None` when it finished, or was stopped.

        Raises:
            SinkClosedError: the reader of the turn is gone.
            Exception: something of the house's own failed.
        """
        failure: Failure | None = None
        read = False
        token = CALLER.set(self._caller if self._drains else None)
        with self._scope:
            try:
                # A provider's stream is a generator, by contract; it must be closed in this task.
                stream = cast("AsyncGenerator[Batch, None]", self._provider.stream(request))
                async with aclosing(stream):
                    failure = await self._pump(stream)
                    read = True
                    self._limit(CLOSE_LIMIT_SECONDS)
            except (Exception, SystemExit) as error:
                # A plug-in may raise anything, also while it closes.
                if read:
                    logger.warning("provider %s failed while it closed a stream", self._name, exc_info=error)
                else:
                    failure = failure_of(error, self._name)
            except BaseExceptionGroup as group:
                raise cancellation_of(group, f"provider {self._name}") from None
            finally:
                CALLER.reset(token)
        self._timers.awaiting_since = None
        if self._trouble is not None:
            raise self._trouble
        return failure

    def stop(self) -> None:
        """Close the stream at once."""
        self._scope.cancel()

    def leave(self, *, drain: bool) -> None:
        """The client has left. A call that is to be drained is read on for a while, any other one ends."""
        if not self._drains or self.draining:
            return
        if not drain:
            self._scope.cancel()
            return
        self.draining = self._caller.gone = True
        self._limit(self._provider.limits.drain_timeout)
        if self._write_scope is not None:
            # Only the reading is to outlive the client, not a write to it.
            self._write_scope.cancel()

    def _limit(self, seconds: float) -> None:
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + seconds)

    async def _pump(self, stream: AsyncGenerator[Batch, None]) -> Failure | None:
        """Hand on batch after batch; returns how the call failed, or None when nobody waits for it now."""
        timers = self._timers
        while True:
            failure: Failure | None = None
            timers.awaiting_since = timers.now()
            try:
                batch = await anext(stream)
                if not batch and batch is not None:
                    continue
                batch, ended = self._intake.take(batch)
            except StopAsyncIteration:
                failure = Failure(kind="truncated", message="the stream ended before the answer was complete")
            except (Exception, SystemExit) as error:  # noqa: BLE001 - see failure_of
                failure = failure_of(error, self._name)
            timers.awaiting_since = None
            if self._scope.cancel_called:
                # Stopped while this was on its way; the machine does not expect it any more.
                return None
            if self.draining:
                if failure is not None or self._drain(batch, ended):
                    return None
                continue
            if failure is not None:
                return failure
            # What came in the moment in which the client left is not taken.
            await trio.lowlevel.checkpoint_if_cancelled()
            self.ended = ended
            await self._hand_on(batch)
            if self.ended or self._driver.over:
                return None

    async def _hand_on(self, batch: Batch) -> None:
        """Give a batch to the turn.

        A failure of ours is raised again only once the stream is closed, for the provider may raise
        another one as it closes.
        """
        try:
            if self._drains:
                with trio.CancelScope() as self._write_scope:
                    await self._driver.dispatch(batch)
                self._write_scope = None
            else:
                await self._driver.dispatch(batch)
        except SinkClosedError as error:
            if self._drains:
                self._driver.leave()
                self.leave(drain=True)
            else:
                self._trouble = error
                self.ended = True
        except Exception as error:  # noqa: BLE001 - kept, see above
            self._trouble = error
            self.ended = True

    def _drain(self, batch: Batch, ended: bool) -> bool:
        """Take only the usage of a call whose client has gone; True when the call is complete."""
        for event in batch:
            if isinstance(event, ev.UsageReported):
                self._driver.turn.receive(event)
        self.drained = ended
        return ended


__all__ = ["ModelCall"]
