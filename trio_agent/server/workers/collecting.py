"""Answers of several workers to one message, as they come."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

import trio

from .worker import Worker

T = TypeVar("T")


class Collecting(Generic[T]):
    """What these workers answer. Who dies has nothing to say.

    Args:
        workers: those that were asked.
    """

    def __init__(self, workers: Iterable[Worker]) -> None:
        self.missing = set(workers)
        self.answers: dict[Worker, T] = {}
        self._whole = trio.Event()
        self._look()

    def add(self, worker: Worker, answer: T) -> None:
        """A worker has answered."""
        if worker in self.missing:
            self.answers[worker] = answer
            self.went(worker)

    def went(self, worker: Worker) -> None:
        """A worker will not answer any more."""
        self.missing.discard(worker)
        self._look()

    async def wait(self, seconds: float) -> None:
        """Wait until nobody is missing, for so long."""
        with trio.move_on_after(seconds):
            await self._whole.wait()

    def _look(self) -> None:
        if not self.missing:
            self._whole.set()


__all__ = ["Collecting"]
