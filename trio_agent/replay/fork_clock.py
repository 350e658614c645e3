"""Time in a fork: it stands still while the file is played, and goes on for real from there."""

from __future__ import annotations

import time

from trio_agent.replay.clock import StandingClock


class ForkClock(StandingClock):
    """A clock for `trio.run` that begins as a real one, and can be stood still and set going again."""

    def __init__(self) -> None:
        super().__init__()
        self._zero: float | None = None

    def start_clock(self) -> None:
        self.go_on()

    def stand(self) -> None:
        """Stand still at this moment; from now on somebody sets it."""
        self.now, self._zero = self.current_time(), None

    def go_on(self) -> None:
        """Go on, in real time, from the moment that it shows."""
        if self._zero is None:
            self._zero = time.perf_counter() - self.now

    def current_time(self) -> float:
        return self.now if self._zero is None else time.perf_counter() - self._zero

    def deadline_to_sleep_time(self, deadline: float) -> float:
        if self._zero is None:
            return super().deadline_to_sleep_time(deadline)
        return deadline - self.current_time()
