"""What comes from a provider, held to its contract: batches of events, and failures with a name."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from decimal import Decimal

import msgspec

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


class Intake:
    """Takes in one call's batches, and holds the provider to its contract.

    Args:
        provider: its id, for the log.
        max_chars: how much the answer may hold, in characters; it stays in memory until the turn ends.
    """

    def __init__(self, provider: str, max_chars: int) -> None:
        self._provider = provider
        self._max_chars = max_chars
        self._chars = 0

    def take(self, batch: Sequence[ev.CallEvent]) -> tuple[Sequence[ev.CallEvent], bool]:
        """A batch up to the end of the answer, and whether the answer ends in it.

        What comes after `CallFinished` belongs to no answer; it is left out and logged.

        Raises:
            UpstreamError: `malformed`; something in it is not what a provider may yield, or it is too much.
        """
        if type(batch) is not list and not isinstance(batch, Sequence):
            raise _foreign(batch)
        ends = False
        for index, event in enumerate(batch):
            kind = type(event)
            if kind is ev.TextDelta:
                self._chars += len(event.text)  # type: ignore[union-attr]
            elif kind is ev.CallFinished:
                ends = True
                if index + 1 < len(batch):
                    logger.warning(
                        "provider %s broke its contract: events after CallFinished", self._provider
                    )
                    batch = batch[: index + 1]
                break
            elif kind is ev.UsageReported:
                _check_figures(event)  # type: ignore[arg-type]
            elif kind not in CALL_EVENTS:
                raise _foreign(event)
            else:
                self._chars += _chars_of(event)
        if self._chars > self._max_chars:
            raise UpstreamError(
                "malformed",
                f"the answer holds more than {self._max_chars} characters (agent.max_answer_chars)",
            )
        return batch, ends


def _chars_of(event: ev.CallEvent) -> int:
    match event:
        case ev.ReasoningDelta(text) | ev.RefusalDelta(text):
            return len(text)
        case ev.ToolCallDelta(_, arguments):
            return len(arguments)
        case ev.ReasoningSigned(data) | ev.RedactedReasoning(data) | ev.ReasoningData(data):
            return len(data)
        case ev.ToolCallStarted(_, call_id, name, data):
            return len(call_id) + len(name) + len(data or "")
        case _:
            return 0


def _check_figures(report: ev.UsageReported) -> None:
    """Let no figure in that sums and limits cannot be kept with. Raises UpstreamError."""
    counts: tuple[object, ...] = msgspec.structs.astuple(report.usage)
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        raise UpstreamError("malformed", "the provider plug-in reported a usage that counts no tokens")
    cost: object = report.cost_usd
    if cost is not None and not (isinstance(cost, Decimal) and cost.is_finite() and cost >= 0):
        raise UpstreamError("malformed", "the provider plug-in reported a cost that is no amount of money")


def _foreign(value: object) -> UpstreamError:
    return UpstreamError("malformed", f"the provider plug-in yielded a {type(value).__name__}, not events")


def failure_of(error: BaseException, provider: str) -> Failure:
    """The failure that an exception of a provider stands for.

    What a provider raises on purpose is an `UpstreamError`, perhaps inside a group of its own nursery's.
    Anything else is a crash of the plug-in: its text goes to the log, not to the client.
    """
    failure = failure_meant(error)
    if failure.kind == "crashed":
        logger.error("provider %s crashed", provider, exc_info=error)
    return failure


def failure_meant(error: BaseException) -> Failure:
    """The same, without a word in the log."""
    return _meant(error) or Failure(
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


__all__ = ["CALL_EVENTS", "Intake", "cancellation_of", "failure_meant", "failure_of"]
