"""When a recorded answer was whole."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from trio_agent.recording.context import TracedContext
from trio_agent.recording.trace import Trace
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import Usage
from trio_agent.statemachine.table import NEW, STREAMING
from trio_agent.world import CountingWorld


async def test_the_time_of_an_end_is_that_of_the_event_and_not_of_the_disk(autojump_clock: MockClock) -> None:
    """An outcome is written between the two, which takes no time in a replay: its bytes must be the same."""
    world = CountingWorld(start=1000.0, clock=trio.current_time)
    await trio.sleep(5)
    context = TracedContext(world, Trace(trio.current_time), "seed")
    context.received(NEW, ev.Begin(trio.current_time()), [])
    await trio.sleep(3)
    finish = fx.Finish("stop", Usage(), None, "unknown")
    context.received(STREAMING, ev.CallFinished("stop"), [finish])
    await trio.sleep(2)
    assert context.ended_at() == 1008.0
