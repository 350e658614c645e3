"""A worker's view of the others: questions go to the supervisor, which passes them on."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from typing import Final

import trio

from trio_agent.peers import Answer, Peers

from .channel import Channel
from .framing import MAX_FRAME_BYTES, FrameError
from .messages import Ask, Gone, Replies, Reply, ToWorker

logger = logging.getLogger("trio_agent.workers")

ANSWER_SECONDS: Final = 1.0
"""How long the others have to answer."""
ASK_SECONDS: Final = ANSWER_SECONDS + 0.25
"""How long a worker waits for the supervisor to say what they answered."""
MOST_QUESTIONS: Final = 64
"""Questions of one worker that wait for answers, and answers that one worker is making, at the same time."""
_MOST_ANSWER_BYTES: Final = MAX_FRAME_BYTES // 64
"""All answers to a question must go into one message, whatever the number of workers."""


class WorkerPeers(Peers):
    """The other workers.

    Args:
        channel: to the supervisor.
        number: the place of this worker, from 1 on.
        count: how many workers there are.
        name: of this process; no other worker has or had it.
        nursery: where questions of others are answered.
    """

    def __init__(
        self, channel: Channel[ToWorker], *, number: int, count: int, name: str, nursery: trio.Nursery
    ) -> None:
        self.number = number
        self.count = count
        self.name = name
        self._channel = channel
        self._nursery = nursery
        self._ids = itertools.count(1)
        self._room = trio.Semaphore(MOST_QUESTIONS)
        self._waiting: dict[int, _Waiting] = {}
        self._answering = 0
        self._answers: dict[str, Answer] = {}
        self._gone: list[Callable[[str], None]] = []

    async def ask(self, question: str, payload: bytes = b"") -> list[bytes]:
        waiting = _Waiting()
        with trio.move_on_after(ASK_SECONDS):
            async with self._room:
                number = next(self._ids)
                self._waiting[number] = waiting
                try:
                    if self._post(Ask(number, question, payload)):
                        await waiting.event.wait()
                finally:
                    del self._waiting[number]
        return waiting.payloads

    def tell(self, question: str, payload: bytes = b"") -> None:
        self._post(Ask(0, question, payload))

    def on(self, question: str, answer: Answer) -> None:
        self._answers[question] = answer

    def on_gone(self, gone: Callable[[str], None]) -> None:
        self._gone.append(gone)

    def _post(self, ask: Ask) -> bool:
        try:
            return self._channel.post(ask, droppable=True)
        except FrameError as error:
            logger.warning("the other workers cannot be asked for %s: %s", ask.question, error)
            return False

    # --- what the supervisor passes on ----------------------------------------------------------------

    def replied(self, replies: Replies) -> None:
        """The others have answered."""
        waiting = self._waiting.get(replies.id)
        if waiting is not None:
            waiting.payloads = list(replies.payloads)
            waiting.event.set()

    def asked(self, ask: Ask) -> None:
        """Another worker asks."""
        answer = self._answers.get(ask.question)
        if answer is None or self._answering >= MOST_QUESTIONS:
            self._reply(ask, None)
        else:
            self._answering += 1
            self._nursery.start_soon(self._answer, ask, answer)

    def went(self, gone: Gone) -> None:
        """Another worker has ended."""
        for tell in self._gone:
            tell(gone.name)

    async def _answer(self, ask: Ask, answer: Answer) -> None:
        found: bytes | None = None
        try:
            with trio.move_on_after(ANSWER_SECONDS):
                found = await answer(ask.payload)
        except Exception:
            logger.exception("the question %s of another worker could not be answered", ask.question)
        finally:
            self._answering -= 1
        if found is not None and len(found) > _MOST_ANSWER_BYTES:
            logger.warning("the answer to %s is too long for the other workers", ask.question)
            found = None
        self._reply(ask, found)

    def _reply(self, ask: Ask, payload: bytes | None) -> None:
        if ask.id:
            self._channel.post(Reply(ask.id, payload))


class _Waiting:
    def __init__(self) -> None:
        self.event = trio.Event()
        self.payloads: list[bytes] = []


__all__ = ["ANSWER_SECONDS", "WorkerPeers"]
