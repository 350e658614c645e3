"""One entry of the log a turn: what it did, as fields that programs read and as words."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from trio_agent.observing.formats import EVENT, FIELDS, one_line
from trio_agent.observing.segment import last_segment
from trio_agent.store.contract import CallRow, TurnRow
from trio_agent.turn.observer import TurnObserver

logger = logging.getLogger("trio_agent.turn")

_FAILED: Final = frozenset({"failed", "abandoned"})
# In the words of the line; the rest is for programs.
_SAID: Final = (
    "face", "session_id", "model", "provider", "outcome", "reason", "states", "usage", "cost_usd", "error",
)  # fmt: skip


class TurnLog(TurnObserver):
    """Writes an entry when a turn ends, parks, or is rejected; a failure is a warning.

    The record has the row as `turn`, and what `fields_of` makes of it as `fields`.
    """

    def began(self, row: TurnRow) -> None:
        """A turn has one entry, at its end."""

    def ended(self, row: TurnRow, calls: Sequence[CallRow], traceparent: str | None = None) -> None:
        level = logging.WARNING if row.outcome in _FAILED else logging.INFO
        if logger.isEnabledFor(level):
            fields = fields_of(row, calls)
            logger.log(level, "%s", _Words(fields), extra={"turn": row, EVENT: "turn", FIELDS: fields})


def fields_of(row: TurnRow, calls: Sequence[CallRow]) -> dict[str, Any]:
    """What the log says of a turn, as JSON values.

    Times are seconds: `duration` and `time_to_first_content` of this answer, the `at` of a state since the
    answer began. `usage` and `cost_usd` (a string, exact) sum up the whole turn; `model_calls`, `retries`
    and `tools` count those of this answer. `key_id` names the caller's key and is not the key.
    """
    segment = last_segment(row)
    error = row.error or {}
    fields: dict[str, Any] = {
        "turn_id": row.id,
        "face": row.face,
        "session_id": row.session_id,
        "key_id": row.owner or None,
        "model": row.model,
        "provider": row.provider,
        "served_model": row.served_model,
        "outcome": row.outcome,
        "reason": row.reason,
        "state": row.state,
        "committed_by": row.committed_by,
        "states": [
            {"state": each.state, "at": _seconds(each.at - segment.began_at)} for each in segment.states
        ],
        "duration": _seconds(segment.duration),
        "time_to_first_content": _seconds(segment.time_to_content),
        "model_calls": len(calls),
        "retries": sum(call.attempt > 0 for call in calls),
        "tools": sum(each.get("at", segment.began_at) >= segment.began_at for each in row.tools),
        "usage": msgspec.to_builtins(row.usage),
        "usage_source": row.usage_source,
        "cost_usd": None if row.cost_usd is None else str(row.cost_usd),
        "error": error.get("code"),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


class _Words:
    """The entry as `turn id=… face=…`; written only where somebody prints it."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields

    def __str__(self) -> str:
        fields = self._fields
        said = [f"turn id={fields['turn_id']}"]
        for name in _SAID:
            value = fields.get(name)
            if name == "states":
                passed = ",".join(f"{each['state']}@{each['at']:.3f}" for each in fields["states"])
                said.append(f"states={passed}")
            elif name == "usage":
                said += [f"{kind}={fields['usage'][kind]}" for kind in ("input_tokens", "output_tokens")]
            elif value is not None:
                said.append(f"{name.removesuffix('_id')}={one_line(str(value))}")
        return " ".join(said)


__all__ = ["TurnLog", "fields_of"]
