"""Rows for the store's tests, with every field set to something that can be told from its default."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from trio_agent.statemachine.conversation import Usage
from trio_agent.store.contract import CallRow, ParkRow, ReasoningRow, StateAt, Store, TurnRow
from trio_agent.store.kept import (
    AnswerRow,
    ConversationEntry,
    ConversationRow,
    ItemRow,
    Keeping,
    KeyRow,
    LogEntry,
    LogRow,
    TranscriptNode,
)

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


def answer(answer_id: str, **changes: Any) -> AnswerRow:
    fields: dict[str, Any] = {
        "owner": "key_1",
        "turn_id": f"turn of {answer_id}",
        "face": "responses",
        "model": "auto",
        "created_at": EPOCH,
        "status": "completed",
        "background": True,
        "body": b'{"id":"\xc3\xa4"}',
        "messages": b'[{"role":"user"}]',
    }
    return AnswerRow(id=answer_id, **(fields | changes))


def item(item_id: str, answer_id: str | None = None, **changes: Any) -> ItemRow:
    fields: dict[str, Any] = {
        "owner": "key_1",
        "position": 0,
        "direction": "output",
        "item": b'{"type":"message"}',
    }
    return ItemRow(id=item_id, answer_id=answer_id, **(fields | changes))


def log(log_id: str, **changes: Any) -> LogRow:
    fields: dict[str, Any] = {
        "owner": "key_1",
        "turn_id": f"turn of {log_id}",
        "face": "chat",
        "head": b'{"created":1}',
        "created_at": EPOCH,
        "ended_at": EPOCH + 1.5,
    }
    return LogRow(id=log_id, **(fields | changes))


def entries(*numbers: int) -> tuple[LogEntry, ...]:
    return tuple(span(number) for number in numbers)


def span(first: int, count: int = 1, what: bytes = b"") -> LogEntry:
    """Batches that were written together."""
    return LogEntry(first, count, what or b"[%d]" % first)


def key(name: str, log_id: str, **changes: Any) -> KeyRow:
    fields: dict[str, Any] = {
        "owner": "key_1",
        "scope": "POST /v1/responses",
        "fingerprint": "digest",
        "created_at": EPOCH,
    }
    return KeyRow(key=name, log_id=log_id, **(fields | changes))


def conversation(conversation_id: str, **changes: Any) -> ConversationRow:
    fields: dict[str, Any] = {"owner": "key_1", "created_at": EPOCH, "metadata": b'{"topic":"a"}'}
    return ConversationRow(id=conversation_id, **(fields | changes))


def entry(
    conversation_id: str, messages: bytes = b"[1]", *item_ids: str, **changes: Any
) -> ConversationEntry:
    fields: dict[str, Any] = {"owner": "key_1"} | changes
    return ConversationEntry(
        conversation_id=conversation_id,
        messages=messages,
        items=tuple(item(name) for name in item_ids),
        **fields,
    )


def node(node_id: str, parent_id: str | None = None, **changes: Any) -> TranscriptNode:
    fields: dict[str, Any] = {
        "session_id": "s",
        "owner": "key_1",
        "turn_id": f"turn of {node_id}",
        "digest": f"digest of {node_id}",
        "length": 2,
        "messages": b"[2]",
        "created_at": EPOCH,
    }
    return TranscriptNode(id=node_id, parent_id=parent_id, **(fields | changes))


async def keep(store: Store, turn_id: str = "t", **kept: Any) -> None:
    """Close a turn that keeps something."""
    await store.close_turn(full_turn(turn_id), [], keeping=Keeping(**kept))
