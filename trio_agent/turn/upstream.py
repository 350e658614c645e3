"""What comes from a provider, held to its contract: batches of events, and failures with a name."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from trio_agent.providers.contract import UpstreamError
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.failure import Failure

logger = logging.getLogger("trio_agent.turn")

CALL_EVENTS: frozenset[type] = frozenset(
    {
        ev.TextDelta,
        ev.RefusalDelta,
        ev.ReasoningDelta,
        ev.ReasoningSigned,
        ev.ReasoningEnded,
        ev.RedactedReasoning,
        ev.ReasoningData,
        ev.ToolCallStarted,
        ev.ToolCallDelta,
        ev.UsageReported,
        ev.CallFinished,
    }
)


def checked(batch: Sequence[ev.CallEvent], provider: str) -> tuple[Sequence[ev.CallEvent], bool]:
    """A provider's batch up to the end of the answer, and whether the answer ends in it.

    What comes after `CallFinished` belongs to no answer; it is left out and logged.

    Raises:
        UpstreamError: `malformed`; something in it is not what a provider may yield.
    """
    if not isinstance(batch, Sequence):
        raise _foreign(batch)
    for index, event in enumerate(batch):
        kind = type(event)
        if kind is ev.CallFinished:
            if index + 1 < len(batch):
                logger.warning("provider %s broke its contract: events after CallFinished", provider)
                return batch[: index + 1], True
            return batch, True
        if kind not in CALL_EVENTS:
            raise _foreign(event)
    return batch, False


def _foreign(value: object) -> UpstreamError:
    return UpstreamError("malformed", f"the provider plug-in yielded a {type(value).__name__}, not events")


def failure_of(error: BaseException, provider: str) -> Failure:
    """The failure that an exception of a provider stands for.

    What a provider raises on purpose is an `UpstreamError`, perhaps inside a group of its own nursery's.
    Anything else is a crash of the plug-in: its text goes to the log, not to the client.
    """
    meant = _meant(error)
    if meant is not None:
        return meant
    logger.error("provider %s crashed", provider, exc_info=error)
    return Failure(
        kind="crashed", message=f"the provider plug-in raised {type(error).__name__}; see the server's log"
    )


def _meant(error: BaseException) -> Failure | None:
    if isinstance(error, UpstreamError):
        return error.failure
    if isinstance(error, BaseExceptionGroup):
        return next((found for each in error.exceptions if (found := _meant(each)) is not None), None)
    return None


def cancellation_of(group: BaseExceptionGroup[BaseException], who: str) -> BaseException:
    """What must pass of a group that holds a cancellation beside failures; these are logged."""
    failures, passing = group.split(Exception)
    if failures is not None:
        logger.warning("%s failed while it was cancelled", who, exc_info=failures)
    return group if passing is None else passing


__all__ = ["CALL_EVENTS", "cancellation_of", "checked", "failure_of"]
