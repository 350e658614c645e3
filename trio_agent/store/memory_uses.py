"""When rows in memory were used last."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from trio_agent.store.limits import TOUCH_S


class Uses:
    """The time of last use by a row's key, in the order in which the rows came.

    Args:
        now: wall time in seconds since the epoch.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._at: dict[str, float] = {}
        self._last = 0.0

    def now(self, key: str) -> None:
        self._at[key] = self._time()

    def _time(self) -> float:
        """The time that it is now, and never earlier than a use before, though the clock may go back."""
        self._last = max(self._last, self._now())
        return self._last

    def touch(self, key: str) -> None:
        """As a database does it: for a row that is there, and not every time."""
        if key in self._at and self._at[key] <= self._time() - TOUCH_S:
            self._at[key] = self._time()

    def forget(self, key: str) -> None:
        self._at.pop(key, None)

    def before(self, at: float) -> list[str]:
        return [key for key, used in self._at.items() if used < at]

    def oldest(self) -> Iterator[str]:
        """What was unused longest first; of one time, what came first."""
        return iter(sorted(self._at, key=lambda key: self._at[key]))

    def __len__(self) -> int:
        return len(self._at)
