"""Timers that the player fires."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf

import trio

from trio_agent.statemachine.events import Timer
from trio_agent.turn.timers import Timers


class PlayedTimers(Timers):
    """Deadlines that nothing watches: `run` waits until the player says which timer fires.

    Args:
        by_file: whether a timer is due because the file says so, and not because its time has come.
        end: when the turn must be over, where the file says that.
    """

    def __init__(self, *, by_file: bool, end: Callable[[], float] = lambda: inf) -> None:
        super().__init__()
        self._end = end
        self._by_file = by_file
        self._wake = trio.Event()
        self._firing: Timer | None = None
        self._faulty = False
        self.running = False
        self._live = False

    @property
    def next(self) -> tuple[float, Timer]:
        """When which timer is due. While one is being fired, no other one can be."""
        if not self.running or self._firing is not None or not self._deadlines:
            return inf, Timer.TURN
        timer = min(self._deadlines, key=self._due_at)
        return self._due_at(timer), timer

    def _due_at(self, timer: Timer) -> float:
        if timer is Timer.STALL and self.awaiting_since is None:
            return inf  # it is not being counted: whatever wait begins later has its full time
        return self._deadline(timer)

    def due_at(self, timer: Timer) -> float:
        """When a timer is due by the turn's clock; `inf` where it is not set, not counted or being fired."""
        if not self.running or self._firing is timer or timer not in self._deadlines:
            return inf
        return self._due_at(timer)

    @property
    def end(self) -> float:
        # The turn's own deadline may be an earlier one: how long the store took is not in a file.
        return self._end() if self._by_file else super().end

    def due(self, timer: Timer) -> bool:
        if self._by_file:
            return timer is self._firing and timer in self._deadlines
        return super().due(timer)

    def fire(self, timer: Timer) -> bool:
        """Let a timer fire; False where it is not set, or another one is being fired."""
        if not self.running or self._firing is not None or timer not in self._deadlines:
            return False
        self._firing = timer
        self._wake.set()
        return True

    def fail(self) -> bool:
        """Let the turn meet a bug of the server's; False where no turn runs."""
        if not self.running:
            return False
        self._faulty = True
        self._wake.set()
        return True

    def go_live(self) -> None:
        """From here on timers fire by themselves, when their time has come."""
        self._by_file = False
        self._live = True
        self._wake.set()

    async def run(self, fire: Callable[[Timer], Awaitable[None]]) -> None:
        self.running = True
        try:
            while not self._live:
                await self._wake.wait()
                self._wake = trio.Event()
                if self._faulty:
                    raise RuntimeError("the file says that the server fails here")
                if self._firing is not None:
                    await fire(self._firing)
                    self._firing = None
            await super().run(fire)
        finally:
            self.running = False
