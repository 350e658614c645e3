"""Whether the timers of a recording fired when the turn's own deadlines say that they could have.

Where the file fires the timers, this is what notices that a deadline is another one now.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf
from typing import Final

from trio_agent.recording import format as lines
from trio_agent.recording.format import AnyEntry
from trio_agent.replay.timers import PlayedTimers
from trio_agent.statemachine.events import Timer
from trio_agent.turn.driver import BLOCKED_LIMIT_SECONDS

# How much sooner than due a timer may have fired, in seconds. Real ones fire no sooner; a replay takes in
# each line at its time, and so never sets a timer later than the recorded turn did.
EARLY_SECONDS: Final = 0.05
# How much later, in seconds, besides what the file shows of its machine's slowness.
LATE_SECONDS: Final = BLOCKED_LIMIT_SECONDS + 0.5
# The timers that nobody but the server can delay. Keepalive and stall count from when a write was taken, and
# a retry waits for one: how long a client took for a write is not in a file.
_ON_TIME: Final = (Timer.PREFLIGHT, Timer.TURN, Timer.HOST_TOOL)
_REMEDY: Final = (
    "If the deadline has changed, record the turn anew, or have the clock fire the timers "
    '(`"timers": "clock"` in the header) and replay it with --update.'
)


class Punctuality:
    """Holds a file's timers against those of its replay.

    Times are seconds since the first request.

    Args:
        entries: the whole file.
    """

    def __init__(self, entries: Sequence[AnyEntry]) -> None:
        self._late = LATE_SECONDS + _slowness(entries)
        self._free_since = 0.0
        self._told: set[tuple[Timer, float]] = set()

    def check(
        self, line: AnyEntry, now: float, timers: Sequence[PlayedTimers], begun: float
    ) -> Iterator[str]:
        """What cannot have been, just before a line is fed: one message for each.

        Args:
            timers: of the responses that run.
            begun: the moment of Trio's clock that is the file's zero.
        """
        if isinstance(line, lines.TimerFired):
            yield from self._early(Timer(line.timer), now, timers, begun)
        if isinstance(line, lines.Hold):
            self._free_since = inf
        elif isinstance(line, lines.Release):
            self._free_since = now
        for each in timers:
            for timer in _ON_TIME:
                due = each.due_at(timer) - begun
                if max(due, self._free_since) + self._late < now and (timer, due) not in self._told:
                    self._told.add((timer, due))
                    told = f"the timer `{timer.value}` was due at {due:g} s, and had not fired at {now:g} s"
                    yield f"{told}. {_REMEDY}"

    def _early(self, timer: Timer, now: float, timers: Sequence[PlayedTimers], begun: float) -> Iterator[str]:
        due = min((each.due_at(timer) for each in timers), default=inf) - begun
        if now + EARLY_SECONDS < due < inf:
            yield f"the timer `{timer.value}` fires at {now:g} s, and is not due before {due:g} s. {_REMEDY}"


def _slowness(entries: Sequence[AnyEntry]) -> float:
    """How long the recorded server took at most, in seconds, from a line to what it gave out next."""
    slowest = latest = 0.0
    for line in entries:
        if isinstance(line, lines.Output):
            slowest = max(slowest, line.t - latest)
        latest = max(latest, line.t)
    return slowest
