"""A client that leaves: at whatever moment, nothing is left and one outcome is written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rig import (
    Collector,
    living_tasks,
    make_agent,
    no_bugs,
    nothing_left,
    request,
    respond,
    result,
    said,
    store_of,
    tool,
    user,
)
from support.scripted import HANG, Script, Scripted, answer, calling, ending, text

from trio_agent.agent import Agent
from trio_agent.providers.contract import CallLimits, UpstreamError
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.conversation import ToolCall


async def leave_at(seconds: float, turn: Callable[[], Awaitable[Any]]) -> None:
    with trio.move_on_at(seconds):
        await turn()


async def slow_tool() -> str:
    """Takes a while."""
    await trio.sleep(10)
    return "done"


# What the upstream does, when the client leaves, and the state it leaves the turn in (streamed, whole).
PHASES: dict[str, tuple[list[Script], float, tuple[str, str]]] = {
    "before the first event": ([[HANG]], 1.0, ("preflight", "preflight")),
    "after the window": ([[HANG]], 6.0, ("role_chunk", "preflight")),
    "in back-off": (
        [[UpstreamError("rate_limited", "wait", status=429, retry_after=4)]],
        2.0,
        ("preflight", "preflight"),
    ),
    "streaming": ([[text("Hel"), HANG]], 1.0, ("streaming", "streaming")),
    "in a server tool": ([calling(("c1", "slow_tool")), answer("no")], 3.0, ("preflight", "preflight")),
    "in a later model call": ([calling(("c1", "slow_tool")), [HANG]], 12.0, ("role_chunk", "preflight")),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("phase", PHASES)
async def test_a_client_that_leaves_ends_the_turn(
    autojump_clock: trio.abc.Clock, phase: str, stream: bool
) -> None:
    """In each phase, streamed or not: the upstream is closed at once and the row says who left."""
    scripts, at, states = PHASES[phase]
    lab = Scripted(*scripts)
    agent = make_agent(lab, tools=[slow_tool])
    sink = Collector()
    with nothing_left(lab):
        await leave_at(at, lambda: respond(agent, request(stream=stream), sink))
    assert trio.current_time() == at
    row = store_of(agent).only
    assert (row.outcome, row.reason, row.state) == ("cancelled", "client_disconnected", states[not stream])
    assert [each.state for each in row.states][-1] == "error"
    assert store_of(agent).endings[row.id] == 1
    assert not sink.of(fx.Finish)
    assert not sink.of(fx.SendError)
    assert agent.active_turns == 0


async def test_a_client_that_leaves_while_a_write_blocks(autojump_clock: trio.abc.Clock) -> None:
    """A write that nobody reads does not keep the upstream open."""
    lab = Scripted([text("Hel"), HANG])
    agent = make_agent(lab)
    with nothing_left(lab):
        await leave_at(1.0, lambda: respond(agent, request(), Collector(held=trio.Event())))
    assert (store_of(agent).only.outcome, store_of(agent).only.reason) == ("cancelled", "client_disconnected")


@pytest.mark.parametrize("write", ["open_turn", "close_turn", "park_turn"])
async def test_a_client_that_leaves_while_the_store_writes(
    autojump_clock: trio.abc.Clock, write: str
) -> None:
    """A write is done wholly: the row is closed, or the turn is parked, or it was complete before."""
    scripts = [calling(("c1", "read_file"))] if write == "park_turn" else [answer("Hello")]
    lab = Scripted(*scripts)
    agent = make_agent(lab)
    store_of(agent).delay = 2.0
    # The clock stands at 2 when the turn is open, so every second write is under way at 3.
    at = 1.0 if write == "open_turn" else 3.0
    with nothing_left(lab):
        admitted = await agent.admit(request(tools=(tool(),)))
        begun = trio.current_time()
        sink = Collector()
        await leave_at(begun + at, lambda: agent.run(admitted, sink))
    assert not sink.of(fx.Finish)
    row = store_of(agent).only
    expected = {
        "open_turn": ("cancelled", "client_disconnected"),
        "close_turn": ("completed", "stop"),
        "park_turn": ("parked", "tool_calls"),
    }[write]
    assert (row.outcome, row.reason) == expected
    if write == "open_turn":
        assert lab.calls == [], "the client had left before the upstream was called"
        assert store_of(agent).model_calls == []


async def test_a_reader_that_is_gone_is_a_client_that_left(autojump_clock: trio.abc.Clock) -> None:
    """`SinkClosedError` from a write ends the turn like a cancellation, without raising."""
    lab = Scripted([text("a"), text("b"), text("c"), HANG])
    agent = make_agent(lab)
    with nothing_left(lab):
        await respond(agent, request(), Collector(gone_after=2))
    row = store_of(agent).only
    assert (row.outcome, row.reason) == ("cancelled", "client_disconnected")
    assert row.usage_source == "unknown"


async def test_a_reader_that_is_gone_is_noticed_by_a_keepalive(autojump_clock: trio.abc.Clock) -> None:
    """In silence the keepalive finds out, and the upstream is closed then."""
    lab = Scripted([text("a"), HANG])
    agent = make_agent(lab)
    with nothing_left(lab):
        await respond(agent, request(), Collector(gone_after=1))
    assert trio.current_time() == 3.0
    assert store_of(agent).only.reason == "client_disconnected"


@pytest.mark.parametrize("raised", [RuntimeError("rude"), UpstreamError("truncated", "cut")])
async def test_a_provider_that_raises_when_it_is_cancelled_hides_nothing(
    autojump_clock: trio.abc.Clock, raised: Exception
) -> None:
    """A plug-in that turns a cancellation into its own error does not become the turn's reason."""

    async def rude(_call: object) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise raised

    lab = Scripted([text("a"), rude])
    agent = make_agent(lab)
    with nothing_left(lab):
        await leave_at(1.0, lambda: respond(agent))
    assert (store_of(agent).only.outcome, store_of(agent).only.reason) == ("cancelled", "client_disconnected")


async def test_a_provider_with_a_nursery_that_fails_while_it_is_cancelled(
    autojump_clock: trio.abc.Clock,
) -> None:
    """A group of a cancellation and a failure is a cancellation to the turn."""

    async def fails_late() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("late")

    async def with_nursery(_call: object) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_late)
            nursery.start_soon(trio.sleep_forever)

    lab = Scripted([text("a"), with_nursery])
    agent = make_agent(lab)
    with nothing_left(lab):
        await leave_at(1.0, lambda: respond(agent))
    assert (store_of(agent).only.outcome, store_of(agent).only.reason) == ("cancelled", "client_disconnected")


# --- at any moment -------------------------------------------------------------------------------------


class CancelAfter(trio.abc.Instrument):
    """Cancels a scope before the k-th step that any task takes from now on."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self._scope = scope
        self._steps = steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps -= 1
        if self._steps == 0:
            self._scope.cancel()


async def quick_tool() -> str:
    """Takes a moment."""
    await trio.sleep(0.1)
    return "done"


async def broken_tool() -> str:
    """Fails."""
    await trio.sleep(0.05)
    raise ValueError("broken")


def long_way(on_disconnect: str) -> tuple[Scripted, Agent]:
    """A turn through every phase: a retry, two server tools, text, a park; then its second response."""
    lab = Scripted(
        [UpstreamError("refused", "no")],
        [*calling(("s1", "quick_tool"), ("s2", "broken_tool"))],
        [0.1, text("Let me look"), 0.1, *calling(("h1", "read_file"))],
        [0.1, text("It says 42"), 4.0, ending()],
        limits=CallLimits(on_disconnect=on_disconnect),  # type: ignore[arg-type]
    )
    agent = make_agent(lab, tools=[quick_tool, broken_tool])
    store_of(agent).delay = 0.01
    return lab, agent


async def walk(agent: Agent) -> None:
    asked = request(tools=(tool(),))
    await respond(agent, asked)
    answer_of_client = said("Let me look", ToolCall("h1", "read_file", "{}"))
    await respond(agent, request(user(), answer_of_client, result("h1"), tools=(tool(),)))


async def cancelled_at(step: int, on_disconnect: str) -> bool:
    """Walk the long way and cancel before that step; checks what is left. False when it was over before."""
    lab, agent = long_way(on_disconnect)
    before = living_tasks()
    with no_bugs(), trio.CancelScope() as scope:
        instrument = CancelAfter(scope, step)
        trio.lowlevel.add_instrument(instrument)
        try:
            await walk(agent)
        finally:
            trio.lowlevel.remove_instrument(instrument)
    store = store_of(agent)
    assert living_tasks() == before
    assert not lab.open_calls
    assert agent.active_turns == 0
    assert all(count == 1 for count in store.endings.values())
    for row in store.turns.values():
        assert row.outcome in ("completed", "cancelled", "parked"), row
        if row.outcome == "cancelled":
            assert row.reason == "client_disconnected"
        assert (row.outcome == "parked") == (row.id in store.parks)
        recorded = store.calls.get(row.id, [])
        assert sum(call.usage.total_tokens for call in recorded) == row.usage.total_tokens
    assert len(store.model_calls) == len(lab.calls), "each call that was made has a row, and no other"
    return scope.cancelled_caught


def test_the_long_way_can_be_walked_to_its_end() -> None:
    """Without a cancellation the turn of the next test parks, resumes and completes."""

    async def main() -> int:
        lab, agent = long_way("cancel")
        await walk(agent)
        (row,) = store_of(agent).turns.values()
        assert (row.outcome, len(lab.calls)) == ("completed", 4)
        return 0

    assert trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0)) == 0


@pytest.mark.parametrize("on_disconnect", ["cancel", "drain"])
@settings(max_examples=20, deadline=None)
@given(order=st.random_module())
def test_a_cancellation_at_every_step_leaves_nothing(on_disconnect: str, order: object) -> None:
    """Whichever step of whichever task it hits, and in whatever order tasks run: no task, no call, one
    outcome, every call accounted for."""
    step = 1
    while trio.run(cancelled_at, step, on_disconnect, clock=trio.testing.MockClock(autojump_threshold=0)):
        step += 1
    assert step > 25


async def embedded_cancelled_at(step: int) -> bool:
    """An embedded turn with host tools of both kinds, cancelled before that step; checks what is left."""
    running: list[str] = []

    async def read_file() -> str:
        """Read a file."""
        running.append("read_file")
        try:
            await trio.sleep(1)
        finally:
            running.remove("read_file")
        return "42"

    calls = calling(("h1", "read_file"), ("h2", "read_file"), ("s1", "quick_tool"))
    lab = Scripted([text("Let me look"), *calls], [0.1, *answer("It says 42")])
    agent = make_agent(lab, tools=[quick_tool])
    store_of(agent).delay = 0.01
    before = living_tasks()
    with no_bugs(), trio.CancelScope() as scope:
        instrument = CancelAfter(scope, step)
        trio.lowlevel.add_instrument(instrument)
        try:
            async with agent.turn("Hi", model="lab-1", host_tools={"read_file": read_file}) as turn:
                async for _event in turn:
                    pass
        finally:
            trio.lowlevel.remove_instrument(instrument)
    assert living_tasks() == before
    assert not lab.open_calls
    assert running == []
    for row in store_of(agent).turns.values():
        assert (row.outcome, row.reason) in (("completed", "stop"), ("cancelled", "client_disconnected"))
        assert store_of(agent).endings[row.id] == 1
    assert len(store_of(agent).model_calls) == len(lab.calls)
    return scope.cancel_called


@settings(max_examples=10, deadline=None)
@given(order=st.random_module())
def test_an_embedded_turn_cancelled_at_every_step_leaves_nothing(order: object) -> None:
    """The same for a turn that waits alive for its host's tools."""
    step = 1
    while trio.run(embedded_cancelled_at, step, clock=trio.testing.MockClock(autojump_threshold=0)):
        step += 1
    assert step > 25
