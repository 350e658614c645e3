"""Structs to table rows and back.

Exact decimals are text, so that nothing is rounded. Structs that no query looks into are JSON text,
readable with SQLite's own JSON functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final, TypeAlias

import msgspec

from trio_agent.statemachine.conversation import Usage
from trio_agent.store.contract import CallRow, ParkRow, ReasoningRow, StateAt, StoreError, TurnRow

Values: TypeAlias = tuple[Any, ...]

_TURN: Final = (
    "id", "face", "model", "created_at", "outcome", "owner", "session_id", "provider", "served_model",
    "reason", "state", "committed_by", "states", "tools", "usage", "usage_source", "cost_usd", "error",
    "routing", "notes", "ended_at",
)  # fmt: skip
_CALL: Final = (
    "turn_id", "number", "attempt", "provider", "model", "started_at", "ended_at", "usage", "usage_source",
    "cost_usd", "finish_reason", "failure", "response_id", "served_model",
)  # fmt: skip
_CALL_KEY: Final = ("turn_id", "number", "started_at", "attempt", "provider", "model")
_PARK: Final = (
    "turn_id", "owner", "call_ids", "history", "model", "snapshot", "created_at", "expires_at",
)  # fmt: skip
_REASONING: Final = ("tool_call_id", "owner", "asked", "origin", "message", "created_at")


def upsert(table: str, columns: Iterable[str], key: tuple[str, ...]) -> str:
    columns = tuple(columns)
    changes = ", ".join(f"{column} = excluded.{column}" for column in columns if column not in key)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "  # noqa: S608 -- constants
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changes}"
    )


def columns_of(columns: Iterable[str], table: str) -> str:
    return ", ".join(f"{table}.{column}" for column in columns)


PUT_TURN: Final = upsert("turns", (*_TURN, "instance"), ("id",))
PUT_CALL: Final = upsert("calls", _CALL, _CALL_KEY)
PUT_PARK: Final = upsert("parks", _PARK, ("turn_id",))
PUT_REASONING: Final = upsert("reasoning", _REASONING, ("owner", "tool_call_id", "asked"))

TURN_COLUMNS: Final = columns_of(_TURN, "turns")
CALL_COLUMNS: Final = columns_of(_CALL, "calls")
PARK_COLUMNS: Final = columns_of(_PARK, "parks")
REASONING_COLUMNS: Final = columns_of(_REASONING, "reasoning")

_encoder = msgspec.json.Encoder()
_decode_states = msgspec.json.Decoder(tuple[StateAt, ...]).decode
_decode_tools = msgspec.json.Decoder(tuple[dict[str, Any], ...]).decode
_decode_usage = msgspec.json.Decoder(Usage).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_decode_strings = msgspec.json.Decoder(tuple[str, ...]).decode


def to_json(value: Any) -> str:
    """Raises StoreError for what JSON cannot say."""
    try:
        return _encoder.encode(value).decode()
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise StoreError(f"A value cannot be stored as JSON: {error}. Nothing was written.") from error


def list_of(ids: Iterable[str]) -> str:
    """Ids as one parameter for `json_each`, each once, in order.

    What can be no id is left out: SQLite would cut it at the NUL and find another one's row.
    """
    return to_json([item for item in dict.fromkeys(ids) if can_be_id(item)])


def can_be_id(text: str) -> bool:
    """Whether a text can be the id of a row: it has no NUL in it, and no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _object_to_json(value: dict[str, Any] | None) -> str | None:
    return None if value is None else to_json(value)


def _object_of(text: str | None) -> dict[str, Any] | None:
    return None if text is None else _decode_object(text)


def _money_to_text(value: Decimal | None) -> str | None:
    return None if value is None else str(value)


def _money_of(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def turn_values(row: TurnRow, outcome: str, instance: str | None) -> Values:
    """For PUT_TURN. `instance` names who runs the turn, `None` when nobody does."""
    return (
        row.id,
        row.face,
        row.model,
        row.created_at,
        outcome,
        row.owner,
        row.session_id,
        row.provider,
        row.served_model,
        row.reason,
        row.state,
        row.committed_by,
        to_json(row.states),
        to_json(row.tools),
        to_json(row.usage),
        row.usage_source,
        _money_to_text(row.cost_usd),
        _object_to_json(row.error),
        _object_to_json(row.routing),
        to_json(row.notes),
        row.ended_at,
        instance,
    )


def turn_of(values: Values) -> TurnRow:
    """From TURN_COLUMNS."""
    fields = dict(zip(_TURN, values, strict=True))
    fields["states"] = _decode_states(fields["states"])
    fields["tools"] = _decode_tools(fields["tools"])
    fields["usage"] = _decode_usage(fields["usage"])
    fields["cost_usd"] = _money_of(fields["cost_usd"])
    fields["error"] = _object_of(fields["error"])
    fields["routing"] = _object_of(fields["routing"])
    fields["notes"] = _decode_strings(fields["notes"])
    return TurnRow(**fields)


def call_values(row: CallRow) -> Values:
    """For PUT_CALL."""
    return (
        row.turn_id,
        row.number,
        row.attempt,
        row.provider,
        row.model,
        row.started_at,
        row.ended_at,
        to_json(row.usage),
        row.usage_source,
        _money_to_text(row.cost_usd),
        row.finish_reason,
        _object_to_json(row.failure),
        row.response_id,
        row.served_model,
    )


def call_of(values: Values) -> CallRow:
    """From CALL_COLUMNS."""
    fields = dict(zip(_CALL, values, strict=True))
    fields["usage"] = _decode_usage(fields["usage"])
    fields["cost_usd"] = _money_of(fields["cost_usd"])
    fields["failure"] = _object_of(fields["failure"])
    return CallRow(**fields)


def park_values(row: ParkRow) -> Values:
    """For PUT_PARK."""
    return (
        row.turn_id,
        row.owner,
        to_json(row.call_ids),
        row.history,
        row.model,
        row.snapshot,
        row.created_at,
        row.expires_at,
    )


def park_of(values: Values) -> ParkRow:
    """From PARK_COLUMNS."""
    fields = dict(zip(_PARK, values, strict=True))
    fields["call_ids"] = _decode_strings(fields["call_ids"])
    return ParkRow(**fields)


def reasoning_values(row: ReasoningRow) -> Values:
    """For PUT_REASONING."""
    return (row.tool_call_id, row.owner, row.asked, row.origin, row.message, row.created_at)


def reasoning_of(values: Values) -> ReasoningRow:
    """From REASONING_COLUMNS."""
    return ReasoningRow(**dict(zip(_REASONING, values, strict=True)))
