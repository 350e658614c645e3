"""Who runs next, where more turns are asked for than may run at once. Pure: no clock, no tasks.

A place that becomes free goes to the waiting client that has the fewest turns running. Among equals it goes
by rounds, in each of which a client has one waiter: the first one that it sends belongs to the round after
the one that is served now, the next one to the round after that. Within a round, who waits longest comes
first. So a client that asks for a hundred turns gets its share, one that asks for a single turn does not
stand behind that hundred, and new clients cannot keep an old one waiting for ever. A place is never left
free while somebody waits.

The queue is bounded. When it is full, a newcomer takes the room of the newest waiter of the client that has
the most waiting, if its own client then still has less of the server than that one has; else the newcomer is
refused. So two clients can never push each other out in turns.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Literal, NamedTuple, TypeAlias

State: TypeAlias = Literal["waiting", "running", "refused", "gone"]


class Ticket:
    """One claim of a client's. The queue alone changes its `state`."""

    __slots__ = ("client", "number", "round", "state")

    def __init__(self, client: Hashable, number: int) -> None:
        self.client = client
        self.number = number
        self.round = 0
        self.state: State = "waiting"

    def __repr__(self) -> str:
        return f"<Ticket {self.number} {self.state}>"


class Asked(NamedTuple):
    """What came of a claim: it runs, waits or is refused; `displaced` is a waiter that is refused for it."""

    ticket: Ticket
    displaced: Ticket | None = None


class _Client:
    __slots__ = ("running", "waiting")

    def __init__(self) -> None:
        self.running = 0
        self.waiting: dict[int, Ticket] = {}  # in order of arrival


class FairQueue:
    """Places for `max_running` tickets, and room for `max_waiting` more to wait."""

    def __init__(self, max_running: int, max_waiting: int) -> None:
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._clients: dict[Hashable, _Client] = {}
        self._arrivals = 0
        self._round = 0
        self.running = 0
        self.waiting = 0

    def ask(self, client: Hashable) -> Asked:
        """Claim a place."""
        self._arrivals += 1
        ticket = Ticket(client, self._arrivals)
        if self.running < self._max_running and not self.waiting:
            self._run(ticket)
            return Asked(ticket)
        displaced = None
        if self.waiting >= self._max_waiting:
            displaced = self._displaced_by(client)
            if displaced is None:
                ticket.state = "refused"
                return Asked(ticket)
            self._forget_waiter(displaced)
            displaced.state = "refused"
        waiting = self._of(client).waiting
        ticket.round = max(self._round, waiting[next(reversed(waiting))].round if waiting else 0) + 1
        waiting[ticket.number] = ticket
        self.waiting += 1
        return Asked(ticket, displaced)

    def leave(self, ticket: Ticket) -> list[Ticket]:
        """A claim is over, whether it ran or waited; one that is over already may be given up again.

        Returns:
            The tickets that run from now on.
        """
        state, ticket.state = ticket.state, "gone"
        if state == "waiting":
            self._forget_waiter(ticket)
        elif state == "running":
            self.running -= 1
            self._of(ticket.client).running -= 1
            self._drop_if_idle(ticket.client)
        return self._fill()

    def resize(self, max_running: int, max_waiting: int) -> list[Ticket]:
        """Other bounds from now on. Who runs goes on, and who waits goes on waiting, also beyond them.

        Returns:
            The tickets that run from now on.
        """
        self._max_running, self._max_waiting = max_running, max_waiting
        return self._fill()

    @property
    def waiters(self) -> list[Ticket]:
        """All tickets that wait."""
        return [ticket for each in self._clients.values() for ticket in each.waiting.values()]

    def _fill(self) -> list[Ticket]:
        now_running = []
        while self.waiting and self.running < self._max_running:
            ticket = self._next()
            self._forget_waiter(ticket)
            self._round = max(self._round, ticket.round)
            self._run(ticket)
            now_running.append(ticket)
        return now_running

    def _next(self) -> Ticket:
        queues = (each for each in self._clients.values() if each.waiting)
        heads = ((each.running, next(iter(each.waiting.values()))) for each in queues)
        _, first = min(heads, key=lambda head: (head[0], head[1].round, head[1].number))
        return first

    def _displaced_by(self, newcomer: Hashable) -> Ticket | None:
        """The waiter that has to make room, if any."""
        most = max(
            (each for each in self._clients.values() if each.waiting),
            key=lambda each: (len(each.waiting), each.running, next(reversed(each.waiting))),
            default=None,
        )
        if most is None:
            return None
        own = self._clients.get(newcomer) or _Client()
        if (len(own.waiting) + 1, own.running) >= (len(most.waiting), most.running):
            return None
        return most.waiting[next(reversed(most.waiting))]

    def _of(self, client: Hashable) -> _Client:
        return self._clients.setdefault(client, _Client())

    def _run(self, ticket: Ticket) -> None:
        ticket.state = "running"
        self.running += 1
        self._of(ticket.client).running += 1

    def _forget_waiter(self, ticket: Ticket) -> None:
        del self._of(ticket.client).waiting[ticket.number]
        self.waiting -= 1
        self._drop_if_idle(ticket.client)

    def _drop_if_idle(self, client: Hashable) -> None:
        known = self._clients[client]
        if not (known.running or known.waiting):
            del self._clients[client]


__all__ = ["Asked", "FairQueue", "State", "Ticket"]
