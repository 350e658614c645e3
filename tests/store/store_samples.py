"""Rows for the store's tests, with every field set to something that can be told from its default."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from trio_agent.statemachine.conversation import Usage
from trio_agent.store.contract import CallRow, ParkRow, ReasoningRow, StateAt, TurnRow

EPOCH = 1_800_000_000.0


class Now:
    """A clock that stands still until it is told otherwise."""

    def __init__(self, at: float = EPOCH) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


def turn(turn_id: str, **changes: Any) -> TurnRow:
    fields: dict[str, Any] = {"face": "chat", "model": "auto", "created_at": EPOCH} | changes
    return TurnRow(id=turn_id, **fields)


def full_turn(turn_id: str, **changes: Any) -> TurnRow:
    fields: dict[str, Any] = {
        "outcome": "completed",
        "owner": "key_1",
        "session_id": "session-ä",
        "provider": "lab",
        "served_model": "m-1",
        "reason": "stop",
        "state": "DONE",
        "committed_by": "content",
        "states": (StateAt("PREFLIGHT", EPOCH), StateAt("STREAMING", EPOCH + 0.125)),
        "tools": ({"name": "read_file", "status": "completed"},),
        "usage": Usage(100, 20, 3, 4, 5, 6),
        "usage_source": "provider",
        "cost_usd": Decimal("0.0012300"),
        "error": {"code": "upstream_error", "details": [1, None, {"a": "b"}]},
        "routing": {"candidates": ["a", "b"], "floor": 0.5},
        "notes": ("repaired: orphaned call", "second"),
        "ended_at": EPOCH + 2.5,
    }
    return turn(turn_id, **(fields | changes))


def call(turn_id: str, number: int = 1, **changes: Any) -> CallRow:
    fields: dict[str, Any] = {
        "attempt": 0,
        "provider": "lab",
        "model": "m-1",
        "started_at": EPOCH + number,
        "ended_at": EPOCH + number + 0.5,
    }
    return CallRow(turn_id=turn_id, number=number, **(fields | changes))


def park(turn_id: str, *call_ids: str, **changes: Any) -> ParkRow:
    fields: dict[str, Any] = {
        "owner": "key_1",
        "history": "digest",
        "model": "auto",
        "snapshot": b"\x00machine\xff",
        "created_at": EPOCH,
        "expires_at": EPOCH + 900,
    }
    return ParkRow(turn_id=turn_id, call_ids=call_ids, **(fields | changes))


def reasoning(tool_call_id: str, **changes: Any) -> ReasoningRow:
    fields: dict[str, Any] = {
        "owner": "key_1",
        "asked": "d1",
        "origin": "lab/m-1",
        "message": b'{"role":"assistant"}',
        "created_at": EPOCH,
    }
    return ReasoningRow(tool_call_id=tool_call_id, **(fields | changes))
