"""One line of log a turn."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from trio_agent.store.contract import CallRow, StateAt, TurnRow
from trio_agent.turn.observer import TurnObserver

logger = logging.getLogger("trio_agent.turn")


class TurnLog(TurnObserver):
    """Writes a line when a turn ends, parks, or is rejected. The record carries the row as `turn`."""

    def began(self, row: TurnRow) -> None:
        """A turn has one line, at its end."""

    def ended(self, row: TurnRow, calls: Sequence[CallRow]) -> None:
        logger.info(
            "turn %s",
            " ".join(f"{name}={value}" for name, value in _line(row).items() if value is not None),
            extra={"turn": row},
        )


def _line(row: TurnRow) -> dict[str, object]:
    states: Sequence[StateAt] = row.states
    start = row.created_at
    return {
        "id": row.id,
        "face": row.face,
        "session": row.session_id,
        "model": row.model,
        "provider": row.provider,
        "outcome": row.outcome,
        "reason": row.reason,
        "states": ",".join(f"{each.state}@{each.at - start:.3f}" for each in states),
        "input_tokens": row.usage.input_tokens,
        "output_tokens": row.usage.output_tokens,
        "cost_usd": row.cost_usd,
    }
