"""When each provider last answered, and how it last failed: what an operator asks first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from trio_agent.store.contract import CallRow, TurnRow
from trio_agent.turn.observer import TurnObserver


class LastFailure(Struct, frozen=True):
    """A model call that failed. `at` is when it ended, in seconds since the epoch."""

    kind: str
    model: str
    at: float
    status: int | None


class LastCalls(TurnObserver):
    """Remembers one call of each kind for each provider, since the start."""

    def __init__(self) -> None:
        self._answered: dict[str, float] = {}
        self._failed: dict[str, LastFailure] = {}

    @property
    def answered(self) -> Mapping[str, float]:
        """When a call of a provider was last answered whole, by its id."""
        return self._answered

    @property
    def failed(self) -> Mapping[str, LastFailure]:
        """The last call of a provider that failed, by its id."""
        return self._failed

    def began(self, row: TurnRow) -> None:
        """Nothing was called yet."""

    def ended(self, row: TurnRow, calls: Sequence[CallRow], traceparent: str | None = None) -> None:
        for call in calls:
            if call.failure is not None:
                status = call.failure.get("status")
                kind = str(call.failure["kind"])
                self._failed[call.provider] = LastFailure(kind, call.model, call.ended_at, status)
            elif call.finish_reason is not None:
                self._answered[call.provider] = call.ended_at


__all__ = ["LastFailure", "LastCalls"]
