"""The record of a turn, as `/v1/turns` and `trio-agent turns` show it.

Times are seconds since the epoch, right to the millisecond. Money is an exact decimal in USD as text, `null`
where it is unknown. Ids of turns begin with `turn_`.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from trio_agent.statemachine.conversation import Usage


class StateReached(Struct, frozen=True):
    """A state that the turn was in, since `at`."""

    state: str
    at: float


class ModelCall(Struct, frozen=True, kw_only=True):
    """One attempt at a model call; `number` counts the calls of the turn, `attempt` the repeats of one.

    `failure` is what went wrong with it, `served_model` what the provider says has answered.
    """

    number: int
    attempt: int
    provider: str
    model: str
    served_model: str | None
    response_id: str | None
    started_at: float
    ended_at: float
    finish_reason: str | None
    usage: Usage
    usage_source: str
    cost_usd: str | None
    failure: dict[str, Any] | None


class TurnRecord(Struct, frozen=True, kw_only=True):
    """A turn. `key_id` names the key that made it, and tells nothing of it; `model` is what the caller asked
    for, `provider` and `served_model` who answers. `state` is where it stands, or stood when it ended."""

    id: str
    object: Literal["turn"] = "turn"
    session_id: str | None
    key_id: str | None
    face: str
    model: str
    provider: str | None
    served_model: str | None
    outcome: str
    reason: str | None
    state: str
    committed_by: str | None
    states: list[StateReached]
    model_calls: list[ModelCall]
    tools: list[dict[str, Any]]
    usage: Usage
    usage_source: str
    cost_usd: str | None
    error: dict[str, Any] | None
    notes: list[str]
    routing: dict[str, Any] | None
    created_at: float
    ended_at: float | None


class TurnList(Struct, frozen=True, kw_only=True):
    """A page of turns, the newest first. `has_more`: whether there are others in the direction of paging."""

    object: Literal["list"] = "list"
    data: list[TurnRecord]
    first_id: str | None
    last_id: str | None
    has_more: bool


__all__ = ["ModelCall", "StateReached", "TurnList", "TurnRecord"]
