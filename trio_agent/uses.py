"""Counting who uses something, so that it is let go of after the last of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Uses:
    """How many use a thing now."""

    def __init__(self) -> None:
        self._count = 0
        self._last_left = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return self._count

    def begin(self) -> None:
        """One more uses it, until `end`."""
        self._count += 1

    def end(self) -> None:
        self._count -= 1
        if not self._count:
            self._last_left.unpark_all()

    @contextmanager
    def held(self) -> Iterator[None]:
        """It is in use while the block runs."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    async def over(self) -> None:
        """Wait until nobody uses it."""
        while self._count:
            await self._last_left.park()


__all__ = ["Uses"]
