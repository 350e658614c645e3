"""What one worker is asked about that another one makes: ended, joined, and read on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from responses_app import PATH
from responses_state_app import State, state
from support.peer_table import Table

from trio_agent.event_log import EventLogs
from trio_agent.event_log.holds import HOLD, LET_GO, Hold
from trio_agent.sweeping import sweep_after_deaths
from trio_agent.testing import Answer, hangs, pause, run, says, text

LONG = [text("Hel"), pause(5), *says("lo")]
ENDLESS = [text("Hel"), *hangs()]


@asynccontextmanager
async def workers(
    *scripts: Any, latency: float = 0.0, names: tuple[str, ...] = ("one", "two")
) -> AsyncIterator[tuple[Table, list[State]]]:
    """Workers on one store, all on the same scripts."""
    async with trio.open_nursery() as nursery:
        table = Table(nursery, latency)
        first, *others = names
        one = await nursery.start(work, first, scripts, table, None)
        yield table, [one, *[await nursery.start(work, name, scripts, table, one) for name in others]]
        nursery.cancel_scope.cancel()


async def work(
    name: str,
    scripts: tuple[Any, ...],
    table: Table,
    beside: State | None,
    *,
    task_status: trio.TaskStatus[State],
) -> None:
    """One worker, on the store of the one that it is beside."""
    store = None if beside is None else beside.store
    async with state(*scripts, name=name, store=store, peers=table.seat(name)) as server:
        task_status.started(server)
        await trio.sleep_forever()


# --- cancel and delete ------------------------------------------------------------------------------------


@pytest.mark.parametrize("latency", [0.0, 0.4])
async def test_any_worker_cancels_a_response(latency: float, autojump_clock: trio.abc.Clock) -> None:
    """The upstream call ends in that moment, and both show the response as cancelled."""
    async with workers(ENDLESS, latency=latency) as (_, (one, two)):
        body = await one.made(background=True)
        await trio.sleep(2)
        began = trio.current_time()
        cancelled = await two.post(f"{PATH}/{body['id']}/cancel")
        assert (cancelled.status, cancelled.json()["status"]) == (200, "cancelled")
        (call,) = one.provider.calls
        assert call.closed_at == began + latency
        assert await one.shown(body["id"]) == await two.shown(body["id"]) == cancelled.json()
        assert [(row.outcome, row.reason) for row in one.store.turns.values()] == [("cancelled", "cancelled")]


async def test_any_worker_deletes_a_response(autojump_clock: trio.abc.Clock) -> None:
    """It is ended and gone."""
    async with workers(ENDLESS) as (_, (one, two)):
        body = await one.made(background=True)
        await trio.sleep(2)
        deleted = await two.post(f"{PATH}/{body['id']}", method="DELETE")
        assert deleted.json()["deleted"] is True
        assert (await one.get(f"{PATH}/{body['id']}")).status == 404
        assert one.provider.calls[0].closed_at == 2.0


async def test_an_end_that_is_slow_to_write_is_waited_for(autojump_clock: trio.abc.Clock) -> None:
    """The worker that makes the response answers before it has ended."""
    async with workers(ENDLESS) as (_, (one, two)):
        body = await one.made(background=True)
        await trio.sleep(2)
        one.store.delay = 3
        cancelled = await two.post(f"{PATH}/{body['id']}/cancel")
        assert cancelled.json()["status"] == "cancelled"


async def test_an_end_that_does_not_come_is_told(autojump_clock: trio.abc.Clock) -> None:
    """As 503, with when to ask again; nobody waits for ever."""
    async with workers(ENDLESS) as (_, (one, two)):
        body = await one.made(background=True)
        await trio.sleep(2)
        one.store.hanging |= {"close_turn", "close_late"}
        refused = await two.post(f"{PATH}/{body['id']}/cancel")
        assert (refused.status, refused.error["code"]) == (503, "server_busy")
        assert refused.headers["retry-after"] == "5"
        one.store.hanging.clear()


async def test_a_worker_that_hears_nothing_is_not_waited_for(autojump_clock: trio.abc.Clock) -> None:
    """Then nobody is known who makes the response."""
    async with workers(ENDLESS) as (table, (one, two)):
        body = await one.made(background=True)
        await trio.sleep(2)
        table.deaf.add("one")
        refused = await two.post(f"{PATH}/{body['id']}/cancel")
        assert (refused.status, refused.error["code"]) == (400, "invalid_request")
        assert trio.current_time() == 3.0


# --- readers of one turn ----------------------------------------------------------------------------------


async def ask(server: State, answers: list[Answer], until: float = 100.0) -> None:
    """Ask for the one answer, and leave at a time."""
    body = {"model": "scripted", "input": "Hi", "stream": True}
    with trio.move_on_at(until):
        answers.append(await server.ask(body, {"Idempotency-Key": "k"}, path=PATH))


def outcomes(server: State) -> list[tuple[str, str | None]]:
    return [(row.outcome, row.reason) for row in server.store.turns.values()]


def calls(*servers: State) -> list[Any]:
    return [call for server in servers for call in server.provider.calls]


async def test_twenty_requests_to_three_workers_are_one_turn(autojump_clock: trio.abc.Clock) -> None:
    """All have the same answer, from one upstream call."""
    async with workers(LONG, names=("one", "two", "three")) as (_, servers):
        answers: list[Answer] = []
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, servers[number % 3], answers)
        assert len(answers) == 20
        assert len({answer.body for answer in answers}) == 1
        assert len(calls(*servers)) == 1


async def test_a_reader_in_another_worker_keeps_the_turn(autojump_clock: trio.abc.Clock) -> None:
    """The first client may leave its worker; the other one has the whole answer."""
    async with workers(LONG) as (_, (one, two)):
        answers: list[Answer] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, one, [], 2.0)
            await trio.sleep(1)
            nursery.start_soon(ask, two, answers)
        assert b"response.completed" in answers[0].body
        assert outcomes(one) == [("completed", "stop")]


async def test_the_last_reader_takes_the_turn_along(autojump_clock: trio.abc.Clock) -> None:
    """Wherever it read: the upstream call is closed in that moment, and the key is free."""
    async with workers(ENDLESS) as (_, (one, two)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, one, [], 2.0)
            await trio.sleep(1)
            nursery.start_soon(ask, two, [], 4.0)
        await trio.sleep(1)
        (call,) = calls(one, two)
        assert call.closed_at == 4.0
        assert outcomes(one) == [("cancelled", "client_disconnected")]
        assert one.store.keys == {}


async def test_the_readers_of_a_worker_go_with_it(autojump_clock: trio.abc.Clock) -> None:
    """A worker that dies reads no more."""
    async with workers(ENDLESS) as (table, (one, two)), trio.open_nursery() as nursery:
        nursery.start_soon(ask, one, [], 2.0)
        await trio.sleep(1)
        nursery.start_soon(ask, two, [])
        await trio.sleep(3)
        assert [call.closed_at for call in calls(one, two)] == [None]
        table.die("two")
        await trio.sleep(1)
        assert [call.closed_at for call in calls(one, two)] == [4.0]
        nursery.cancel_scope.cancel()


async def test_who_reads_it_by_its_id_reads_it_too(autojump_clock: trio.abc.Clock) -> None:
    """`GET` of the stream, in another worker, keeps the turn as well."""
    async with workers(LONG) as (_, (one, two)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, one, [], 2.0)
            await trio.sleep(1)
            (name,) = one.store.answers
            answer = await two.get(f"{PATH}/{name}?stream=true")
        assert b"response.completed" in answer.body


@pytest.mark.parametrize("latency", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("joined", [step / 20 for step in range(16, 28)])
async def test_who_joins_as_the_last_one_leaves_has_a_whole_answer(
    joined: float, latency: float, autojump_clock: trio.abc.Clock
) -> None:
    """It joins the turn before that is left, or begins a new one."""
    async with workers(LONG, LONG, latency=latency) as (_, (one, two)):
        one.store.delay = 0.1
        answers: list[Answer] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, one, [], 1.1)
            await trio.sleep(joined)
            nursery.start_soon(ask, two, answers)
        assert b"response.completed" in answers[0].body
        one.store.delay = 0
        await trio.sleep(1)
        assert max(outcomes(one)) == ("completed", "stop")
        assert len(outcomes(one)) in (1, 2)
        assert len(one.store.keys) == 1


async def test_what_the_dead_left_is_closed_at_once(autojump_clock: trio.abc.Clock) -> None:
    """The store is swept when a worker has gone; where that fails, the next time."""
    async with trio.open_nursery() as nursery, state(LONG) as server:
        table = Table(nursery)
        for name in ("one", "two", "three"):
            table.seat(name)
        nursery.start_soon(sweep_after_deaths, server.store, table.seats["one"], trio.current_time)
        await trio.sleep(1)
        assert server.store.sweeps == 0
        server.store.failing.add("sweep")
        table.die("two")
        await trio.sleep(1)
        server.store.failing.clear()
        table.die("three")
        await trio.sleep(1)
        assert server.store.sweeps == 1
        nursery.cancel_scope.cancel()


async def test_messages_may_overtake_each_other(autojump_clock: trio.abc.Clock) -> None:
    """A reader that has gone before it is announced holds nothing."""
    async with trio.open_nursery() as nursery, state(LONG) as server:
        table = Table(nursery)
        one, two = table.seat("one"), table.seat("two")
        logs = EventLogs(server.store, trio.current_time, lifetime=lambda: 600.0, peers=one)
        log = logs.open("resp_1", owner="", face="responses", cancel_unread=True)
        left = trio.Event()
        log.leave = left.set
        for gone_first in (False, True):
            hold = msgspec.json.encode(Hold("", "resp_1", f"two/{gone_first}"))
            questions = (LET_GO, HOLD) if gone_first else (HOLD, LET_GO)
            log.join()
            for question in questions:
                await two.ask(question, hold)
            log.part()
            assert left.is_set()
            log.left, left = False, trio.Event()
            log.leave = left.set
        logs.end(log)
        nursery.cancel_scope.cancel()


class Client(NamedTuple):
    """One that asks at a time, in a worker, and may leave later."""

    worker: int
    comes: int
    stays: int | None


TENTHS = 0.1
clients = st.builds(
    Client,
    worker=st.integers(0, 2),
    comes=st.integers(0, 40),
    stays=st.one_of(st.none(), st.integers(0, 60)),
)


@given(st.lists(clients, min_size=1, max_size=6), st.sampled_from([0.0, 0.03, 0.3]), st.random_module())
@settings(max_examples=60, deadline=None)
def test_whoever_stays_has_a_whole_answer(asked: list[Client], latency: float, seeded: object) -> None:
    """Whoever else comes and goes, in whichever worker: and no two turns are made at once for it."""

    async def main() -> None:
        async with workers(*[LONG] * 8, latency=latency, names=("one", "two", "three")) as (_, servers):
            servers[0].store.delay = 0.02
            answers: list[list[Answer]] = [[] for _ in asked]

            async def come(client: Client, mine: list[Answer]) -> None:
                await trio.sleep(client.comes * TENTHS)
                until = 100.0 if client.stays is None else trio.current_time() + client.stays * TENTHS
                await ask(servers[client.worker], mine, until)

            async with trio.open_nursery() as nursery:
                for client, mine in zip(asked, answers, strict=True):
                    nursery.start_soon(come, client, mine)
            for client, mine in zip(asked, answers, strict=True):
                if client.stays is None:
                    assert b"response.completed" in mine[0].body
            await trio.sleep(2)
            found = outcomes(servers[0])
            assert set(found) <= {("completed", "stop"), ("cancelled", "client_disconnected")}
            assert found.count(("completed", "stop")) <= 1
            turns = sorted(servers[0].store.turns.values(), key=lambda row: row.created_at)
            for before, after in pairwise(turns):
                assert before.ended_at is not None
                assert before.ended_at <= after.created_at

    run(main)
