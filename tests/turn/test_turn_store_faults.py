"""A store that fails or hangs: no model call without a row, no complete answer without an outcome."""

from __future__ import annotations

from unittest.mock import ANY

import pytest
import trio
from support.memory_store import MemoryStore
from support.rig import (
    Collector,
    living_tasks,
    make_agent,
    nothing_left,
    request,
    respond,
    result,
    said,
    store_of,
    tool,
    user,
)
from support.scripted import Scripted, answer, calling

from trio_agent.errors import AgentError
from trio_agent.providers.contract import ProviderRequest
from trio_agent.statemachine import Turn
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import ToolCall
from trio_agent.testing import open_test_agent
from trio_agent.turn.context import TurnContext
from trio_agent.world import CountingWorld


async def test_a_bug_is_not_taken_for_a_client_that_left(autojump_clock: trio.abc.Clock) -> None:
    """Whoever listens to a turn hears of the server's failure, while the turn is being cancelled for it."""

    async def fine() -> str:
        """Fine."""
        return "fine"

    class Listening(TurnContext):
        listens = True

        def leaving(self, event: ev.Event, *, told: bool) -> None:
            left.append(type(event))

    class Broken:
        tools = ()

        async def run(self, call: ToolCall) -> object:
            raise RuntimeError("bug")

    left: list[type] = []
    agent = make_agent(Scripted(calling(("c", "fine")), answer("never")), tools=[fine])
    admitted = await agent.admit(request(), context=Listening(agent.world))
    driver = admitted.make_driver(Collector())
    driver._performer._tools = Broken()  # type: ignore[assignment]
    await driver.run(admitted.first)
    assert store_of(agent).only.reason == "internal_error"
    assert set(left) == {ev.ServerFailed}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("how", ["failing", "hanging"])
async def test_without_a_row_no_model_is_called(
    autojump_clock: trio.abc.Clock, how: str, stream: bool
) -> None:
    """A turn that cannot be opened is 503 `store_unavailable`, in bounded time."""
    lab = Scripted(answer("never"))
    agent = make_agent(lab)
    getattr(store_of(agent), how).update({"open_turn", "close_turn"})
    with nothing_left(lab):
        sink = await respond(agent, request(stream=stream))
    assert sink.kinds == ["Reject"]
    assert sink.problem.code == "store_unavailable"
    assert sink.problem.retry_after
    assert lab.calls == []
    assert trio.current_time() <= 21


@pytest.mark.parametrize(("stream", "told"), [(True, fx.SendError), (False, fx.Reject)])
@pytest.mark.parametrize("how", ["failing", "hanging"])
async def test_an_answer_without_an_outcome_is_not_called_complete(
    autojump_clock: trio.abc.Clock, how: str, stream: bool, told: type
) -> None:
    """When the outcome cannot be written the response ends in an error, not in `stop`."""
    lab = Scripted(answer("Hello"))
    agent = make_agent(lab)
    getattr(store_of(agent), how).add("close_turn")
    with nothing_left(lab):
        sink = await respond(agent, request(stream=stream))
    assert type(sink.last) is told
    assert sink.problem.code == "store_unavailable"
    assert not sink.of(fx.Finish)
    assert trio.current_time() <= 11
    assert store_of(agent).only.outcome == "running"  # until the store takes it, see below


@pytest.mark.parametrize(("stream", "told"), [(True, fx.SendError), (False, fx.Reject)])
@pytest.mark.parametrize("how", ["failing", "hanging"])
async def test_a_park_that_is_not_durable_is_no_park(
    autojump_clock: trio.abc.Clock, how: str, stream: bool, told: type
) -> None:
    """The client must not be sent off to run tools for a turn that nobody could resume."""
    lab = Scripted(calling(("h", "read_file")))
    agent = make_agent(lab)
    getattr(store_of(agent), how).add("park_turn")
    sink = await respond(agent, request(stream=stream, tools=(tool(),)))
    assert type(sink.last) is told
    assert sink.problem.code == "store_unavailable"
    assert not sink.of(fx.Finish)
    row = store_of(agent).only
    assert (row.outcome, row.reason) == ("failed", "store_unavailable")
    assert store_of(agent).endings[row.id] == 1
    assert row.usage.total_tokens == 15


@pytest.mark.parametrize("method", ["find_parks", "get_turn", "take_park", "find_reasoning"])
async def test_a_store_that_cannot_be_read_is_a_503(autojump_clock: trio.abc.Clock, method: str) -> None:
    """Resuming and ordinary turns alike are refused before anything is spent."""
    lab = Scripted(calling(("h", "read_file")), answer("ok"))
    agent = make_agent(lab)
    await respond(agent, request(tools=(tool(),)))
    store_of(agent).failing.add(method)
    if method == "find_reasoning":
        store_of(agent).parks.clear()
    history = (user(), said("", ToolCall("h", "read_file", "{}")), result("h"))
    with pytest.raises(AgentError) as caught:
        await agent.admit(request(*history, tools=(tool(),)))
    assert (caught.value.code, caught.value.status) == ("store_unavailable", 503)
    assert len(lab.calls) == 1


async def test_a_slow_store_costs_time_and_nothing_else(autojump_clock: trio.abc.Clock) -> None:
    """Content that was said already goes out before the disk has answered."""
    lab = Scripted(answer("Hello"))
    agent = make_agent(lab)
    store_of(agent).delay = 3.0
    sink = Collector()
    admitted = await agent.admit(request())
    began = trio.current_time()
    await agent.run(admitted, sink)
    assert [at - began for at in sink.times] == [3.0, 6.0]


async def test_a_turn_that_times_out_on_a_slow_store_still_tells_its_client(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Writing the outcome takes longer than a client is waited for; the client is told after it."""
    lab = Scripted([999.0])
    agent = make_agent(lab, server={"turn_timeout": 20})
    store_of(agent).delay = 2.0
    with nothing_left(lab):
        sink = await respond(agent, request(stream=False))
    assert sink.problem.code == "turn_timeout"
    assert store_of(agent).only.reason == "timeout"


async def test_an_answer_that_is_being_written_down_when_time_is_up_is_whole(
    autojump_clock: trio.abc.Clock,
) -> None:
    """The turn's time ends while its outcome is on the way to the disk: completed, and told so."""
    lab = Scripted([17.0, *answer("Hello")])
    agent = make_agent(lab, server={"turn_timeout": 20})
    store_of(agent).delay = 5.0  # the answer is there after 17 seconds, its outcome after 22
    sink = Collector()
    admitted = await agent.admit(request())
    with nothing_left(lab):
        await agent.run(admitted, sink)
    assert sink.kinds[-1] == "Finish"
    assert {row.outcome for row in store_of(agent).turns.values()} == {"completed"}


async def test_a_bug_in_a_sink_is_recorded_as_the_server_s(autojump_clock: trio.abc.Clock) -> None:
    """A write that raises something else ends the turn as `internal_error`; nothing escapes."""

    class Broken(Collector):
        async def send(self, outputs: object) -> None:
            raise RuntimeError("bug")

    lab = Scripted(answer("Hello"))
    agent = make_agent(lab)
    before = living_tasks()
    await respond(agent, request(), Broken())
    assert living_tasks() == before
    row = store_of(agent).only
    assert (row.outcome, row.reason) == ("failed", "internal_error")
    assert store_of(agent).endings[row.id] == 1


@pytest.mark.parametrize("gone", [False, True])
async def test_a_bug_elsewhere_is_told_to_the_client(autojump_clock: trio.abc.Clock, gone: bool) -> None:
    """A tool box that breaks its contract ends the turn with an error that a client sees."""

    async def fine() -> str:
        """Fine."""
        return "fine"

    class Broken:
        tools = ()

        async def run(self, call: ToolCall) -> object:
            raise RuntimeError("bug")

    lab = Scripted(calling(("c", "fine")), answer("never"))
    agent = make_agent(lab, tools=[fine])
    sink = Collector(gone_after=0 if gone else None)
    admitted = await agent.admit(request())
    driver = admitted.make_driver(sink)
    driver._performer._tools = Broken()  # type: ignore[assignment]
    await driver.run(admitted.first)
    if gone:
        assert not sink.of(fx.Reject)
    else:
        assert sink.problem.code == "internal_error"
    assert store_of(agent).only.reason == "internal_error"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("broken", range(8))
async def test_whichever_write_fails_nothing_is_claimed_that_is_not_there(
    autojump_clock: trio.abc.Clock, broken: int, stream: bool
) -> None:
    """A store that fails from its n-th call on: a response that was told to be whole is written."""

    class Failing(MemoryStore):
        count = 0

        async def _io(self, method: str) -> None:
            self.count += 1
            if self.count > broken:
                self.failing.add(method)
            await super()._io(method)

    lab = Scripted(calling(("h", "read_file")), answer("ok"))
    store = Failing(CountingWorld(clock=trio.current_time).now)
    agent = make_agent(lab, store=store)
    history = (user(), said("", ToolCall("h", "read_file", "{}")), result("h"))
    refusals = set()
    with nothing_left(lab):
        for messages in ((user(),), history):
            sink = Collector()
            try:
                await respond(agent, request(*messages, stream=stream, tools=(tool(),)), sink)
            except AgentError as error:
                refusals.add(error.code)
                continue
            outcomes = [row.outcome for row in store.turns.values()]
            if sink.of(fx.Finish):
                assert outcomes[-1] in ("completed", "parked")
            else:
                assert sink.problem.code == "store_unavailable"
    assert refusals <= {"store_unavailable"}
    assert all(count == 1 for count in store.endings.values())


async def test_a_resume_that_cannot_be_opened_costs_nothing(autojump_clock: trio.abc.Clock) -> None:
    """No call was made, so the repeat of the request finds the turn's sums and its numbers as they were."""
    lab = Scripted(calling(("h", "read_file")), answer("ok"))
    agent = make_agent(lab)
    await respond(agent, request(tools=(tool(),)))
    store = store_of(agent)
    cost = store.only.cost_usd
    history = (user(), said("", ToolCall("h", "read_file", "{}")), result("h"))
    store.failing.add("open_turn")
    sink = await respond(agent, request(*history, tools=(tool(),)))
    assert (sink.kinds, sink.problem.code) == (["Reject"], "store_unavailable")
    assert (store.only.outcome, store.only.cost_usd) == ("parked", cost)
    store.failing.clear()
    await respond(agent, request(*history, tools=(tool(),)))
    rows = store.calls[store.only.id]
    assert [row.number for row in rows] == [1, 2]
    assert cost is not None
    assert store.only.cost_usd == sum(row.cost_usd for row in rows if row.cost_usd is not None) == 2 * cost
    assert store.only.usage_source == "provider"


@pytest.mark.parametrize("how", ["the client leaves", "the server stops"])
async def test_a_turn_that_ends_while_its_row_is_written_has_called_no_model(
    autojump_clock: trio.abc.Clock, how: str
) -> None:
    """The call was asked for and never made: no row of it, no unknown cost, also when a park is put back."""
    lab = Scripted(calling(("h", "read_file")), answer("ok"))
    agent = make_agent(lab, server={"turn_timeout": 3})
    await respond(agent, request(tools=(tool(),)))
    store = store_of(agent)
    cost = store.only.cost_usd
    history = (user(), said("", ToolCall("h", "read_file", "{}")), result("h"))
    admitted = await agent.admit(request(*history, tools=(tool(),)))
    store.delay = 5
    with trio.CancelScope() as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent.run, admitted, Collector())
            await trio.sleep(1)
            if how == "the client leaves":
                client.cancel()
            else:
                nursery.start_soon(agent.stop_turns)
    assert len(lab.calls) == 1
    assert (store.only.outcome, store.only.cost_usd, store.only.usage_source) == ("parked", cost, "provider")
    assert [row.number for row in store.calls[store.only.id]] == [1]


async def test_a_bug_before_a_call_is_made_leaves_the_cost_known(autojump_clock: trio.abc.Clock) -> None:
    """What failed costs nothing: the turn's sum is that of the calls that were made."""

    async def look() -> str:
        """Look."""
        return "a house"

    lab = Scripted(calling(("s", "look")), answer("never"))
    agent = make_agent(lab, tools=[look])
    admitted = await agent.admit(request())
    driver = admitted.make_driver(Collector())
    build = driver._build_request

    def build_once(turn: Turn, nonce: str) -> ProviderRequest:
        if lab.calls:
            raise LookupError("a bug of the server's")
        return build(turn, nonce)

    driver._build_request = build_once
    await driver.run(admitted.first)
    store = store_of(agent)
    (call,) = store.model_calls
    assert call.cost_usd is not None
    assert (store.only.reason, store.only.cost_usd) == ("internal_error", call.cost_usd)


async def test_a_shutdown_is_not_why_a_client_had_left(autojump_clock: trio.abc.Clock) -> None:
    """The client left while the row was written; what came later is not the reason, and is told to nobody."""
    lab = Scripted(answer("never"))
    agent = make_agent(lab)
    store = store_of(agent)
    admitted = await agent.admit(request())
    store.delay = 5
    sink = Collector()
    with trio.CancelScope() as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent.run, admitted, sink)
            await trio.sleep(1)
            client.cancel()
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
                agent.end_as("shutdown")
                await agent.stop_turns()
    assert (store.only.outcome, store.only.reason) == ("cancelled", "client_disconnected")
    assert sink.outputs == []


@pytest.mark.parametrize("how", ["failing", "hanging"])
@pytest.mark.parametrize("resumed", [False, True])
async def test_an_outcome_that_was_not_taken_is_brought_again(
    autojump_clock: trio.abc.Clock, how: str, resumed: bool
) -> None:
    """The store comes back after a minute: the turn is a failure, and its calls and cost are recorded."""
    lab = Scripted(calling(("h", "read_file")), answer("Hello"))
    world = CountingWorld(clock=trio.current_time)
    store = MemoryStore(world.now)
    async with open_test_agent(lab, store=store, world=world) as agent:
        history = [user()]
        if resumed:
            await respond(agent, request(*history, tools=(tool(),)))
            history += [said("", ToolCall("h", "read_file", "{}")), result("h")]
        getattr(store, how).update({"close_turn", "park_turn", "close_late"})
        sink = await respond(agent, request(*history, tools=(tool(),)))
        assert sink.problem.code == "store_unavailable"
        await trio.sleep(60)
        assert store.only.outcome == "running"
        getattr(store, how).clear()
        await trio.sleep(60)
        row = store.only
        assert (row.outcome, row.reason, row.error) == ("failed", "store_unavailable", ANY)
        assert row.ended_at is not None
        assert row.ended_at < 1_700_000_060
        assert store.endings == {row.id: 1}
        assert store.parks == {}
        assert len(store.model_calls) == (2 if resumed else 1)
        assert row.usage.total_tokens == 15 * len(store.model_calls)


async def test_what_is_still_owed_at_the_end_is_tried_once_more(autojump_clock: trio.abc.Clock) -> None:
    """A server that ends before it tried again has lost nothing, and waits for no store that is away."""
    for back in (True, False):
        lab = Scripted(answer("Hello"))
        world = CountingWorld(clock=trio.current_time)
        store = MemoryStore(world.now)
        async with open_test_agent(lab, store=store, world=world) as agent:
            store.hanging |= {"close_turn", "close_late"}
            await respond(agent, request())
            if back:
                store.hanging.clear()
            began = trio.current_time()
        assert (store.only.outcome == "failed") is back
        assert trio.current_time() - began <= 2
