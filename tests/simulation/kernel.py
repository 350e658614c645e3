"""One run, made deterministic: the order of tasks, the clock, ids and randomness come from the seed.

Trio shuffles the tasks that are ready in each turn of its loop. Its own switch for tests makes that order a
function of one random source, which is seeded here and put back afterwards. Worker threads are run in the
loop, by `disk.Threads`. Nothing else is shared between two runs in one process, so they cannot influence
each other.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import hypercorn.config
import trio
import trio.testing
from trio._core import _run as trio_run

from trio_agent.providers import openai_compatible

T = TypeVar("T")

EPOCH = 1_700_000_000.0


class SeededWorld:
    """`trio_agent.world.World` for one run: a counter for ids, one random source, the virtual clock."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"world {seed}")
        self._count = 0

    def now(self) -> float:
        return EPOCH + trio.current_time()

    def new_id(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count:05d}"

    def seed(self) -> int:
        return self._random.getrandbits(32)


class _SeededSecrets:
    """Stands for the module `secrets` where a provider makes ids of its own."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"secrets {seed}")

    def token_hex(self, size: int) -> str:
        return self._random.randbytes(size).hex()


@contextmanager
def replaced(*changes: tuple[Any, str, Any]) -> Iterator[None]:
    """Attributes replaced for the block: (object, name, new value)."""
    old = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    try:
        for owner, name, value in changes:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in reversed(old):
            setattr(owner, name, value)


def run(seed: int, main: Callable[[], Awaitable[T]]) -> T:
    """Run `main` on a virtual clock, with everything that could differ between two runs bound to `seed`.

    The cyclic garbage collector rests meanwhile, since it may run at any moment.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        with replaced(
            (trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
            (trio_run, "_r", random.Random(f"schedule {seed}")),
            (hypercorn.config, "time", lambda: EPOCH),
            (openai_compatible, "secrets", _SeededSecrets(seed)),
        ):
            return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        if collecting:
            gc.enable()
