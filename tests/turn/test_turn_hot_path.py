"""From a batch of the provider's to the client's write: no queue, no other task, one write."""

from __future__ import annotations

from collections.abc import Sequence

import trio
import trio.testing
from support.rig import Collector, make_agent, request, respond, user
from support.scripted import Call, Scripted, ending, text

from trio_agent.statemachine import effects as fx


class Steps(trio.abc.Instrument):
    """Counts the steps of every task."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


async def test_a_batch_is_written_in_the_wake_up_that_brought_it() -> None:
    """Every batch has reached the sink when the provider is asked for the next, without a task switch."""
    steps = Steps()
    seen: list[tuple[int, int]] = []
    sink = Collector()

    async def look(_call: Call) -> None:
        seen.append((len(sink.text), steps.count))

    script: list[object] = [text("1")]
    for number in range(2, 10):
        script += [look, text(str(number))]
    agent = make_agent(Scripted([*script, look, ending()]))
    trio.lowlevel.add_instrument(steps)
    try:
        await respond(agent, request(), sink)
    finally:
        trio.lowlevel.remove_instrument(steps)
    assert [length for length, _ in seen] == list(range(1, 10))
    assert len({count for _, count in seen}) == 1, "a chunk cost a pass through the scheduler"


async def test_what_was_read_together_is_written_together() -> None:
    """A batch of several events is one write, in order."""
    sink = await respond(make_agent(Scripted([[*text("a", "b"), *text("c")], [*text("d"), *ending()]])))
    assert [len([each for each in write if type(each) is fx.SendText]) for write in sink.writes] == [3, 1, 0]
    assert sink.text == "abcd"


async def test_a_slow_client_slows_the_upstream() -> None:
    """While a write blocks nothing more is read; the turn goes on where it was."""
    held = trio.Event()
    lab = Scripted([text("a"), text("b"), ending()])
    sink = Collector(held=held)
    agent = make_agent(lab)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(respond, agent, request(), sink)
        await trio.testing.wait_all_tasks_blocked()
        assert lab.calls[0].asked == 1
        held.set()
    assert sink.text == "ab"


async def test_many_turns_keep_their_own_order() -> None:
    """Turns that run at the same time share nothing: each answer is whole and in order."""

    async def pause(_call: Call) -> None:
        await trio.lowlevel.checkpoint()

    words = [str(number) for number in range(20)]
    script: list[object] = []
    for word in words:
        script += [text(word), pause]
    agent = make_agent(Scripted([*script, ending()]))
    sinks: Sequence[Collector] = [Collector() for _ in range(10)]
    async with trio.open_nursery() as nursery:
        for number, sink in enumerate(sinks):
            nursery.start_soon(respond, agent, request(user(f"turn {number}")), sink)
    assert {sink.text for sink in sinks} == {"".join(words)}
    assert agent.active_turns == 0
