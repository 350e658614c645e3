"""Passes the questions of each worker on to the others, and the answers back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Final

import trio

from .messages import Ask, Replies, Reply
from .peers import ANSWER_SECONDS
from .worker import Worker

MOST_RELAYED: Final = 1024
"""Questions that wait for answers at the same time. Beyond it, the answer is that nobody has one."""


class Relay:
    """Made by the supervisor.

    Args:
        workers: those that are there to be asked.
        nursery: where answers are waited for.
    """

    def __init__(self, workers: Callable[[], Iterable[Worker]], nursery: trio.Nursery) -> None:
        self._workers = workers
        self._nursery = nursery
        self._ids = itertools.count(1)
        self._collecting: dict[int, _Collecting] = {}

    def asked(self, asker: Worker, ask: Ask) -> None:
        """A worker asks the others."""
        others = [worker for worker in self._workers() if worker is not asker]
        if not ask.id:
            for other in others:
                other.post(ask, droppable=True)
        elif not others or len(self._collecting) >= MOST_RELAYED:
            asker.post(Replies(ask.id))
        else:
            self._nursery.start_soon(self._collect, asker, ask, others)

    def replied(self, worker: Worker, reply: Reply) -> None:
        """A worker answers."""
        collecting = self._collecting.get(reply.id)
        if collecting is not None:
            collecting.add(worker, reply.payload)

    def went(self, worker: Worker) -> None:
        """A worker has ended: nobody waits for its answers any more."""
        for collecting in self._collecting.values():
            collecting.add(worker, None)

    async def _collect(self, asker: Worker, ask: Ask, others: list[Worker]) -> None:
        number = next(self._ids)
        collecting = self._collecting[number] = _Collecting()
        try:
            question = Ask(number, ask.question, ask.payload)
            collecting.missing |= {other for other in others if other.post(question, droppable=True)}
            with trio.move_on_after(ANSWER_SECONDS):
                if collecting.missing:
                    await collecting.whole.wait()
        finally:
            del self._collecting[number]
        asker.post(Replies(ask.id, tuple(collecting.payloads)), droppable=True)


class _Collecting:
    """The answers to one question, as they come."""

    def __init__(self) -> None:
        self.missing: set[Worker] = set()
        self.payloads: list[bytes] = []
        self.whole = trio.Event()

    def add(self, worker: Worker, payload: bytes | None) -> None:
        if worker in self.missing:
            self.missing.discard(worker)
            if payload is not None:
                self.payloads.append(payload)
            if not self.missing:
                self.whole.set()


__all__ = ["Relay"]
