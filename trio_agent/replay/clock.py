"""Time in a replay: it stands still, but for the player's steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio
from trio.testing import MockClock

_LONG: Final = 1e9  # seconds; nothing sleeps that long, somebody moves the clock before


class StandingClock(trio.abc.Clock):
    """A clock for `trio.run` that shows the time it was set to."""

    def __init__(self) -> None:
        self.now = 0.0

    def start_clock(self) -> None:
        """Nothing has to be started."""

    def current_time(self) -> float:
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return 0.0 if deadline <= self.now else _LONG


@contextmanager
def standing_still() -> Iterator[None]:
    """Keep a `MockClock` from moving by itself in the block.

    Raises:
        RuntimeError: the running clock is one that nobody can set.
    """
    clock = trio.lowlevel.current_clock()
    if isinstance(clock, StandingClock):
        yield
    elif isinstance(clock, MockClock):
        before, rate = clock.autojump_threshold, clock.rate
        clock.autojump_threshold, clock.rate = math.inf, 0.0
        try:
            yield
        finally:
            clock.autojump_threshold, clock.rate = before, rate
    else:
        raise RuntimeError(
            "a replay needs a virtual clock: run it under trio.testing.MockClock, or call `replay`"
        )


def move_to(when: float) -> None:
    """Set the clock; what is due wakes when the caller next waits."""
    clock = trio.lowlevel.current_clock()
    if isinstance(clock, StandingClock):
        clock.now = when
    elif isinstance(clock, MockClock):
        clock.jump(when - clock.current_time())


def next_deadline() -> float:
    """When the next of Trio's own deadlines comes that is not due yet; `inf` where there is none."""
    seconds = trio.lowlevel.current_statistics().seconds_to_next_deadline
    now = trio.current_time()
    # A step that rounds to nothing would not bring the deadline any nearer.
    return max(now + seconds, math.nextafter(now, math.inf))
