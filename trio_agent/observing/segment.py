"""The times of one answer, read from its turn's row.

A turn that was parked and goes on has several answers, one after another. What is observed of it when it
ends is the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from trio_agent.statemachine.table import State
from trio_agent.store.contract import StateAt, TurnRow

RESUMED: Final = "resumed"
_BEGUN: Final = frozenset({"content", "window"})


class Segment(Struct, frozen=True):
    """One answer. Times are seconds since the epoch.

    `states` begin with the turn's first one, or with `resumed`. `content_at` is when the first content came,
    `None` where there was none.
    """

    began_at: float
    ended_at: float
    states: Sequence[StateAt]
    content_at: float | None

    @property
    def duration(self) -> float:
        """Seconds from the admission to the end. A clock that was set back makes it 0, never negative."""
        return max(0.0, self.ended_at - self.began_at)

    @property
    def time_to_content(self) -> float | None:
        """Seconds from the admission to the first content."""
        return None if self.content_at is None else max(0.0, self.content_at - self.began_at)


def last_segment(row: TurnRow) -> Segment:
    """The answer that has just ended, of a turn that ended, parked or was rejected."""
    states = row.states
    first = next((index for index in reversed(range(len(states))) if states[index].state == RESUMED), None)
    if first is not None:
        states = states[first:]
    began_at = row.created_at if first is None else states[0].at
    ended_at = row.ended_at if row.ended_at is not None else states[-1].at if states else began_at
    content_at = next((each.at for each in states if each.state == State.STREAMING.value), None)
    return Segment(began_at, ended_at, states, content_at)


def was_streamed(row: TurnRow) -> bool:
    """Whether the client was sent the answer as it came: it was committed before its end."""
    return row.committed_by in _BEGUN


__all__ = ["RESUMED", "Segment", "last_segment", "was_streamed"]
