"""The one seam through which time, ids and randomness come in.

The turn's monotonic clock is Trio's own (`trio.current_time`), which a `MockClock` replaces. Everything
else that a run could not repeat is asked of a `World`.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from typing import Protocol

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


class World(Protocol):
    """What differs between two runs of the same program."""

    def now(self) -> float:
        """Wall time in seconds since the epoch."""

    def new_id(self, prefix: str) -> str:
        """A new id, never given before, such as `turn_8Jq…`."""

    def seed(self) -> int:
        """A seed for a turn's own random source."""


class RealWorld:
    """The operating system's clock and random numbers."""

    def now(self) -> float:
        return time.time()

    def new_id(self, prefix: str) -> str:
        return prefix + _digits(secrets.randbits(128))

    def seed(self) -> int:
        return secrets.randbits(32)


class SeededWorld:
    """A world whose ids and seeds all follow from one text, so that whoever knows it can repeat them.

    Args:
        text: what everything follows from; two worlds with the same one give the same ids.
        now: wall time in seconds since the epoch.
    """

    def __init__(self, text: str, now: Callable[[], float]) -> None:
        self.text = text
        self._now = now
        self._count = 0

    def now(self) -> float:
        return self._now()

    def new_id(self, prefix: str) -> str:
        self._count += 1
        return prefix + _digits(self._number(f"id {self._count}") >> 128)

    def seed(self) -> int:
        return self._number("seed") >> 224

    def _number(self, what: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{self.text}/{what}".encode()).digest())


class CountingWorld:
    """A world that repeats itself: ids are numbered, and wall time is given by the caller's clock.

    Args:
        start: wall time of the first moment, in seconds since the epoch.
        clock: seconds passed since then; a Trio program passes `trio.current_time`.
        seed: the seed that every turn gets.
    """

    def __init__(
        self, *, start: float = 1_700_000_000.0, clock: Callable[[], float] | None = None, seed: int = 0
    ) -> None:
        self._start = start
        self._clock = clock
        self._seed = seed
        self._count = 0

    def now(self) -> float:
        return self._start + (0.0 if self._clock is None else self._clock())

    def new_id(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count:06d}"

    def seed(self) -> int:
        return self._seed


def _digits(number: int) -> str:
    """128 bits as 22 letters and digits."""
    digits = []
    while number:
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(digits).rjust(22, "0")
