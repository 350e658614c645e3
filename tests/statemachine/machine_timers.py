"""The timers of a turn as its effects set them: how long they run, and which must be set when."""

from __future__ import annotations

from trio_agent.statemachine import Limits
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev

Timer = ev.Timer


class Timers:
    """`deadlines` has the timers that are set, on the turn's clock in seconds. `window_ends` is there too."""

    def __init__(self) -> None:
        self.deadlines: dict[Timer, float] = {}
        self.window_ends = 0.0
        self.stall = 0.0

    def begin_response(self, at: float, limits: Limits) -> None:
        self.deadlines = {}
        self.window_ends = at + limits.preflight

    def fired(self, event: ev.Event) -> None:
        for timer, kind in ev.TIMER_EVENTS.items():
            if isinstance(event, kind):
                self.deadlines.pop(timer, None)

    def saw(self, effect: fx.SetTimer | fx.ClearTimer, limits: Limits, now: float) -> None:
        """Note a timer; those that only the limits decide must have their length."""
        if isinstance(effect, fx.ClearTimer):
            self.deadlines.pop(effect.timer, None)  # the one that fired is cleared, too
            return
        seconds = effect.seconds
        match effect.timer:
            case Timer.PREFLIGHT:
                assert seconds == limits.preflight
            case Timer.TURN:
                assert seconds == limits.turn
            case Timer.KEEPALIVE:
                assert seconds == limits.keepalive
            case Timer.HOST_TOOL:
                assert seconds == limits.host_tool
            case Timer.RETRY:
                assert 0 <= seconds <= self.window_ends - now, "a retry after the window"
            case Timer.STALL:
                self.stall = seconds
        self.deadlines[effect.timer] = now + seconds

    def clear(self) -> None:
        self.deadlines = {}
