"""Slots as requests hold them: waiting, being refused, leaving, and nothing ever lost."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from trio_agent.errors import AgentError
from trio_agent.queueing import NoSlotError, TurnSlots


async def hold(slots: TurnSlots, client: str, seconds: float, log: list[str] | None = None) -> None:
    with slots.slot(client) as slot:
        await slot.take()
        if log is not None:
            log.append(client)
        await trio.sleep(seconds)


async def test_a_slot_is_waited_for(autojump_clock: trio.abc.Clock) -> None:
    """It is had in the moment in which another one is free, and the wait is told."""
    slots = TurnSlots(1, 10, 5.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, slots, "a", 2.0)
        await trio.testing.wait_all_tasks_blocked()
        with slots.slot("b") as slot:
            assert await slot.take() == 2.0
            assert slots.figures.running == 1
    assert slots.figures.running == slots.figures.waiting == 0
    assert (slots.figures.let_in, slots.figures.waited, slots.figures.wait_seconds) == (2, 1, 2.0)
    assert slots.figures.waits[6] == 1, "it is counted with those up to 2.5 s"


async def test_a_wait_has_an_end(autojump_clock: trio.abc.Clock) -> None:
    """After the time that one may wait it is refused, and no trace of it stays in the queue."""
    slots = TurnSlots(1, 10, 3.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, slots, "a", 60.0)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(NoSlotError) as refused, slots.slot("b") as slot:
            await slot.take()
        assert (trio.current_time(), refused.value.waited, slots.waiting) == (3.0, 3.0, 0)
        assert slots.figures.refused == 1
        nursery.cancel_scope.cancel()


async def test_retry_after_follows_the_pace(autojump_clock: trio.abc.Clock) -> None:
    """A server that ends a turn every four seconds says four to the first in line, eight to the second."""
    slots = TurnSlots(1, 10, 5.0)
    assert slots.retry_after == 5.0
    for _ in range(8):
        await hold(slots, "a", 4.0)
    await trio.sleep(4.0)
    assert slots.retry_after == 4.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, slots, "a", 1.0)
        nursery.start_soon(hold, slots, "a", 1.0)
        await trio.testing.wait_all_tasks_blocked()
        assert slots.retry_after == 8.0
    await trio.sleep(10_000)
    assert slots.retry_after == 60.0


async def test_a_shutdown_refuses_who_waits(autojump_clock: trio.abc.Clock) -> None:
    """At once, and with its own code; who comes later does not wait either."""
    slots = TurnSlots(1, 10, 5.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, slots, "a", 60.0)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(close_after, slots, 1.0)
        for _ in range(2):
            with pytest.raises(AgentError) as refused, slots.slot("b") as slot:
                await slot.take()
            assert (refused.value.code, refused.value.status) == ("server_shutdown", 503)
        assert trio.current_time() == 1.0
        nursery.cancel_scope.cancel()
    assert slots.figures.running == 0


async def close_after(slots: TurnSlots, seconds: float) -> None:
    await trio.sleep(seconds)
    slots.close()


async def test_who_is_pushed_out_is_told_at_once(autojump_clock: trio.abc.Clock) -> None:
    """The newest of a flood makes room for another client, without waiting for its time to be up."""
    slots = TurnSlots(1, 2, 5.0)
    refused: list[float] = []

    async def one_of_many() -> None:
        try:
            await hold(slots, "flood", 1.0)
        except NoSlotError as error:
            refused.append(error.waited)

    log: list[str] = []
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(one_of_many)
        await trio.sleep(0.5)
        nursery.start_soon(hold, slots, "other", 1.0, log)
        await trio.sleep(0.25)
        assert refused == [0.5]
    assert log == ["other"]


async def test_a_slot_goes_with_its_turn(autojump_clock: trio.abc.Clock) -> None:
    """Handed over to a turn that runs on, it is not freed by the request that took it."""
    slots = TurnSlots(1, 0, 0.0)
    with slots.slot("a") as slot:
        await slot.take()
        heir = slot.heir()
        heir.take_over(slot)
    assert slots.figures.running == 1
    with heir:
        pass
    assert slots.figures.running == 0


async def test_more_slots_let_waiters_in(autojump_clock: trio.abc.Clock) -> None:
    """New bounds count at once; fewer slots end no turn."""
    slots = TurnSlots(1, 10, 5.0)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(hold, slots, "a", 3.0)
        await trio.sleep(1.0)
        slots.resize(3, 0, 5.0)
        await trio.testing.wait_all_tasks_blocked()
        assert (slots.figures.running, slots.waiting) == (3, 0)
        slots.resize(1, 0, 5.0)
        assert slots.figures.running == 3
        with pytest.raises(NoSlotError):
            await hold(slots, "a", 1.0)


@pytest.mark.parametrize("seed", range(8))
async def test_no_way_out_keeps_a_slot(autojump_clock: trio.abc.Clock, seed: int) -> None:
    """Hundreds of requests that end, fail, time out, are pushed out and leave in every phase, at once too."""
    dice = random.Random(seed)
    slots = TurnSlots(3, 5, 2.0)
    most = 0

    async def request(at: float, patience: float, length: float) -> None:
        nonlocal most
        await trio.sleep(at)
        with trio.move_on_after(patience):
            try:
                with slots.slot(dice.choice("abc")) as slot:
                    await slot.take()
                    most = max(most, slots.figures.running)
                    await trio.sleep(length)
                    if dice.random() < 0.3:
                        raise OSError
            except (NoSlotError, OSError):
                pass

    async with trio.open_nursery() as nursery:
        for _ in range(300):
            # Whole numbers: departures and free slots fall on the same moments.
            times = dice.randrange(20), dice.randrange(5), dice.randrange(4)
            nursery.start_soon(request, *times)
    figures = slots.figures
    assert (figures.running, figures.waiting, slots._parked) == (0, 0, {})
    assert most == 3
    assert figures.let_in > 20
    assert figures.refused > 20
