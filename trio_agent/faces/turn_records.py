"""From the rows of turns to their records. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from trio_agent.store.contract import CallRow, TurnRow
from trio_agent.wire.turns import ModelCall, StateReached, TurnList, TurnRecord


def record_of(row: TurnRow, calls: Iterable[CallRow]) -> TurnRecord:
    """The record of a turn.

    Args:
        calls: its model calls, in order.
    """
    return TurnRecord(
        id=row.id,
        session_id=row.session_id,
        key_id=row.owner or None,
        face=row.face,
        model=row.model,
        provider=row.provider,
        served_model=row.served_model,
        outcome=row.outcome,
        reason=row.reason,
        state=row.state,
        committed_by=row.committed_by,
        states=[StateReached(each.state, _time(each.at)) for each in row.states],
        model_calls=[_call(each) for each in calls],
        tools=[_tool(each) for each in row.tools],
        usage=row.usage,
        usage_source=row.usage_source,
        cost_usd=_money(row.cost_usd),
        error=row.error,
        notes=list(row.notes),
        routing=row.routing,
        created_at=_time(row.created_at),
        ended_at=None if row.ended_at is None else _time(row.ended_at),
    )


def list_of(rows: Sequence[TurnRow], calls: Mapping[str, Sequence[CallRow]], *, has_more: bool) -> TurnList:
    """A page of records.

    Args:
        calls: of each turn that has some, by its id.
    """
    return TurnList(
        data=[record_of(row, calls.get(row.id, ())) for row in rows],
        first_id=rows[0].id if rows else None,
        last_id=rows[-1].id if rows else None,
        has_more=has_more,
    )


def by_turn(calls: Iterable[CallRow]) -> dict[str, list[CallRow]]:
    """Model calls, sorted by whose they are."""
    sorted_out: dict[str, list[CallRow]] = {}
    for call in calls:
        sorted_out.setdefault(call.turn_id, []).append(call)
    return sorted_out


def cut(rows: Sequence[TurnRow], limit: int, *, forwards: bool) -> Sequence[TurnRow]:
    """The `limit` rows of a page, of one more that was asked for to see whether there are any.

    Args:
        forwards: whether the page was asked for with `before`: then the one too many is the newest.
    """
    return rows[max(0, len(rows) - limit) :] if forwards else rows[:limit]


def _call(row: CallRow) -> ModelCall:
    return ModelCall(
        number=row.number,
        attempt=row.attempt,
        provider=row.provider,
        model=row.model,
        served_model=row.served_model,
        response_id=row.response_id,
        started_at=_time(row.started_at),
        ended_at=_time(row.ended_at),
        finish_reason=row.finish_reason,
        usage=row.usage,
        usage_source=row.usage_source,
        cost_usd=_money(row.cost_usd),
        failure=row.failure,
    )


def _tool(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run of a tool; those of older rows have no time."""
    return {**run, "at": _time(run["at"])} if "at" in run else dict(run)


def _time(at: float) -> float:
    return round(at, 3)


def _money(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:f}"


__all__ = ["by_turn", "cut", "list_of", "record_of"]
