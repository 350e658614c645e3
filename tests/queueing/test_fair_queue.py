"""Who runs next: never too many, never an idle place, a fair share for each, no way to push others out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trio_agent.queueing.fair_queue import FairQueue, Ticket

CLIENTS = st.sampled_from("abcd")


def rank(ticket: Ticket) -> tuple[int, int]:
    return ticket.round, ticket.number


class Queueing(RuleBasedStateMachine):
    """Random arrivals, ends and departures; a list beside the queue knows what must be so."""

    def __init__(self) -> None:
        super().__init__()
        self.most, self.room = 2, 3
        self.queue = FairQueue(self.most, self.room)
        self.tickets: list[Ticket] = []

    def of(self, state: str) -> list[Ticket]:
        return [ticket for ticket in self.tickets if ticket.state == state]

    @rule(client=CLIENTS)
    def arrive(self, client: str) -> None:
        before = Counter(ticket.client for ticket in self.of("waiting"))
        ticket, displaced = self.queue.ask(client)
        self.tickets.append(ticket)
        if displaced is not None:
            assert (displaced.state, ticket.state) == ("refused", "waiting")
            assert before[displaced.client] == max(before.values())
            assert before[client] < before[displaced.client]
            others = [each for each in self.of("waiting") if each.client == displaced.client]
            assert all(each.number < displaced.number for each in others), "the newest one goes"
        elif ticket.state == "refused":
            assert len(self.of("waiting")) >= self.room

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.tickets))
        running = Counter(each.client for each in self.of("running"))
        waiting = self.of("waiting")
        state = ticket.state
        let_in = self.queue.leave(ticket)
        assert all(each in waiting and each.state == "running" for each in let_in)
        if state == "running":
            running[ticket.client] -= 1
            for each in let_in:
                fewest = min(running[other.client] for other in waiting)
                assert running[each.client] == fewest, "who has the fewest comes first"
                equals = [other for other in waiting if running[other.client] == fewest]
                assert rank(each) == min(map(rank, equals)), "then by rounds, then who waits longest"
                waiting.remove(each)
                running[each.client] += 1
        elif not (len(running) < self.most):
            assert not let_in or len(self.of("running")) <= self.most

    @rule(most=st.integers(1, 4), room=st.integers(0, 4))
    def resize(self, most: int, room: int) -> None:
        self.most, self.room = most, room
        self.queue.resize(most, room)

    @invariant()
    def counts_are_right(self) -> None:
        assert self.queue.running == len(self.of("running"))
        assert self.queue.waiting == len(self.of("waiting")) == len(self.queue.waiters)

    @invariant()
    def no_place_is_idle(self) -> None:
        assert not self.of("waiting") or self.queue.running >= self.most

    def teardown(self) -> None:
        for ticket in self.tickets:
            self.queue.leave(ticket)
        assert (self.queue.running, self.queue.waiting, self.queue._clients) == (0, 0, {})


TestQueueing = Queueing.TestCase
TestQueueing.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(st.tuples(CLIENTS, st.booleans()), max_size=80), st.integers(1, 5), st.integers(0, 6))
@settings(deadline=None)
def test_never_more_than_may(steps: list[tuple[str, bool]], most: int, room: int) -> None:
    """Whatever comes and goes, no more run and wait than the bounds say."""
    queue = FairQueue(most, room)
    tickets: list[Ticket] = []
    for client, arrives in steps:
        if arrives or not tickets:
            tickets.append(queue.ask(client).ticket)
        else:
            queue.leave(tickets.pop(0))
        assert queue.running <= most
        assert queue.waiting <= room


def states(tickets: list[Ticket]) -> list[str]:
    return [ticket.state for ticket in tickets]


def ask(queue: FairQueue, client: Hashable, times: int = 1) -> list[Ticket]:
    return [queue.ask(client).ticket for _ in range(times)]


def test_a_flood_does_not_delay_a_single_turn() -> None:
    """One client has a hundred waiting; the other's only one gets the very next place."""
    queue = FairQueue(2, 200)
    flood = ask(queue, "flood", 102)
    (single,) = ask(queue, "single")
    assert queue.leave(flood[0]) == [single]


def test_where_one_turn_runs_at_a_time_it_goes_by_rounds() -> None:
    """A single request waits for one turn of a flood that came first, and not for all of it."""
    queue = FairQueue(1, 200)
    flood = ask(queue, "flood", 100)
    (single,) = ask(queue, "single")
    assert queue.leave(flood[0]) == [flood[1]]
    assert queue.leave(flood[1]) == [single]


def test_two_floods_share_evenly() -> None:
    """Half of the places each, though one of them came first with everything."""
    queue = FairQueue(10, 200)
    first, second = ask(queue, "first", 60), ask(queue, "second", 60)
    for ticket in first[:10]:
        queue.leave(ticket)
    running = [states(each).count("running") for each in (first, second)]
    assert running == [5, 5] or running == [0, 10]
    for _ in range(40):
        queue.leave(next(each for each in (*first, *second) if each.state == "running"))
        counts = sorted(states(each).count("running") for each in (first, second))
        assert sum(counts) == 10
    assert counts == [5, 5]


def test_nobody_starves() -> None:
    """Others keep coming, each with nothing running yet; who waits longest is next all the same."""
    queue = FairQueue(1, 50)
    (running,) = ask(queue, "busy")
    (waiting,) = ask(queue, "patient")
    rounds = 0
    while waiting.state == "waiting":
        queue.ask(f"newcomer {rounds}")
        (running,) = queue.leave(running)
        rounds += 1
    assert rounds == 1


def test_an_old_client_comes_before_new_ones_in_the_end() -> None:
    """Each of an endless row of new clients is in a later round than it."""
    queue = FairQueue(1, 50)
    (running,) = ask(queue, "old")
    _, second = ask(queue, "old", 2)
    rounds = 0
    while second.state == "waiting":
        queue.ask(f"newcomer {rounds}")
        (running,) = queue.leave(running)
        rounds += 1
        assert rounds < 6


def test_a_full_queue_makes_room_for_who_has_less() -> None:
    """The newest waiter of the one with the most goes; among equals nobody does."""
    queue = FairQueue(1, 4)
    flood = ask(queue, "flood", 5)
    ticket, displaced = queue.ask("other")
    assert (ticket.state, displaced) == ("waiting", flood[-1])
    assert displaced is not None
    assert displaced.state == "refused"
    assert queue.ask("other").displaced is flood[-2], (
        "it has as much of the queue then, and no turn runs for it"
    )
    assert queue.ask("other").ticket.state == "refused"
    assert queue.ask("flood").ticket.state == "refused"


def test_without_room_to_wait_it_is_yes_or_no() -> None:
    """As before there was a queue."""
    queue = FairQueue(1, 0)
    (first,) = ask(queue, "a")
    (second,) = ask(queue, "b")
    assert states([first, second]) == ["running", "refused"]
    assert queue.leave(first) == []
    assert ask(queue, "b")[0].state == "running"
