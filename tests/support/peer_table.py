"""Several workers in one process, that hear each other as real ones do."""

from __future__ import annotations

from collections.abc import Callable

import trio

from trio_agent.peers import Answer, Peers

ANSWER_SECONDS = 1.0


class Table:
    """The workers of one server.

    Args:
        nursery: where messages are on their way that nobody waits for.
        latency: seconds that each message takes.
    """

    def __init__(self, nursery: trio.Nursery, latency: float = 0.0) -> None:
        self.nursery = nursery
        self.latency = latency
        self.seats: dict[str, Seat] = {}
        self.deaf: set[str] = set()

    def seat(self, name: str) -> Seat:
        """A new worker."""
        self.seats[name] = seat = Seat(self, name, len(self.seats) + 1)
        return seat

    def die(self, name: str) -> None:
        """A worker ends without a word; the others are told."""
        del self.seats[name]
        for seat in self.seats.values():
            for gone in seat.gone:
                gone(name)


class Seat(Peers):
    """One worker's view of the others."""

    count = 2

    def __init__(self, table: Table, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.answers: dict[str, Answer] = {}
        self.gone: list[Callable[[str], None]] = []
        self._table = table

    async def ask(self, question: str, payload: bytes = b"") -> list[bytes]:
        found: list[bytes] = []
        with trio.move_on_after(ANSWER_SECONDS):
            async with trio.open_nursery() as nursery:
                for other in self._others():
                    nursery.start_soon(other.hear, question, payload, found)
        return found

    def tell(self, question: str, payload: bytes = b"") -> None:
        for other in self._others():
            self._table.nursery.start_soon(other.hear, question, payload, [])

    def on(self, question: str, answer: Answer) -> None:
        self.answers[question] = answer

    def on_gone(self, gone: Callable[[str], None]) -> None:
        self.gone.append(gone)

    async def hear(self, question: str, payload: bytes, found: list[bytes]) -> None:
        if self.name in self._table.deaf:
            await trio.sleep_forever()
        await trio.sleep(self._table.latency)
        if question in self.answers:
            answer = await self.answers[question](payload)
            await trio.sleep(self._table.latency)
            if answer is not None:
                found.append(answer)

    def _others(self) -> list[Seat]:
        seats = self._table.seats
        return [seat for seat in seats.values() if seat is not self] if self.name in seats else []
