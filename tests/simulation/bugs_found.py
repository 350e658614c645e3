"""Bugs that the simulator found in the product, made again. `findings/` has the scenario of each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio
from simulation.bugs_of_ends import invisible_outputs_put_keepalives_off
from simulation.kernel import replaced
from simulation.mutation import Mutation

from trio_agent.turn.driver import Driver


@contextmanager
def clean_up_and_stop_work_on_the_same_effects() -> Iterator[None]:
    """Both took the outcome from the turn's queue, and both wrote it."""
    with replaced((Driver, "_settle", _settle_without_the_lock)):
        yield


async def _settle_without_the_lock(driver: Any) -> None:
    with trio.move_on_after(12, shield=True):
        if not driver.over:
            driver._due.extend(driver.effects_of(driver._last_event()))
        await driver._performer.record_rest(driver._due)


@contextmanager
def a_second_signal_leaves_drains_alone() -> Iterator[None]:
    """A call that is drained is shielded from the cancellation that ends the server."""

    def say_why(driver: Any, reason: str) -> None:
        driver._ending = reason

    with replaced((Driver, "end_as", say_why)):
        yield


FINDINGS: dict[str, tuple[int, Mutation]] = {
    "a_drain_outlives_a_second_signal": (2, a_second_signal_leaves_drains_alone),
    "a_keepalive_is_put_off": (3, invisible_outputs_put_keepalives_off),
    "an_outcome_is_closed_twice": (1, clean_up_and_stop_work_on_the_same_effects),
}
"""Scenarios in `findings/`, with the invariant that the bug contradicts, and the bug."""
