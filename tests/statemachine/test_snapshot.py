"""A turn as a value: stored, restored, and what the answers of a model are folded into."""

from __future__ import annotations

import math

import msgspec
import pytest
from machine_values import (
    ALIVE,
    BEGIN,
    HI,
    PRICE,
    QUESTION,
    STOP,
    STREAM,
    TOOLS,
    A,
    B,
    Renewed,
    call_tool,
    failed,
    make_spec,
    reached,
    result,
    tool_done,
)

from trio_agent.statemachine import Candidate, SnapshotError, Turn, TurnSpec
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import (
    Message,
    ProviderReasoning,
    RedactedThinking,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    Usage,
)

PARKED = [BEGIN, call_tool("ask", "h1"), TOOLS]


@pytest.mark.parametrize(
    ("snapshot", "message"),
    [
        (b"", "not a turn snapshot"),
        (b"not json", "not a turn snapshot"),
        (b"[]", "not a turn snapshot"),
        (b"{}", "not a turn snapshot"),
        (b'{"version": 1}', "not a turn snapshot"),
        (b"\xff\xfe", "not a turn snapshot"),
        (b'{"version": 2, "shape": "of a later program"}', "snapshot version 2, this program reads 1"),
    ],
)
def test_what_is_no_snapshot_is_refused(snapshot: bytes, message: str) -> None:
    """A damaged row, or one of another version, is told apart from a bug."""
    with pytest.raises(SnapshotError, match=message):
        Turn.restore(snapshot)


def test_a_snapshot_is_cut_off_from_the_turn() -> None:
    """Two turns restored from one snapshot share nothing that can change."""
    snapshot = reached(STREAM, BEGIN, HI).snapshot()
    one, other = Turn.restore(snapshot), Turn.restore(snapshot)
    one.receive(STOP)
    assert one.final
    assert other.snapshot() == snapshot


def test_a_turn_that_is_not_parked_keeps_its_specification() -> None:
    """Only a park goes on with what a later request asks for."""
    for turn in (reached(STREAM, BEGIN, HI), reached(ALIVE, *PARKED)):
        with pytest.raises(ValueError, match="only a parked turn"):
            Turn.restore(turn.snapshot(), STREAM)


def test_a_parked_turn_does_not_become_one_that_waits_alive() -> None:
    """Its response has ended; there is nothing to wait in."""
    with pytest.raises(ValueError, match="as one that is parked"):
        Turn.restore(reached(STREAM, *PARKED).snapshot(), ALIVE)


def test_a_parked_turn_is_served_by_the_new_candidates_from_the_first_on() -> None:
    """The router decided anew, so its first choice is tried first."""
    turn = reached(make_spec(A, B), BEGIN, failed("crashed"), *PARKED[1:])
    assert turn.candidate is turn.spec.candidates[1]
    assert Turn.restore(turn.snapshot()).candidate == B
    assert Turn.restore(turn.snapshot(), make_spec(B, A)).candidate == B
    assert Turn.restore(turn.snapshot(), make_spec(A)).candidate == A


BAD_SPECS: list[tuple[TurnSpec, str]] = [
    (msgspec.structs.replace(STREAM, candidates=()), "at least one candidate"),
    (make_spec(limits={"turn": math.inf}), "limits.turn"),
    (make_spec(limits={"keepalive": math.nan}), "limits.keepalive"),
    (make_spec(limits={"preflight": -1.0}), "limits.preflight"),
    (make_spec(limits={"host_tool": math.inf}), "limits.host_tool"),
    (
        make_spec(A, Candidate(provider="b", model="m", idle_timeout=math.inf)),
        r"candidates\[1\].idle_timeout",
    ),
    (make_spec(Candidate(provider="b", model="m", first_byte_timeout=-0.5)), r"candidates\[0\].first_byte"),
]


@pytest.mark.parametrize(("spec", "message"), BAD_SPECS, ids=[message for _, message in BAD_SPECS])
def test_a_turn_that_could_not_be_stored_is_not_begun(spec: TurnSpec, message: str) -> None:
    """JSON has no infinity: a turn with one would be lost when it is parked."""
    with pytest.raises(ValueError, match=message):
        Turn(spec)
    with pytest.raises(ValueError, match=message):
        Turn.restore(reached(STREAM, *PARKED).snapshot(), spec)


def test_an_answer_is_folded_in_the_order_in_which_it_was_given() -> None:
    """Every part is kept, signatures and encrypted reasoning to the byte, calls at their place."""
    turn = reached(
        STREAM,
        BEGIN,
        ev.ReasoningDelta("let me "),
        ev.ReasoningDelta("see"),
        ev.ReasoningSigned("sig=="),
        ev.RedactedReasoning("opaque"),
        ev.TextDelta("I "),
        ev.TextDelta("look"),
        ev.ToolCallStarted(5, "s1", "look", '{"thought": 1}'),
        ev.TextDelta(", and ask"),
        call_tool("ask", "h1", 2),
        ev.ToolCallDelta(5, '{"a":'),
        ev.ToolCallDelta(2, "{}"),
        ev.ToolCallDelta(5, "1}"),
        ev.RefusalDelta("not more"),
        ev.ReasoningDelta("done"),
        ev.ReasoningEnded(),
        ev.ReasoningDelta("really"),
        ev.ReasoningData('{"raw": true}'),
        ev.ReasoningSigned("bare"),
        TOOLS,
    )
    assert turn.said == (
        Message(
            "assistant",
            (
                Thinking("let me see", "sig=="),
                RedactedThinking("opaque"),
                Text("I look"),
                ToolCall("s1", "look", '{"a":1}', '{"thought": 1}'),
                Text(", and ask"),
                ToolCall("h1", "ask", "{}"),
                Refusal("not more"),
                Thinking("done"),
                Thinking("really"),
                ProviderReasoning('{"raw": true}'),
                Thinking("", "bare"),
            ),
            origin="a/m",
        ),
    )


def test_a_resumed_conversation_has_all_that_was_said() -> None:
    """The question, the calls, their results in the same order whoever ran them, and what came with them."""
    more = Message("user", (Text("and?"),))
    turn = reached(
        STREAM,
        BEGIN,
        call_tool("ask", "h1"),
        call_tool("look", "s1", 1),
        call_tool("tell", "h2", 2),
        TOOLS,
        tool_done("s1", is_error=True),
        Renewed(),
        ev.Resume((result("h2", "two"), result("h1", "one")), 0.0, (more,)),
        HI,
        STOP,
    )
    question, calls, results, added, answer = turn.conversation
    assert question == QUESTION
    assert [call.id for call in calls.tool_calls] == ["h1", "s1", "h2"]
    assert results == Message("tool", (result("h1", "one"), result("s1", is_error=True), result("h2", "two")))
    assert added == more
    assert answer == Message("assistant", (Text("Hi"),), origin="a/m")


def test_an_attempt_that_failed_leaves_nothing_in_the_conversation() -> None:
    """What a replaced candidate said unseen was never said."""
    turn = reached(
        make_spec(A, B),
        BEGIN,
        ev.RedactedReasoning("gone"),
        call_tool("look", "s1"),
        failed("malformed"),
        HI,
        STOP,
    )
    assert turn.said == (Message("assistant", (Text("Hi"),), origin="b/m"),)


def test_figures_survive_a_snapshot_to_the_digit() -> None:
    """Money is decimal in the store too."""
    tiny = msgspec.structs.replace(PRICE, input=PRICE.input / 1000)
    turn = reached(
        make_spec(msgspec.structs.replace(A, price=tiny)),
        BEGIN,
        call_tool("ask", "h1"),
        ev.UsageReported(Usage(input_tokens=3, output_tokens=7)),
        TOOLS,
    )
    again = Turn.restore(turn.snapshot())
    assert again.total.cost_usd == turn.total.cost_usd == 3 * tiny.input + 7 * tiny.output
    assert again.total == turn.total


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "failing",
    [
        [failed("unauthorized")],
        [failed("refused"), ev.TurnTimerFired(2.0)],
        [ev.RedactedReasoning("x"), ev.Cancel("client_disconnected", 2.0)],
        [call_tool("look", "s9"), TOOLS, ev.ServerFailed("internal_error", "", 2.0)],
        [call_tool("look", "s9"), TOOLS, tool_done("s9"), ev.ReasoningData("{}"), ev.Cancel("shutdown", 2.0)],
    ],
    ids=["failure", "back-off", "held reasoning", "running tool", "second call"],
)
def test_a_repeat_finds_the_turn_as_the_first_request_found_it(stream: bool, failing: list[ev.Event]) -> None:
    """However far the failed response came: nothing of it is left but the number of calls and the sums."""
    path = [BEGIN, call_tool("look", "s1"), call_tool("ask", "h1", 1), TOOLS, tool_done("s1", is_error=True)]
    spec, back = make_spec(A, stream=stream), ev.Resume((result("h1"),), 3.0)
    parked = reached(STREAM, *path)
    again = reached(STREAM, *path, Renewed(spec), back, *failing)
    assert (again.state, again.owed, again.said) == (parked.state, parked.owed, parked.said)
    memories = []
    for turn in (parked, again):
        resumed = Turn.restore(turn.snapshot(), spec)
        resumed.receive(back)
        memories.append(msgspec.json.decode(resumed.snapshot())["memory"])
    first, second = memories
    assert second.pop("call") > first.pop("call")
    assert second.pop("total")["calls"] >= first.pop("total")["calls"]
    assert first == second
