"""Turns that outlive their request: who can end them, what is left of them, and the end of the server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from support.memory_store import MemoryStore
from support.rig import Collector, make_agent, request, tool
from support.scripted import HANG, Scripted, answer, calling, text

from trio_agent.agent import Agent
from trio_agent.errors import AgentError
from trio_agent.event_log import LiveLog
from trio_agent.providers.contract import CallLimits
from trio_agent.running import StartedTurn
from trio_agent.server.app import serve_on
from trio_agent.server.listen import open_listeners
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.events import CancelReason
from trio_agent.store.kept import Keeping
from trio_agent.testing import open_test_agent
from trio_agent.turn.keeper import Keeper
from trio_agent.world import CountingWorld

SLOW = [text("Hel"), 5.0, *answer("lo")]


@asynccontextmanager
async def agent_of(lab: Scripted, **config: Any) -> AsyncIterator[tuple[Agent, MemoryStore]]:
    world = CountingWorld(clock=trio.current_time)
    store = MemoryStore(world.now)
    async with open_test_agent(lab, config=config, store=store, world=world) as agent:
        yield agent, store


async def start(
    agent: Agent,
    name: str = "resp_1",
    keeper: Keeper | None = None,
    *,
    cancel_unread: bool = False,
    **asked: Any,
) -> StartedTurn:
    context = agent.context()
    admitted = await agent.admit(request(**asked), context=context)
    log = agent.logs.open(name, owner="me", face="chat", cancel_unread=cancel_unread)
    log.begin(b"{}", context.started_at)
    return agent.start(admitted, log, keeper, context=context)


async def read(agent: Agent, name: str = "resp_1") -> list[fx.Output]:
    reader = await agent.logs.reader("me", name)
    assert reader is not None
    sink = Collector()
    with reader:
        await reader.copy_to(sink)
    return sink.outputs


def problem_of(outputs: Sequence[fx.Output]) -> str:
    last = outputs[-1]
    assert isinstance(last, fx.SendError | fx.Reject)
    assert sum(isinstance(each, fx.SendError | fx.Reject | fx.Finish) for each in outputs) == 1
    return last.problem.code


async def test_it_goes_on_when_its_request_is_gone(autojump_clock: trio.abc.Clock) -> None:
    """Whoever started it may be cancelled; the answer is there all the same, and the agent is idle then."""
    lab = Scripted(SLOW)
    async with agent_of(lab) as (agent, store):
        async with trio.open_nursery() as nursery:
            await start(agent)
            nursery.cancel_scope.cancel()
        assert agent.active_turns == 1
        await agent.idle()
        assert trio.current_time() == 5.0
        assert agent.active_turns == 0
        assert (store.only.outcome, store.only.reason) == ("completed", "stop")
        assert [output.text for output in await read(agent) if isinstance(output, fx.SendText)] == [
            "Hel",
            "lo",
        ]
        assert store.endings == {store.only.id: 1}


@pytest.mark.parametrize("script", [[HANG], [text("Hel"), HANG]], ids=["preflight", "streaming"])
@pytest.mark.parametrize(
    ("reason", "code"), [("cancelled", "turn_cancelled"), ("shutdown", "server_shutdown")]
)
async def test_it_is_cancelled_by_name(
    autojump_clock: trio.abc.Clock, script: list[Any], reason: CancelReason, code: str
) -> None:
    """Its readers are told; a second time, and when it is over, nothing happens."""
    lab = Scripted(script)
    async with agent_of(lab) as (agent, store):
        turn = await start(agent)
        outputs: list[fx.Output] = []

        async def follow() -> None:
            outputs.extend(await read(agent))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await trio.sleep(1)
            nursery.start_soon(turn.cancel, reason)
            nursery.start_soon(turn.cancel, reason)
            await turn.wait()
        assert trio.current_time() == 1.0
        assert problem_of(outputs) == code
        assert await read(agent) == outputs
        await turn.cancel("cancelled")
        assert (store.only.outcome, store.only.reason) == ("cancelled", reason)
        assert store.endings == {store.only.id: 1}
        assert lab.open_calls == []


async def test_it_is_cancelled_before_it_began(autojump_clock: trio.abc.Clock) -> None:
    """No model is called."""
    lab = Scripted(SLOW)
    async with agent_of(lab) as (agent, store):
        turn = await start(agent)
        await turn.cancel()
        await turn.wait()
        assert lab.calls == []
        assert (store.only.outcome, store.only.reason) == ("cancelled", "cancelled")
        assert problem_of(await read(agent)) == "turn_cancelled"


async def test_it_may_live_by_its_readers(autojump_clock: trio.abc.Clock) -> None:
    """With `cancel_unread` it ends when the last one has left, as one whose client has gone."""
    lab = Scripted([text("Hel"), HANG])
    async with agent_of(lab) as (agent, store):
        turn = await start(agent, cancel_unread=True)

        async def visit(seconds: float) -> None:
            with trio.move_on_after(seconds):
                await read(agent)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(visit, 1.0)
            nursery.start_soon(visit, 3.0)
            await trio.sleep(2)
            assert not turn.log.left
            assert turn.log.readers == 1
        await turn.wait()
        assert trio.current_time() == 3.0
        assert (store.only.outcome, store.only.reason) == ("cancelled", "client_disconnected")
        assert lab.open_calls == []


async def test_who_left_is_the_reason_though_the_server_ends_then(autojump_clock: trio.abc.Clock) -> None:
    """In the very moment in which the last reader leaves, before the turn has noticed."""
    async with agent_of(Scripted([text("Hel"), HANG])) as (agent, store):
        turn = await start(agent, cancel_unread=True)
        with trio.move_on_after(1):
            await read(agent)
        agent.end_as("shutdown")
        await agent.stop_turns()
        await turn.wait()
        assert (store.only.outcome, store.only.reason) == ("cancelled", "client_disconnected")


async def test_a_bill_is_waited_for_as_ever(autojump_clock: trio.abc.Clock) -> None:
    """A provider that is read on when its client leaves is read on when the last reader leaves."""
    lab = Scripted(
        [text("Hel"), 3.0, *answer("lo")], limits=CallLimits(on_disconnect="drain", drain_timeout=60)
    )
    async with agent_of(lab) as (agent, store):
        turn = await start(agent, cancel_unread=True)
        with trio.move_on_after(1):
            await read(agent)
        await turn.wait()
        assert trio.current_time() == 3.0
        assert (store.only.outcome, store.only.usage.output_tokens) == ("cancelled", 5)


async def test_it_parks_like_any_other(autojump_clock: trio.abc.Clock) -> None:
    """Nobody waits in memory for its caller's tools."""
    async with agent_of(Scripted(calling(("call_1", "read_file")))) as (agent, store):
        turn = await start(agent, tools=(tool(),))
        await turn.wait()
        assert store.only.outcome == "parked"
        assert [type(each).__name__ for each in (await read(agent))[-1:]] == ["Finish"]


async def test_it_counts(autojump_clock: trio.abc.Clock) -> None:
    """As one of `server.max_concurrent_turns`, from the moment in which it is started."""
    async with agent_of(Scripted([HANG]), server={"max_concurrent_turns": 1, "max_queued_turns": 0}) as (
        agent,
        _,
    ):
        await start(agent)
        with pytest.raises(AgentError) as caught:
            await agent.admit(request())
        assert caught.value.code == "rate_limited"


# --- the end of the agent -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["left", "cancelled", "failed"])
@pytest.mark.parametrize("at", [0.0, 1.0])
async def test_leaving_the_agent_ends_it(autojump_clock: trio.abc.Clock, how: str, at: float) -> None:
    """As by a shutdown, whichever way the block is left; outcome and log are written."""
    lab = Scripted([text("Hel"), HANG])
    logs: list[LiveLog] = []
    stores: list[MemoryStore] = []

    async def use() -> None:
        async with agent_of(lab) as (agent, store):
            stores.append(store)
            logs.append((await start(agent)).log)
            store.delay = 0.5
            await trio.sleep(at)
            if how == "failed":
                raise ValueError("the program's own")
            if how == "cancelled":
                await trio.sleep_forever()

    with trio.move_on_after(at + 0.001 if how == "cancelled" else 100):
        try:
            await use()
        except ValueError:
            assert how == "failed"
    (store,), (log,) = stores, logs
    assert (store.only.outcome, store.only.reason) == ("cancelled", "shutdown")
    assert log.sealed
    assert log.readers == 0
    assert problem_of([output for batch in log.batches for output in batch]) == "server_shutdown"
    assert store.logs["resp_1"].ended_at is not None
    assert lab.open_calls == []


async def serve(agent: Agent, shutdown: trio.Event, ended: list[float]) -> None:
    await serve_on(agent, await open_listeners("127.0.0.1", 0), api_key=None, shutdown=shutdown)
    ended.append(trio.current_time())


@pytest.mark.parametrize(
    ("script", "until", "outcome"),
    [
        (SLOW, 5.0, ("completed", "stop")),
        ([text("Hel"), HANG], 12.0, ("cancelled", "shutdown")),
        ([HANG], 12.0, ("cancelled", "shutdown")),
    ],
    ids=["ends in time", "streaming", "preflight"],
)
async def test_a_server_that_ends_gives_it_grace(
    autojump_clock: trio.abc.Clock, script: list[Any], until: float, outcome: tuple[str, str]
) -> None:
    """Though no connection is open: the turn has `shutdown_grace`, then it is told, and all is written."""
    shutdown, ended = trio.Event(), list[float]()
    async with agent_of(Scripted(script), server={"shutdown_grace": 10}) as (agent, store):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, agent, shutdown, ended)
            await trio.sleep(2)
            await start(agent)
            shutdown.set()
        assert ended == [until + 2.0 if outcome[0] == "completed" else until]
        assert agent.active_turns == 0
        assert (store.only.outcome, store.only.reason) == outcome
        if outcome[0] == "cancelled":
            assert problem_of(await read(agent)) == "server_shutdown"


async def test_a_server_without_such_turns_ends_at_once(autojump_clock: trio.abc.Clock) -> None:
    """The grace period is for those that need it."""
    shutdown, ended = trio.Event(), list[float]()
    async with agent_of(Scripted([HANG])) as (agent, _), trio.open_nursery() as nursery:
        nursery.start_soon(serve, agent, shutdown, ended)
        await trio.sleep(1)
        shutdown.set()
    assert ended == [1.0]


async def test_a_disk_that_hangs_holds_the_servers_end_for_its_limit_only(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Beyond the grace period only the write's own limit counts, of ten seconds."""
    shutdown, ended = trio.Event(), list[float]()
    async with agent_of(Scripted([text("Hel"), HANG]), server={"shutdown_grace": 3}) as (agent, store):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, agent, shutdown, ended)
            await start(agent)
            await trio.sleep(1)
            store.hanging.add("close_turn")
            shutdown.set()
        assert ended == [14.0]


# --- what fails in it --------------------------------------------------------------------------------


class Broken:
    """A keeper that cannot do its work."""

    def opening(self, row: Any) -> Keeping | None:
        raise RuntimeError("the keeper's own")

    def closing(self, turn: Any, row: Any, rest: Any, *, parked: bool) -> Keeping | None:
        raise RuntimeError("the keeper's own")

    def written(self) -> None:
        raise RuntimeError("the keeper's own")


async def test_a_failure_harms_no_other_turn(autojump_clock: trio.abc.Clock) -> None:
    """It ends as the server's fault, with a log that says so; its neighbour goes on."""
    async with agent_of(Scripted(SLOW, SLOW)) as (agent, store):
        await start(agent, "resp_1", Broken())
        await start(agent, "resp_2")
        await agent.idle()
        assert problem_of(await read(agent, "resp_1")) == "internal_error"
        assert type((await read(agent, "resp_2"))[-1]) is fx.Finish
        assert sorted(row.outcome for row in store.turns.values()) == ["completed", "failed"]


async def test_an_agent_without_a_nursery_starts_none(autojump_clock: trio.abc.Clock) -> None:
    """It says so instead of losing the turn."""
    agent = make_agent(Scripted(SLOW))
    with pytest.raises(RuntimeError, match="nursery"):
        await start(agent)
