"""What became of a turn from some point on: its end, its tool calls, what it used."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Struct

from trio_agent.replay.result import Moment
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.conversation import ToolCall, Usage
from trio_agent.statemachine.failure import Problem
from trio_agent.statemachine.tally import CallFigures, Tally
from trio_agent.turn.upstream import CALL_EVENTS


class Ending(Struct, frozen=True, kw_only=True):
    """How a response went on and ended.

    `outcome` and `reason` are those of the turn's row (docs/turns.md), `None` where it was left before its
    end. A turn whose host, in its own process, owes results counts as `parked`, too. Usage (tokens) and cost
    (USD, `None` where unknown) are those of the `model_calls` made meanwhile.
    """

    outcome: str | None
    reason: str | None
    problem: Problem | None
    text: str
    tool_calls: tuple[ToolCall, ...]
    model_calls: int
    usage: Usage
    usage_source: str
    cost_usd: Decimal | None

    @property
    def completed(self) -> bool:
        """Whether there is a whole answer, be it a call of the caller's tools."""
        return self.outcome == "completed" or (self.outcome, self.reason) == ("parked", "tool_calls")

    def calls_like(self, other: Ending) -> bool:
        """Whether both called the same tools with the same arguments, in the same order."""
        return [call_key(call) for call in self.tool_calls] == [call_key(call) for call in other.tool_calls]


def ending_of(moments: Iterable[Moment]) -> Ending:
    """What the machine asked for, up to the end of the first response."""
    words: list[str] = []
    calls: list[ToolCall] = []
    tally, made, answered = Tally(), 0, False
    outcome: str | None = None
    reason: str | None = None
    problem: Problem | None = None
    for moment in moments:
        value = moment.value
        answered |= type(value) in CALL_EVENTS
        match value:
            case fx.StartCall():
                answered = False
            case fx.SendText(text) | fx.SendRefusal(text):
                words.append(text)
            case fx.RunTool(call):
                calls.append(call)
            case fx.RecordCall(usage=usage, usage_source=source, cost_usd=cost, failure=failure):
                made += 1
                # As the machine has it: a call that failed before it answered is not billed.
                billed = source != "unknown" or failure is None or answered
                tally.add(CallFigures(usage, source, cost, billed))
            case fx.Park(calls=owed) | fx.CallHost(calls=owed):
                calls.extend(owed)
                outcome, reason = "parked", "tool_calls"
            case fx.Repark(reason=reason, problem=problem):
                outcome = "parked"
            case fx.CloseTurn(outcome=outcome, reason=reason, problem=problem):
                pass
            case _:
                pass
        if outcome is not None:
            break
    return Ending(
        outcome=outcome,
        reason=reason,
        problem=problem,
        text="".join(words),
        tool_calls=tuple(calls),
        model_calls=made,
        usage=tally.usage,
        usage_source=tally.usage_source,
        cost_usd=tally.cost_usd,
    )


def call_key(call: ToolCall) -> tuple[str, Any]:
    """A call's name, and its arguments as a JSON value where they are one."""
    try:
        return call.name, msgspec.json.decode(call.arguments)
    except (msgspec.DecodeError, RecursionError):
        return call.name, call.arguments


__all__ = ["Ending", "call_key", "ending_of"]
