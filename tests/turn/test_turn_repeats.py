"""A response that goes on with a parked turn, under anything that can happen to it; then its repeat."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import event, given, settings
from hypothesis import strategies as st
from support.rig import (
    Collector,
    make_agent,
    nothing_left,
    request,
    respond,
    result,
    said,
    store_of,
    tool,
    user,
)
from support.scripted import Scripted, answer, calling, text
from test_turn_cancellation import CancelAfter
from test_turn_properties import SCRIPTS, check_response, quick

from trio_agent.providers.contract import CallLimits, UpstreamError
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.conversation import ToolCall

CONTINUED = (user(), said("", ToolCall("h1", "read_file", "{}")), result("h1"))


async def one_turn(
    scripts: list[list[Any]], *, stream: bool, drain: bool, leaves: float | None, reads: bool
) -> None:
    limits = CallLimits(
        first_byte_timeout=15, idle_timeout=10, on_disconnect="drain" if drain else "cancel", drain_timeout=5
    )
    lab = Scripted(calling(("h1", "read_file")), *scripts, limits=limits)
    agent = make_agent(lab, tools=[quick], server={"turn_timeout": 60}, agent={"max_model_calls": 5})
    store = store_of(agent)
    again = request(*CONTINUED, stream=stream, tools=(tool(),))
    with nothing_left(lab):
        await respond(agent, request(tools=(tool(),)))
        park = store.parks[store.only.id]
        sink = Collector(held=None if reads else trio.Event())
        with trio.move_on_after(leaves if leaves is not None else 1000) as scope:
            await respond(agent, again, sink)
        check_response(sink, stream=stream, left=scope.cancelled_caught, reads=reads)
        row = store.only
        made = len(lab.calls)
        assert len(store.model_calls) == made
        assert sum(call.usage.total_tokens for call in store.model_calls) == row.usage.total_tokens
        event(f"{row.outcome} {row.reason}")
        if row.outcome != "parked" or row.reason == "tool_calls":
            # Over, or parked anew: then it was committed, a limit was reached, or its client left at the end.
            if row.outcome == "failed" and row.committed_by is None:
                assert row.reason == "max_model_calls"
            if row.outcome == "cancelled" and row.committed_by is None:
                assert row.states[-2].state == "host_tool_wait"
            assert row.outcome == "parked" or row.id not in store.parks
            return
        assert not sink.of(fx.Commit)
        assert msgspec.structs.replace(store.parks[row.id], snapshot=park.snapshot) == park
        lab.scripts = [answer("done")]
        admitted = await agent.admit(again)
        assert admitted.turn_id == row.id
        sink = Collector()
        await agent.run(admitted, sink)
    row = store.only
    assert store.endings[row.id] == 1
    if sink.of(fx.Reject):
        assert sink.problem.code == "max_model_calls"
        return
    assert sink.text == "done"
    assert row.outcome == "completed"
    assert lab.calls[made].request.messages == lab.calls[1].request.messages
    numbers = [call.number for call in store.model_calls]
    assert numbers == sorted(numbers)
    assert numbers[-1] > numbers[-2]
    assert sum(call.usage.total_tokens for call in store.model_calls) == row.usage.total_tokens


@settings(max_examples=150, deadline=None)
@given(
    scripts=st.lists(SCRIPTS, min_size=1, max_size=3),
    stream=st.booleans(),
    drain=st.booleans(),
    leaves=st.none() | st.sampled_from([0.0, 0.5, 3.0, 7.0, 30.0]),
    reads=st.sampled_from([True, True, True, False]),
    order=st.random_module(),
)
def test_a_repeat_goes_on_wherever_nothing_was_seen(
    scripts: list[list[Any]], stream: bool, drain: bool, leaves: float | None, reads: bool, order: object
) -> None:
    """The park is put back, as it was, for every failure before the commit; the sums go on."""

    async def main() -> None:
        await one_turn(scripts, stream=stream, drain=drain, leaves=leaves, reads=reads)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def cancelled_at(step: int, stream: bool) -> bool:
    """Cancel a response that goes on before that step, and repeat it; False when it was over before."""
    lab = Scripted(
        calling(("h1", "read_file")),
        [UpstreamError("refused", "no")],
        calling(("s1", "quick")),
        [0.1, text("It says"), 0.1, *answer(" 42")],
    )
    agent = make_agent(lab, tools=[quick])
    store = store_of(agent)
    again = request(*CONTINUED, stream=stream, tools=(tool(),))
    await respond(agent, request(tools=(tool(),)))
    (turn_id,) = store.turns
    store.delay = 0.01
    with nothing_left(lab), trio.CancelScope() as scope:
        instrument = CancelAfter(scope, step)
        trio.lowlevel.add_instrument(instrument)
        try:
            await respond(agent, again)
        finally:
            trio.lowlevel.remove_instrument(instrument)
    row = store.only
    assert len(store.model_calls) == len(lab.calls)
    if row.outcome == "parked":
        assert row.committed_by is None or row.reason == "tool_calls"
        lab.scripts = [answer("done")]
        admitted = await agent.admit(again)
        assert admitted.turn_id == turn_id
        await agent.run(admitted, sink := Collector())
        assert sink.text == "done"
        assert store.only.outcome == "completed"
        assert len(store.model_calls) == len(lab.calls)
    else:
        assert row.committed_by is not None, "nothing was seen of it, and yet it cannot be repeated"
        assert (row.outcome == "completed") or stream
    assert store.endings == {turn_id: 1}
    return scope.cancelled_caught


@pytest.mark.parametrize("stream", [True, False])
@settings(max_examples=4, deadline=None)
@given(order=st.random_module())
def test_a_client_may_leave_at_any_step_and_come_back(stream: bool, order: object) -> None:
    """Whichever step of whichever task its leaving hits: what was not seen can be repeated."""
    step = 1
    while trio.run(cancelled_at, step, stream, clock=trio.testing.MockClock(autojump_threshold=0)):
        step += 1
    assert step > 15
