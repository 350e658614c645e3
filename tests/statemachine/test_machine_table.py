"""The table is the law: what is not in it changes nothing, and what a guard refuses changes nothing."""

from __future__ import annotations

import pytest
from machine_strategies import EVENTS_BY_KIND
from machine_values import (
    ALIVE,
    ASK,
    BEGIN,
    HI,
    SAMPLES,
    STOP,
    STREAM,
    TOOLS,
    TWO,
    USED,
    WHOLE,
    WINDOW,
    Renewed,
    call_tool,
    failed,
    make_spec,
    reached,
    result,
    tool_done,
)

from trio_agent.statemachine import TRANSITIONS, ProtocolViolation, State, Turn, TurnSpec
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.answering import MAX_CALLS
from trio_agent.statemachine.table import (
    DONE,
    ERROR,
    FINAL,
    HOST_TOOL_WAIT,
    NEW,
    PREFLIGHT,
    ROLE_CHUNK,
    STREAMING,
)

REACHED: dict[State, list[ev.Event | Renewed]] = {
    NEW: [],
    PREFLIGHT: [BEGIN],
    ROLE_CHUNK: [BEGIN, WINDOW],
    STREAMING: [BEGIN, HI],
    HOST_TOOL_WAIT: [BEGIN, call_tool("ask", "h1"), TOOLS],
    DONE: [BEGIN, STOP],
    ERROR: [BEGIN, failed("crashed")],
}


def apply(turn: Turn, event: ev.Event) -> ProtocolViolation | None:
    """Send one event and check it against the table; returns the refusal, if it was refused."""
    before, state, targets = turn.snapshot(), turn.state, TRANSITIONS[turn.state].get(type(event))
    refusal: ProtocolViolation | None = None
    try:
        turn.receive(event)
    except ProtocolViolation as violation:
        refusal = violation
    if refusal is not None:
        assert turn.snapshot() == before
        assert refusal.state is state
        assert refusal.event is event
        return refusal
    assert targets is not None, f"{event} was accepted in {state}"
    assert turn.state in targets
    return None


def test_every_event_has_its_sample_and_its_place_in_the_table() -> None:
    """An event that no state takes would be dead weight."""
    listed = {kind for row in TRANSITIONS.values() for kind in row}
    assert listed == set(SAMPLES) == set(EVENTS_BY_KIND)
    assert set(TRANSITIONS) == set(State) == set(REACHED)
    assert {state for state, row in TRANSITIONS.items() if not row} == FINAL


@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
@pytest.mark.parametrize("kind", SAMPLES, ids=lambda kind: kind.__name__)
def test_a_pair_that_is_not_in_the_table_is_refused(state: State, kind: type) -> None:
    """Every event at every state: taken as the table says, or refused with the turn as it was."""
    turn = reached(STREAM, *REACHED[state])
    assert turn.state is state
    refusal = apply(turn, SAMPLES[kind])
    if kind not in TRANSITIONS[state]:
        assert refusal is not None
        assert str(refusal) == f"{kind.__name__} in state {state.name}"


BACK_OFF = [BEGIN, failed("refused")]
TOOL_RUNS = [BEGIN, HI, call_tool("look", "s1"), TOOLS]
PARKED = [BEGIN, call_tool("ask", "h1"), call_tool("tell", "h2", 1), TOOLS]

GUARDS: list[tuple[str, TurnSpec, list[ev.Event], list[ev.Event]]] = [
    (
        "no call runs during a back-off",
        STREAM,
        BACK_OFF,
        [
            *(SAMPLES[kind] for kind in TRANSITIONS[PREFLIGHT] if kind in (ev.TextDelta, ev.RefusalDelta)),
            ev.ReasoningDelta("hm"),
            ev.ReasoningSigned("s"),
            ev.ReasoningEnded(),
            ev.RedactedReasoning("x"),
            ev.ReasoningData("{}"),
            call_tool("look", "s1"),
            call_tool("ask", "h1"),
            ev.ToolCallDelta(0, "{}"),
            USED,
            STOP,
            failed("refused"),
            ev.StallTimerFired(1.0),
        ],
    ),
    (
        "no call runs while tools do",
        STREAM,
        TOOL_RUNS,
        [HI, USED, STOP, failed("truncated"), ev.StallTimerFired(1.0)],
    ),
    ("no back-off is running", STREAM, [BEGIN], [ev.RetryTimerFired(1.0)]),
    ("the back-off is over", STREAM, [*BACK_OFF, ev.RetryTimerFired(2.0)], [ev.RetryTimerFired(2.0)]),
    ("no such tool is running", STREAM, TOOL_RUNS, [tool_done("s2"), tool_done("h1")]),
    (
        "the tool has ended already",
        STREAM,
        [BEGIN, call_tool("look", "s1"), call_tool("scan", "s2", 1), TOOLS, tool_done("s1")],
        [tool_done("s1")],
    ),
    (
        "the call's index or id is taken",
        STREAM,
        [BEGIN, call_tool("ask", "h1")],
        [call_tool("ask", "h2"), call_tool("ask", "h1", 1), call_tool("look", "h1", 1)],
    ),
    ("the call has not begun", STREAM, [BEGIN, call_tool("ask", "h1")], [ev.ToolCallDelta(1, "{}")]),
    ("nothing is streamed, so there is no window", WHOLE, [BEGIN], [WINDOW]),
    ("nothing was committed, so nothing is kept alive", WHOLE, [BEGIN, HI], [ev.KeepaliveTimerFired(1.0)]),
    (
        "a parked turn has no open response, and takes no posted results",
        STREAM,
        PARKED,
        [ev.KeepaliveTimerFired(1.0), ev.HostToolsReturned((result("h1"), result("h2")), 1.0)],
    ),
    (
        "a resumed turn needs exactly the results that it owes",
        STREAM,
        PARKED,
        [
            ev.Resume((), 1.0),
            ev.Resume((result("h1"),), 1.0),
            ev.Resume((result("h1"), result("h1")), 1.0),
            ev.Resume((result("h1"), result("h2"), result("h3")), 1.0),
        ],
    ),
    (
        "a turn that waits alive is not resumed, and takes each result once",
        ALIVE,
        [*PARKED, ev.HostToolsReturned((result("h1"),), 1.0)],
        [
            ev.Resume((result("h2"),), 1.0),
            ev.HostToolsReturned((result("h1"),), 1.0),
            ev.HostToolsReturned((result("h2"), result("h2")), 1.0),
            ev.HostToolsReturned((result("h3"),), 1.0),
        ],
    ),
    ("a stopped call says nothing more", TWO, [*TOOL_RUNS], [ev.TextDelta("late"), ev.CallFinished("stop")]),
]


@pytest.mark.parametrize(("why", "spec", "path", "refused"), GUARDS, ids=[case[0] for case in GUARDS])
def test_a_guard_refuses_within_a_legal_pair(
    why: str, spec: TurnSpec, path: list[ev.Event], refused: list[ev.Event]
) -> None:
    """What the table allows may still contradict what the turn knows; then nothing changes either."""
    for event in refused:
        turn = reached(spec, *path)
        assert type(event) in TRANSITIONS[turn.state]
        violation = apply(turn, event)
        assert violation is not None, f"{why}, and yet {event} was accepted"
        assert ": " in str(violation), "a refusal says why"


def test_the_owed_calls_are_shown_until_they_are_answered() -> None:
    """A driver and a face learn from the turn what the caller still has to bring."""
    turn = reached(make_spec(host="wait"), BEGIN, call_tool("ask", "h1"), call_tool("look", "s1", 1), TOOLS)
    assert turn.owed == (ASK,)
    turn.receive(tool_done("s1"))
    assert turn.owed == (ASK,)
    turn.receive(ev.HostToolsReturned((result("h1"),), 1.0))
    assert turn.owed == ()


def test_an_answer_holds_a_bounded_number_of_calls() -> None:
    """An upstream that never stops calling tools must not fill the memory, nor the time, of everybody."""
    turn = Turn(STREAM)
    turn.receive(ev.Begin(0.0))
    for index in range(MAX_CALLS):
        turn.receive(ev.ToolCallStarted(index, f"c{index}", "ask"))
    with pytest.raises(ProtocolViolation, match="more than"):
        turn.receive(ev.ToolCallStarted(MAX_CALLS, "one too many", "ask"))
