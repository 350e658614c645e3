"""The timers of one turn, in one task.

Two of them are never touched on the hot path. `KEEPALIVE` counts from the last output and `STALL` from the
moment the driver began to wait for the upstream, so the driver only notes these times, and the timer task
looks at them when an earlier estimate has passed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf

import trio

from trio_agent.statemachine.events import Timer

# The timers whose firing ends the turn, whatever it is doing.
ENDING = frozenset({Timer.TURN, Timer.HOST_TOOL})


class Timers:
    """Deadlines on Trio's clock, which `now` reads: in less time than `trio.current_time`, and twice a chunk.

    `last_output` is when something last went out to the client. `awaiting_since` is since when the driver
    has been waiting for the upstream, `None` while it is busy with what came.
    """

    __slots__ = ("_deadlines", "_limits", "_scope", "awaiting_since", "last_output", "now")

    def __init__(self) -> None:
        self._deadlines: dict[Timer, float] = {}
        self._limits: dict[Timer, float] = {}
        self._scope: trio.CancelScope | None = None
        self.now = trio.lowlevel.current_clock().current_time
        self.last_output = self.now()
        self.awaiting_since: float | None = None

    def set(self, timer: Timer, seconds: float) -> None:
        self._limits[timer] = seconds
        self._deadlines[timer] = trio.current_time() + seconds
        if self._scope is not None and self._deadlines[timer] < self._scope.deadline:
            self._scope.deadline = self._deadlines[timer]

    def clear(self, timer: Timer) -> None:
        self._deadlines.pop(timer, None)

    @property
    def end(self) -> float:
        """When the turn must be over, at the latest."""
        return min((at for timer, at in self._deadlines.items() if timer in ENDING), default=inf)

    def due(self, timer: Timer) -> bool:
        """Whether the timer is set and its time has come."""
        return timer in self._deadlines and self._deadline(timer) <= trio.current_time()

    def _deadline(self, timer: Timer) -> float:
        deadline = self._deadlines[timer]
        if timer is Timer.KEEPALIVE:
            return max(deadline, self.last_output + self._limits[timer])
        if timer is Timer.STALL:
            if self.awaiting_since is None:
                # Whatever wait begins from now on cannot end sooner than this.
                return trio.current_time() + self._limits[timer]
            return max(deadline, self.awaiting_since + self._limits[timer])
        return deadline

    async def run(self, fire: Callable[[Timer], Awaitable[None]]) -> None:
        """Call `fire` for each timer whose time has come; it must clear or set that timer. Never returns."""
        while True:
            timer: Timer | None = min(self._deadlines, key=self._deadline, default=None)
            deadline = inf if timer is None else self._deadline(timer)
            if timer is not None and deadline <= trio.current_time():
                await fire(timer)
                continue
            with trio.CancelScope(deadline=deadline) as self._scope:
                await trio.sleep_forever()
            self._scope = None
