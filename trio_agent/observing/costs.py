"""What one answer cost, as far as its rows tell. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from trio_agent.store.contract import CallRow, TurnRow

_WITHOUT_ANSWER: Final = frozenset(
    {"refused", "unauthorized", "rejected", "rate_limited", "unavailable", "unexpected"}
)
"""Failures that an upstream has in place of an answer. Nobody is billed for these."""


def unpriced(row: TurnRow, calls: Sequence[CallRow]) -> list[CallRow]:
    """The calls that may have been billed, nobody knows how much.

    A call that failed before it began to answer counts as not billed (docs/turns.md). The turn knew of each
    whether it had begun; its rows do not say so, but a turn whose cost is known has none of those asked for.

    Args:
        calls: of this answer.
    """
    if row.cost_usd is not None:
        return []
    return [call for call in calls if call.cost_usd is None and not _was_refused(call)]


def cost_of(row: TurnRow, calls: Sequence[CallRow]) -> Decimal | None:
    """What the calls of an answer cost together, in USD; `None` where that is not known of all of them."""
    known = [call.cost_usd for call in calls if call.cost_usd is not None]
    return None if not known or unpriced(row, calls) else sum(known, Decimal(0))


def _was_refused(call: CallRow) -> bool:
    failure = call.failure
    return failure is not None and call.usage_source == "unknown" and failure["kind"] in _WITHOUT_ANSWER


__all__ = ["cost_of", "unpriced"]
