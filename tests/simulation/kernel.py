"""One run, made deterministic: the order of tasks, the clock, ids and randomness come from the seed.

Trio shuffles the tasks that are ready in each turn of its loop. Its own switch for tests makes that order a
function of one random source, which is seeded here and put back afterwards. Worker threads are run in the
loop, by `disk.Threads`. Nothing else is shared between two runs in one process, so they cannot influence
each other.
"""

from __future__ import annotations

import gc
import random
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

import hypercorn.config
import trio
import trio.testing
from trio._core import _run as trio_run

from trio_agent.providers import openai_compatible

T = TypeVar("T")

EPOCH = 1_700_000_000.0

MOST_PASSES = 50_000
"""Passes through the scheduler in one run; one with six clients takes one or two thousand."""
MOST_SECONDS = 60.0
"""Real time of one run: what goes round without a pass through the scheduler is ended by it."""


class EndlessError(BaseException):
    """A run goes round and round. No `Exception`: the code under test might handle that."""


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


class _Counting(trio.abc.Instrument):
    """Ends a run that never comes to rest: the virtual clock stands still in it, so no deadline would."""

    def __init__(self) -> None:
        self._passes = 0

    def before_io_wait(self, timeout: float) -> None:
        del timeout
        self._passes += 1
        if self._passes == MOST_PASSES:
            trio.lowlevel.add_instrument(_Ending())


class _Ending(trio.abc.Instrument):
    """Throws into each task of the run that has a next step, again and again."""

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        nursery = task.parent_nursery
        if nursery is not None and nursery.parent_task.parent_nursery is not None:  # no task of Trio's own
            hidden: Any = task
            hidden._next_send_fn = task.coro.throw
            hidden._next_send = EndlessError(f"no end of it after {MOST_PASSES} passes through the scheduler")


@contextmanager
def _bounded() -> Iterator[list[trio.abc.Instrument]]:
    """Instruments under which the block ends, by EndlessError, after so many passes or so much real time.

    Only a main thread can be interrupted; in another one a run has no bound.
    """
    if threading.current_thread() is not threading.main_thread():
        yield []
        return

    def give_up(number: int, frame: FrameType | None) -> None:
        del number
        # Trio itself must not be interrupted, only a task.
        while frame is not None and frame.f_code.co_name != "unrolled_run":
            if frame.f_globals.get("__name__", "").startswith(("trio_agent.", "simulation.")):
                raise EndlessError(f"no end of it after {MOST_SECONDS:g} s of real time")
            frame = frame.f_back

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS, 0.05)  # again and again, for what will not be ended
    try:
        yield [_Counting()]
    except BaseExceptionGroup as group:
        endless = group.subgroup(EndlessError)
        if endless is None:
            raise
        while isinstance(endless, BaseExceptionGroup):
            endless = endless.exceptions[0]
        raise endless from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(seed: int, main: Callable[[], Awaitable[T]]) -> T:
    """Run `main` on a virtual clock, with everything that could differ between two runs bound to `seed`.

    The cyclic garbage collector rests meanwhile, since it may run at any moment.

    Raises:
        EndlessError: the run goes round and round.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        with (
            _bounded() as instruments,
            replaced(
                (trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
                (trio_run, "_r", random.Random(f"schedule {seed}")),
                (hypercorn.config, "time", lambda: EPOCH),
                (openai_compatible, "secrets", _SeededSecrets(seed)),
            ),
        ):
            return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), instruments=instruments)
    finally:
        if collecting:
            gc.enable()
