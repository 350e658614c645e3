"""Random turns: specifications, and events that are likely, or merely possible, where a turn stands."""

from __future__ import annotations

from decimal import Decimal
from typing import get_args

from hypothesis import strategies as st
from machine_observer import Observer
from machine_values import PRICE, QUESTION, A, B, C, result

from trio_agent.statemachine import Candidate, Limits, TurnSpec
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import Message, Text, Usage
from trio_agent.statemachine.failure import Failure, FailureKind

RARELY = st.sampled_from([False] * 11 + [True])  # integers would favour their bounds
WORDS = st.sampled_from(["Hi", " there", "é", "\n", "{}", '"'])
NAMES = st.sampled_from(["look", "scan", "ask", "tell", "nosuch"])
TIMES = st.floats(0, 20, allow_nan=False).map(lambda seconds: round(seconds, 2))
USAGES = st.builds(
    Usage, input_tokens=st.integers(0, 2000), output_tokens=st.integers(0, 2000), reasoning_tokens=st.just(0)
)
COSTS = st.none() | st.decimals(0, 1, places=4)
FAILURES = st.builds(
    Failure,
    kind=st.sampled_from(get_args(FailureKind)),
    message=st.just("no"),
    status=st.none() | st.sampled_from([200, 400, 429, 503]),
    code=st.none() | st.just("context_length_exceeded"),
    retry_after=st.none() | st.floats(0, 6).map(lambda seconds: round(seconds, 2)),
)


def _candidates() -> st.SearchStrategy[tuple[Candidate, ...]]:
    one = st.builds(
        Candidate,
        provider=st.sampled_from([A.provider, B.provider, C.provider]),
        model=st.just("m"),
        price=st.sampled_from([PRICE, PRICE, None]),
        context_window=st.none() | st.sampled_from([100, 200]),
        max_retries=st.integers(0, 2),
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
    limits=st.sampled_from(
        [Limits()] * 24
        + [Limits(model_calls=calls) for calls in (0, 1, 2, 3)]
        + [Limits(cost_usd=Decimal(cost)) for cost in ("0", "0.0005", "0.002", "1")]
    ),
    seed=st.integers(0, 9),
)

CALL_EVENTS: dict[type, st.SearchStrategy[ev.Event]] = {
    ev.TextDelta: st.builds(ev.TextDelta, WORDS),
    ev.RefusalDelta: st.builds(ev.RefusalDelta, WORDS),
    ev.ReasoningDelta: st.builds(ev.ReasoningDelta, WORDS),
    ev.ReasoningSigned: st.builds(ev.ReasoningSigned, WORDS),
    ev.ReasoningEnded: st.just(ev.ReasoningEnded()),
    ev.RedactedReasoning: st.builds(ev.RedactedReasoning, WORDS),
    ev.ReasoningData: st.just(ev.ReasoningData("{}")),
    ev.ToolCallStarted: st.builds(
        ev.ToolCallStarted, st.integers(0, 3), st.sampled_from(["c0", "c1", "c2", "c3"]), NAMES
    ),
    ev.ToolCallDelta: st.builds(ev.ToolCallDelta, st.integers(0, 3), WORDS),
    ev.UsageReported: st.builds(ev.UsageReported, USAGES, COSTS),
    ev.CallFinished: st.builds(ev.CallFinished, st.sampled_from(get_args(ev.FinishReason))),
}
RESULTS = st.lists(
    st.builds(result, st.sampled_from(["c0", "c1", "c2", "c3"]), is_error=st.booleans()), max_size=3
).map(tuple)
OTHER_EVENTS: dict[type, st.SearchStrategy[ev.Event]] = {
    ev.Begin: st.builds(ev.Begin, TIMES),
    ev.CallFailed: st.builds(ev.CallFailed, FAILURES, TIMES),
    ev.ToolFinished: st.builds(ev.ToolFinished, RESULTS.filter(len).map(lambda results: results[0]), TIMES),
    ev.HostToolsReturned: st.builds(ev.HostToolsReturned, RESULTS, TIMES),
    ev.Resume: st.builds(ev.Resume, RESULTS, TIMES),
    **{kind: st.builds(kind, TIMES) for kind in ev.TIMER_EVENTS.values()},
    ev.Cancel: st.builds(ev.Cancel, st.sampled_from(get_args(ev.CancelReason)), TIMES, st.booleans()),
    ev.ServerFailed: st.builds(
        ev.ServerFailed, st.sampled_from(["store_unavailable", "internal_error"]), st.just("no"), TIMES
    ),
}
EVENTS_BY_KIND = CALL_EVENTS | OTHER_EVENTS
ANY_EVENT: st.SearchStrategy[ev.Event] = st.one_of(*EVENTS_BY_KIND.values())
CALL_EVENT: st.SearchStrategy[ev.Event] = st.one_of(*CALL_EVENTS.values())
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
    if seen.tools:
        ids = st.permutations(sorted(seen.tools))
        return ids.flatmap(
            lambda order: st.tuples(
                *(
                    st.builds(
                        ev.ToolFinished, st.builds(result, st.just(each), is_error=st.booleans()), TIMES
                    )
                    for each in order
                )
            ).map(list)
        )
    if seen.owed:
        every = tuple(result(call.id) for call in seen.owed)
        if seen.parked:
            return st.builds(ev.Resume, st.just(every), TIMES, QUESTIONS).map(lambda event: [event])
        some = st.sampled_from([every, every[:1]])
        return st.builds(ev.HostToolsReturned, some, TIMES).map(lambda event: [event])
    if ev.Timer.RETRY in seen.timers:
        return OTHER_EVENTS[ev.RetryTimerFired].map(lambda event: [event])
    return ANY_EVENT.map(lambda event: [event])
