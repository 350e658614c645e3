"""Short names for what the machine's tests say over and over: specifications, failures, runs of effects."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec

from trio_agent.statemachine import Candidate, Limits, Turn, TurnSpec
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import Message, Text, ToolCall, ToolResult, Usage
from trio_agent.statemachine.failure import Failure, Problem
from trio_agent.statemachine.money import Price

T = ev.Timer
PRICE = Price(input=Decimal("0.000001"), output=Decimal("0.000002"))
USAGE = Usage(input_tokens=1000, output_tokens=100)
COST = Decimal("0.0012")
NO_USAGE = Usage()
A = Candidate(provider="a", model="m", price=PRICE)
B = Candidate(provider="b", model="m", price=PRICE)
C = Candidate(provider="c", model="m", price=PRICE)
QUESTION = Message("user", (Text("hi"),))


def make_spec(*candidates: Candidate, limits: dict[str, Any] | None = None, **changes: Any) -> TurnSpec:
    """A streamed turn of candidate A. The server has the tools `look`, `scan`, the caller `ask`, `tell`."""
    values: dict[str, Any] = {
        "turn_id": "t",
        "stream": True,
        "candidates": candidates or (A,),
        "messages": (QUESTION,),
        "server_tools": ("look", "scan"),
        "host_tools": ("ask", "tell"),
        "limits": Limits(**(limits or {})),
        "seed": 7,
    }
    return TurnSpec(**(values | changes))


STREAM = make_spec()
WHOLE = make_spec(stream=False)
ALIVE = make_spec(host="wait")
TWO = make_spec(A, B)
ROUTED = make_spec(A, B, routed=True)


def failure(kind: str, **more: Any) -> Failure:
    return msgspec.convert({"kind": kind, "message": kind} | more, Failure)


def failed(kind: str, at: float = 1.0, **more: Any) -> ev.CallFailed:
    return ev.CallFailed(failure(kind, **more), at)


def result(call_id: str, text: str = "ok", *, is_error: bool = False) -> ToolResult:
    return ToolResult(call_id, (Text(text),), is_error)


def tool_done(call_id: str, *, is_error: bool = False) -> ev.ToolFinished:
    return ev.ToolFinished(result(call_id, is_error=is_error), 2.0)


def call_tool(name: str, call_id: str, index: int = 0) -> ev.ToolCallStarted:
    return ev.ToolCallStarted(index, call_id, name)


BEGIN = ev.Begin(0.0)
HI = ev.TextDelta("Hi")
USED = ev.UsageReported(USAGE)
STOP = ev.CallFinished("stop")
TOOLS = ev.CallFinished("tool_calls")
WINDOW = ev.PreflightTimerFired(5.0)
LOOK = ToolCall("s1", "look", "")
ASK = ToolCall("h1", "ask", "")

SAMPLES: dict[type, ev.Event] = {
    type(event): event
    for event in (
        BEGIN,
        HI,
        ev.RefusalDelta("no"),
        ev.ReasoningDelta("hm"),
        ev.ReasoningSigned("sig"),
        ev.ReasoningEnded(),
        ev.RedactedReasoning("x"),
        ev.ReasoningData("{}"),
        call_tool("look", "s1"),
        ev.ToolCallDelta(0, "{}"),
        USED,
        STOP,
        failed("refused"),
        tool_done("s1"),
        ev.HostToolsReturned((result("h1"),), 1.0),
        ev.Resume((result("h1"),), 1.0),
        *(kind(1.0) for kind in ev.TIMER_EVENTS.values()),
        ev.Cancel("cancelled", 1.0),
        ev.ServerFailed("internal_error", "bug", 1.0),
    )
}

# --- runs of effects that come again and again ------------------------------------------------------


def set_timer(timer: ev.Timer, seconds: float) -> fx.SetTimer:
    return fx.SetTimer(timer, seconds)


def start(number: int, candidate: int = 0, attempt: int = 0) -> list[fx.Effect]:
    return [set_timer(T.STALL, 300.0), fx.StartCall(number, candidate, attempt)]


ALIVE_SIGN: list[fx.Effect] = [set_timer(T.STALL, 120.0)]
OPEN: list[fx.Effect] = [fx.OpenTurn(), set_timer(T.TURN, 600.0), set_timer(T.PREFLIGHT, 5.0)]
OPEN_WHOLE: list[fx.Effect] = [fx.OpenTurn(), set_timer(T.TURN, 600.0)]
ROLE: list[fx.Effect] = [fx.SendRole(), set_timer(T.KEEPALIVE, 3.0)]
BY_CONTENT: list[fx.Effect] = [fx.ClearTimer(T.PREFLIGHT), fx.Commit("content"), *ROLE]
BY_WINDOW: list[fx.Effect] = [fx.Commit("window"), *ROLE]
BY_END: list[fx.Effect] = [fx.Commit("end"), fx.SendRole()]
CALL_OVER: list[fx.Effect] = [fx.ClearTimer(T.STALL)]


def row(number: int = 1, candidate: int = 0, attempt: int = 0, **more: Any) -> fx.RecordCall:
    """The row of a call that reported nothing, unless `more` says otherwise."""
    values: dict[str, Any] = {"usage": NO_USAGE, "usage_source": "unknown", "cost_usd": None}
    return fx.RecordCall(number, candidate, attempt, **(values | more))


def row_used(number: int = 1, finish: str = "stop", *, candidate: int = 0, attempt: int = 0) -> fx.RecordCall:
    """The row of a finished call that reported USAGE."""
    return row(
        number,
        candidate,
        attempt,
        usage=USAGE,
        usage_source="provider",
        cost_usd=COST,
        finish_reason=finish,
    )


def closed(
    outcome: str,
    reason: str,
    problem: Problem | None = None,
    *,
    usage: Usage = NO_USAGE,
    source: str = "unknown",
    cost: Decimal | None = None,
) -> fx.CloseTurn:
    return fx.CloseTurn(outcome, reason, usage, source, cost, problem)  # type: ignore[arg-type]


def finished(
    reason: str, *, usage: Usage = NO_USAGE, source: str = "unknown", cost: Decimal | None = None
) -> fx.Finish:
    return fx.Finish(reason, usage, cost, source)  # type: ignore[arg-type]


def completed(reason: str = "stop") -> list[fx.Effect]:
    """The end of a committed turn that reported nothing."""
    return [closed("completed", reason), finished(reason)]


# --- scripts ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Renewed:
    """A step of a script: the turn is stored and restored, perhaps for another response."""

    spec: TurnSpec | None = None


@dataclass(frozen=True)
class Script:
    """This happened, so that was asked for, and nothing else.

    `given` are events that other scripts look at; `then` are events with all effects they lead to.
    """

    title: str
    spec: TurnSpec
    given: list[ev.Event | Renewed] = field(default_factory=list)
    then: list[tuple[ev.Event | Renewed, list[fx.Effect]]] = field(default_factory=list)

    @property
    def events(self) -> list[ev.Event | Renewed]:
        return [*self.given, *(event for event, _ in self.then)]


def step(turn: Turn, event: ev.Event | Renewed) -> tuple[Turn, list[fx.Effect]]:
    if isinstance(event, Renewed):
        return Turn.restore(turn.snapshot(), event.spec), []
    return turn, turn.receive(event)


def reached(spec: TurnSpec, *events: ev.Event | Renewed) -> Turn:
    """The turn after these events."""
    turn = Turn(spec)
    for event in events:
        turn, _ = step(turn, event)
    return turn


def without_words(effects: list[fx.Effect]) -> list[fx.Effect]:
    """The effects without the texts of problems, which may be improved at any time."""
    return [
        msgspec.structs.replace(each, problem=msgspec.structs.replace(each.problem, message="", details=None))
        if isinstance(each, fx.CloseTurn | fx.Repark | fx.SendError | fx.Reject) and each.problem is not None
        else each
        for each in effects
    ]


def problem(code: str, **more: Any) -> Problem:
    return msgspec.convert({"code": code, "message": ""} | more, Problem)


def rejected(outcome: str, reason: str, told: Problem, **figures: Any) -> list[fx.Effect]:
    """The end of a turn that shows its failure as an HTTP status."""
    return [closed(outcome, reason, told, **figures), fx.Reject(told)]


def put_back(reason: str, told: Problem | None = None, **figures: Any) -> list[fx.Effect]:
    """The end of a resumed response that its client may repeat."""
    values: dict[str, Any] = {"usage": NO_USAGE, "usage_source": "unknown", "cost_usd": None} | figures
    parked = fx.Repark(reason, **values, problem=told)
    return [parked] if told is None else [parked, fx.Reject(told)]


def broken(outcome: str, reason: str, told: Problem, **figures: Any) -> list[fx.Effect]:
    """The end of a turn that shows its failure inside a committed response."""
    ending = closed(outcome, reason, told, **figures)
    return [ending, fx.SendError(told, ending.usage, ending.cost_usd, ending.usage_source)]
