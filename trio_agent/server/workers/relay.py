"""Passes the questions of each worker on to the others, and the answers back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Final

import trio

from .collecting import Collecting
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
        self._collecting: dict[int, Collecting[bytes | None]] = {}

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
            collecting.went(worker)

    async def _collect(self, asker: Worker, ask: Ask, others: list[Worker]) -> None:
        number = next(self._ids)
        question = Ask(number, ask.question, ask.payload)
        collecting = Collecting[bytes | None](
            other for other in others if other.post(question, droppable=True)
        )
        self._collecting[number] = collecting
        try:
            await collecting.wait(ANSWER_SECONDS)
        finally:
            del self._collecting[number]
        payloads = tuple(each for each in collecting.answers.values() if each is not None)
        asker.post(Replies(ask.id, payloads), droppable=True)


__all__ = ["Relay"]
