"""Random turns: specifications, and events that are likely, or merely possible, where a turn stands."""

from __future__ import annotations

from decimal import Decimal
from typing import TypeAlias, get_args

import msgspec
from hypothesis import strategies as st
from machine_observer import Observer
from machine_values import (
    ALIVE,
    COST,
    PRICE,
    QUESTION,
    ROUTED,
    SAMPLES,
    STREAM,
    TWO,
    USAGE,
    WHOLE,
    A,
    B,
    C,
    make_spec,
    result,
)

from trio_agent.statemachine import Candidate, Limits, TurnSpec
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import Message, Text, Usage
from trio_agent.statemachine.failure import Failure, FailureKind
from trio_agent.statemachine.recovery import TOO_LONG

STEEP = msgspec.structs.replace(PRICE, cached_input=PRICE.input / 10, above=1000, long=PRICE)
RARELY = st.sampled_from([False] * 11 + [True])  # integers would favour their bounds
WORDS = st.sampled_from(["Hi", " there", "é", "\n", "{}", '"'])
NAMES = st.sampled_from(["look", "scan", "ask", "tell", "nosuch"])
TIMES = st.floats(0, 20, allow_nan=False).map(lambda seconds: round(seconds, 2))
USAGES = st.builds(
    Usage, input_tokens=st.integers(0, 2000), output_tokens=st.integers(0, 2000), reasoning_tokens=st.just(0)
)
# Few figures, so that sums meet the limits below exactly.
COSTS = st.sampled_from([None, None, *(Decimal(cost) for cost in ("0", "0.0005", "0.001", "0.25"))])
FAILURES = st.builds(
    Failure,
    kind=st.sampled_from([*get_args(FailureKind), *["unavailable"] * 5]),
    message=st.just("no"),
    status=st.none() | st.sampled_from([200, 400, 429, 503]),
    code=st.sampled_from([None, None, None, TOO_LONG]),
    retry_after=st.sampled_from([None, None, None, 0.0, 0.3, 4.75, 5.0, 6.0]),
)


def _candidates() -> st.SearchStrategy[tuple[Candidate, ...]]:
    one = st.builds(
        Candidate,
        provider=st.sampled_from([A.provider, B.provider, C.provider]),
        model=st.just("m"),
        price=st.sampled_from([PRICE, STEEP, None]),
        context_window=st.none() | st.sampled_from([100, 200]),
        max_retries=st.integers(0, 2),
        first_byte_timeout=st.sampled_from([0.0, 20.0, 30.0]),
        idle_timeout=st.sampled_from([4.0, 5.0]),
    )
    return st.lists(one, min_size=1, max_size=3).map(tuple)


SPECS = st.builds(
    TurnSpec,
    turn_id=st.just("t"),
    stream=st.booleans(),
    candidates=_candidates(),
    messages=st.just((QUESTION,)),
    server_tools=st.sampled_from([("look", "scan"), ("look", "scan"), ("look",), ()]),
    host_tools=st.sampled_from([("ask", "tell"), ("ask", "tell"), ("ask",), ()]),
    host=st.sampled_from(["park", "wait"]),
    routed=st.booleans(),
    limits=st.just(Limits())
    | st.builds(
        Limits,
        preflight=st.sampled_from([5.0, 0.0, 0.25, 30.0]),
        keepalive=st.sampled_from([3.0, 1.0]),
        turn=st.sampled_from([600.0, 8.0]),
        host_tool=st.sampled_from([900.0, 2.0]),
        model_calls=st.sampled_from([24, 24, 1, 2, 1, 3, 0]),
        cost_usd=st.sampled_from([None, None, *map(Decimal, ("0", "0.0005", "0.001", "0.002", "0.25"))]),
    ),
    seed=st.integers(0, 9),
)
PARKING_SPECS = SPECS.map(lambda spec: msgspec.structs.replace(spec, host="park"))

PROVIDER_DATA = st.sampled_from([None, '{"thought": 1}'])

CALL_EVENTS: dict[type, st.SearchStrategy[ev.Event]] = {
    ev.TextDelta: st.builds(ev.TextDelta, WORDS),
    ev.RefusalDelta: st.builds(ev.RefusalDelta, WORDS),
    ev.ReasoningDelta: st.builds(ev.ReasoningDelta, WORDS),
    ev.ReasoningSigned: st.builds(ev.ReasoningSigned, WORDS),
    ev.ReasoningEnded: st.just(ev.ReasoningEnded()),
    ev.RedactedReasoning: st.builds(ev.RedactedReasoning, WORDS),
    ev.ReasoningData: st.just(ev.ReasoningData("{}")),
    ev.ToolCallStarted: st.builds(
        ev.ToolCallStarted, st.integers(0, 3), st.sampled_from(["c0", "c1", "c2", "c3"]), NAMES, PROVIDER_DATA
    ),
    ev.ToolCallDelta: st.builds(ev.ToolCallDelta, st.integers(0, 3), WORDS),
    ev.UsageReported: st.builds(ev.UsageReported, USAGES, COSTS),
    ev.CallFinished: st.builds(
        ev.CallFinished,
        st.sampled_from(get_args(ev.FinishReason)),
        st.sampled_from([None, "r1"]),
        st.sampled_from([None, "m-2"]),
    ),
}
NOW = st.just(0.0)  # whoever sends the event puts in the time
RESULT = st.builds(result, st.sampled_from(["c0", "c1", "c2", "c3"]), is_error=st.booleans())
RESULTS = st.lists(RESULT, max_size=3).map(tuple)
OTHER_EVENTS: dict[type, st.SearchStrategy[ev.Event]] = {
    ev.Begin: st.builds(ev.Begin, NOW),
    ev.CallFailed: st.builds(ev.CallFailed, FAILURES, NOW),
    ev.ToolFinished: st.builds(ev.ToolFinished, RESULT, NOW),
    ev.HostToolsReturned: st.builds(ev.HostToolsReturned, RESULTS, NOW),
    ev.Resume: st.builds(ev.Resume, RESULTS, NOW),
    **{kind: st.builds(kind, NOW) for kind in ev.TIMER_EVENTS.values()},
    ev.Cancel: st.builds(ev.Cancel, st.sampled_from(get_args(ev.CancelReason)), NOW, st.booleans()),
    ev.ServerFailed: st.builds(
        ev.ServerFailed, st.sampled_from(["store_unavailable", "internal_error"]), st.just("no"), NOW
    ),
}
EVENTS_BY_KIND = CALL_EVENTS | OTHER_EVENTS
ANY_EVENT: st.SearchStrategy[ev.Event] = st.one_of(*EVENTS_BY_KIND.values())
CALL_EVENT: st.SearchStrategy[ev.Event] = st.one_of(*CALL_EVENTS.values())
# What a model may do without showing the caller anything.
BEFORE_CONTENT: st.SearchStrategy[ev.Event] = st.one_of(
    *(
        CALL_EVENTS[kind]
        for kind in (
            ev.ReasoningSigned,
            ev.ReasoningEnded,
            ev.RedactedReasoning,
            ev.ReasoningData,
            ev.ToolCallDelta,
            ev.UsageReported,
        )
    ),
    st.builds(ev.ToolCallStarted, st.integers(0, 3), st.sampled_from(["c0", "c1"]), st.just("look")),
    st.just(ev.CallFinished("tool_calls")),
)
_ASKED: list[ev.Event] = [ev.ToolCallStarted(0, "c0", "ask"), ev.CallFinished("tool_calls")]
_LOOKED: list[ev.Event] = [ev.ToolCallStarted(0, "c0", "look"), ev.CallFinished("tool_calls")]
_WINDOW = ev.PreflightTimerFired(0.0)
_BACK = ev.Resume((result("c0"),), 0.0)
_FAILED = ev.CallFailed(Failure(kind="unavailable", message="no"), 0.0)
_SILENT: list[ev.Event] = [ev.ReasoningSigned("s"), ev.UsageReported(USAGE), _FAILED]
_LIMITED = ev.CallFailed(Failure(kind="rate_limited", message="no", retry_after=60.0), 0.0)
_CRASHED = ev.CallFailed(Failure(kind="crashed", message="no"), 0.0)
_HI = ev.TextDelta("Hi")
_LOOKED_AND_ASKED: list[ev.Event] = [
    ev.ToolCallStarted(1, "c1", "look"),
    *_ASKED,
    ev.ToolFinished(result("c1"), 0.0),
]
_ONE_CALL = make_spec(limits={"model_calls": 1})
_CHEAP = make_spec(A, B, limits={"cost_usd": COST})
_ONE_CALL_ALIVE = make_spec(host="wait", limits={"model_calls": 1})
_NARROW = make_spec(A, B, limits={"preflight": 0.1})
Beginning: TypeAlias = tuple[TurnSpec, list[ev.Event]]
# Random turns seldom come to these places by themselves.
PLACES: list[Beginning] = [
    (STREAM, []),
    (STREAM, [_WINDOW]),
    (STREAM, [_WINDOW, *_LOOKED]),
    (STREAM, [_FAILED, _WINDOW]),
    (STREAM, [*_SILENT, ev.RetryTimerFired(0.0)]),
    (STREAM, [*_ASKED, _BACK]),
    (STREAM, [*_ASKED, _BACK, _HI]),
    (STREAM, [*_LOOKED_AND_ASKED, _BACK]),
    (WHOLE, _ASKED[:1]),
    (WHOLE, [_HI, *_LOOKED]),
    (WHOLE, [*_ASKED, _BACK, _HI]),
    (WHOLE, [*_ASKED, _BACK, _HI, *_LOOKED]),
    (WHOLE, [*_ASKED, _BACK, *_LOOKED]),
    (ALIVE, _ASKED),
    (ALIVE, [ev.ToolCallStarted(1, "c1", "tell"), *_ASKED]),
    (ALIVE, _LOOKED_AND_ASKED),
    (TWO, [_CRASHED]),
    (TWO, [_WINDOW]),
    (ROUTED, [_LIMITED, _LIMITED]),
    (_NARROW, []),
    (_CHEAP, [ev.UsageReported(USAGE), _CRASHED]),
    (_CHEAP, [ev.UsageReported(USAGE), _FAILED]),
    (make_spec(limits={"model_calls": 0}), []),
    (_ONE_CALL, _ASKED),
    (_ONE_CALL_ALIVE, _ASKED),
    (_ONE_CALL, _LOOKED),
    (_ONE_CALL, [_HI, *_LOOKED]),
    (_ONE_CALL, [_WINDOW, *_LOOKED]),
]
BEGINNINGS: st.SearchStrategy[Beginning] = st.one_of(
    st.tuples(SPECS, st.just([])),
    st.tuples(SPECS, st.sampled_from([start for _, start in PLACES])),
    st.sampled_from(PLACES),
)
# For a quick look at what each event would do: one draw chooses among many variants of all of them.
VARIANTS: dict[type, list[ev.Event]] = {kind: [event] for kind, event in SAMPLES.items()} | {
    ev.ToolCallStarted: [
        ev.ToolCallStarted(index, f"c{index}", name)
        for index in range(3)
        for name in ("look", "ask", "nosuch")
    ],
    ev.ToolCallDelta: [ev.ToolCallDelta(index, "{}") for index in range(3)],
    ev.CallFinished: [ev.CallFinished(reason) for reason in get_args(ev.FinishReason)],
    ev.CallFailed: [
        ev.CallFailed(Failure(kind=kind, message="no", code=code, retry_after=wait), 0.0)
        for kind in get_args(FailureKind)
        for code in (None, TOO_LONG)
        for wait in (None, 1.0, 5.0)
    ],
    ev.ToolFinished: [ev.ToolFinished(result(f"c{index}"), 0.0) for index in range(3)],
    ev.HostToolsReturned: [ev.HostToolsReturned((result(f"c{index}"),), 0.0) for index in range(3)],
    ev.Resume: [ev.Resume((result(f"c{index}"),), 0.0) for index in range(3)],
    ev.Cancel: [
        ev.Cancel(reason, 0.0, drained) for reason in get_args(ev.CancelReason) for drained in (False, True)
    ],
}
QUESTIONS = st.sampled_from([(), (Message("user", (Text("and?"),)),)])


@st.composite
def answers(draw: st.DrawFn) -> list[ev.Event]:
    """A whole answer of a model, in any order that a provider may send it."""
    events: list[ev.Event] = []
    for index in range(draw(st.sampled_from([2, 1, 3, 0]))):
        match draw(st.sampled_from(["tool", "text", "tool", "thinking", "tool", "redacted"])):
            case "text":
                events += draw(st.lists(CALL_EVENTS[ev.TextDelta], min_size=1, max_size=3))
            case "thinking":
                events += draw(st.lists(CALL_EVENTS[ev.ReasoningDelta], max_size=2))
                events.append(draw(CALL_EVENTS[ev.ReasoningSigned] | CALL_EVENTS[ev.ReasoningEnded]))
            case "redacted":
                events.append(draw(CALL_EVENTS[ev.RedactedReasoning] | CALL_EVENTS[ev.ReasoningData]))
            case _:
                events.append(ev.ToolCallStarted(index, f"c{index}", draw(NAMES)))
                events += [ev.ToolCallDelta(index, draw(WORDS)) for _ in range(draw(st.integers(0, 2)))]
    events += draw(st.lists(CALL_EVENTS[ev.UsageReported], max_size=2))
    events.append(
        ev.CallFinished(
            draw(st.sampled_from(["tool_calls", "stop", "tool_calls", "stop", "tool_calls", "length"]))
        )
    )
    return events


def next_events(seen: Observer) -> st.SearchStrategy[list[ev.Event]]:
    """What a driver could send where this turn stands, so that random turns get somewhere."""
    if seen.call is not None:
        return answers()
    if seen.round.tools:
        ids = st.permutations(sorted(seen.round.tools))
        return ids.flatmap(
            lambda order: st.tuples(
                *(
                    st.builds(ev.ToolFinished, st.builds(result, st.just(each), is_error=st.booleans()), NOW)
                    for each in order
                )
            ).map(list)
        )
    if seen.round.owed:
        every = tuple(result(call.id) for call in seen.round.owed)
        if seen.parked:
            order = st.sampled_from([every, every[::-1]])
            return st.builds(ev.Resume, order, NOW, QUESTIONS).map(lambda event: [event])
        some = st.sampled_from([every, every[:1], every[::-1]])
        return st.builds(ev.HostToolsReturned, some, NOW).map(lambda event: [event])
    if ev.Timer.RETRY in seen.timers.deadlines:
        return OTHER_EVENTS[ev.RetryTimerFired].map(lambda event: [event])
    return ANY_EVENT.map(lambda event: [event])
