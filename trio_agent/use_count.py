"""Counting who uses something, so that it is let go of after the last of them."""

from __future__ import annotations

from types import TracebackType

import trio


class UseCount:
    """How many use a thing now. A `with` block is one use, from its beginning to its end."""

    # Not a generator: it would weigh 0.3 kB for each block, and every open stream stands in several.
    __slots__ = ("_count", "_last_left")

    def __init__(self) -> None:
        self._count = 0
        self._last_left = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return self._count

    def begin(self) -> None:
        """One more uses it, until `end`."""
        self._count += 1

    def end(self) -> None:
        """One less uses it. Once for each `begin`."""
        self._count -= 1
        if not self._count:
            self._last_left.unpark_all()

    def __enter__(self) -> None:
        self.begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    async def over(self) -> None:
        """Wait until nobody uses it."""
        while self._count:
            await self._last_left.park()


__all__ = ["UseCount"]
