"""Any provider, any client, any order of tasks: what every response and every record must be like."""

from __future__ import annotations

from typing import Any

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rig import Collector, make_agent, nothing_left, request, respond, store_of, tool
from support.scripted import HANG, Scripted, ending, text

from trio_agent.providers.contract import CallLimits, UpstreamError
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import Usage

TERMINAL = (fx.Finish, fx.SendError, fx.Reject)
CONTENT = (fx.SendText, fx.SendRefusal, fx.SendReasoning, fx.SendToolCall, fx.SendToolArguments)

EVENTS = st.one_of(
    st.sampled_from("abc").map(ev.TextDelta),
    st.just(ev.RefusalDelta("no")),
    st.just(ev.ReasoningDelta("hm")),
    st.just(ev.ReasoningSigned("sig")),
    st.just(ev.ReasoningEnded()),
    st.just(ev.RedactedReasoning("x")),
    st.builds(
        ev.ToolCallStarted,
        st.integers(0, 2),
        st.sampled_from(["c1", "c2", "c3"]),
        st.sampled_from(["read_file", "quick", "other"]),
    ),
    st.builds(ev.ToolCallDelta, st.integers(0, 2), st.just("{}")),
    st.builds(ev.UsageReported, st.builds(Usage, st.integers(0, 99), st.integers(0, 99))),
)
SILENCES = st.sampled_from([0.0, 1.0, 4.0, 20.0])
FAILURES = st.sampled_from(["refused", "truncated", "unavailable", "rejected", "malformed"]).map(
    lambda kind: UpstreamError(kind, "failed")  # type: ignore[arg-type]
)
STEPS: st.SearchStrategy[Any] = st.lists(EVENTS, max_size=4) | SILENCES
ENDINGS: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(["stop", "length", "tool_calls"]).map(lambda reason: ending(reason)),  # type: ignore[arg-type]
    FAILURES,
    st.just(HANG),
    st.just(ValueError("junk")),
    st.just([]),
)
SCRIPTS = st.builds(lambda steps, end: [*steps, end], st.lists(STEPS, max_size=5), ENDINGS)


async def quick() -> str:
    """Takes a moment."""
    await trio.sleep(0.5)
    return "done"


async def one_turn(
    scripts: list[list[Any]], *, stream: bool, drain: bool, leaves: float | None, reads: bool
) -> None:
    limits = CallLimits(
        first_byte_timeout=15, idle_timeout=10, on_disconnect="drain" if drain else "cancel", drain_timeout=5
    )
    lab = Scripted(*scripts, limits=limits)
    agent = make_agent(lab, tools=[quick], server={"turn_timeout": 60}, agent={"max_model_calls": 4})
    sink = Collector(held=None if reads else trio.Event())
    with nothing_left(lab), trio.move_on_after(leaves if leaves is not None else 1000) as scope:
        await respond(agent, request(stream=stream, tools=(tool(),)), sink)
    check_response(sink, stream=stream, left=scope.cancelled_caught, reads=reads)
    store = store_of(agent)
    row = store.only
    assert row.outcome in ("completed", "failed", "cancelled", "parked")
    assert store.endings[row.id] == (0 if row.outcome == "parked" else 1)
    calls = store.model_calls
    assert len(calls) == len(lab.calls)
    assert sum(call.usage.total_tokens for call in calls) == row.usage.total_tokens
    if sink.of(fx.Finish):
        assert row.outcome in ("completed", "parked")
    if not scope.cancelled_caught and reads:
        assert bool(sink.of(fx.Finish)) == (row.outcome in ("completed", "parked"))


def check_response(sink: Collector, *, stream: bool, left: bool, reads: bool) -> None:
    outputs = sink.outputs
    terminal = [each for each in outputs if isinstance(each, TERMINAL)]
    assert len(terminal) == (1 if reads and not left else len(terminal[:1]))
    if terminal:
        assert outputs[-1] is terminal[0]
    for once in (fx.Commit, fx.SendRole):
        assert len(sink.of(once)) <= 1
    if sink.of(fx.Reject):
        assert not sink.of(fx.Commit)
        assert not (stream and any(isinstance(each, CONTENT) for each in outputs))
    if stream and any(isinstance(each, CONTENT) for each in outputs):
        kinds = [type(each) for each in outputs]
        first = next(index for index, each in enumerate(outputs) if isinstance(each, CONTENT))
        assert kinds.index(fx.Commit) < kinds.index(fx.SendRole) < first
    if sink.of(fx.Finish):
        assert sink.of(fx.Commit)
    started = [call.index for call in sink.of(fx.SendToolCall)]
    assert started == list(range(len(started)))


@settings(max_examples=150, deadline=None)
@given(
    scripts=st.lists(SCRIPTS, min_size=1, max_size=3),
    stream=st.booleans(),
    drain=st.booleans(),
    leaves=st.none() | st.sampled_from([0.0, 0.5, 3.0, 7.0, 30.0]),
    reads=st.sampled_from([True, True, True, False]),
    order=st.random_module(),
)
def test_every_turn_keeps_the_invariants(
    scripts: list[list[Any]], stream: bool, drain: bool, leaves: float | None, reads: bool, order: object
) -> None:
    """One terminal output, the last; role first, once; one outcome; every call counted; nothing left."""

    async def main() -> None:
        await one_turn(scripts, stream=stream, drain=drain, leaves=leaves, reads=reads)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(
        st.lists(st.sampled_from(["a", "bc", "é", "\n"]), min_size=1, max_size=4), min_size=1, max_size=8
    )
)
def test_nothing_is_lost_doubled_or_reordered(words: list[list[str]]) -> None:
    """The client has the upstream's words, one write for each batch, in order."""

    async def main() -> None:
        sink = await respond(make_agent(Scripted([*(text(*batch) for batch in words), ending()])))
        assert sink.text == "".join("".join(batch) for batch in words)
        assert len(sink.writes) == len(words) + 1

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
