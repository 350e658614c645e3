"""A resumed response that fails before its client has seen anything: a repeat goes on with the turn."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from support.memory_store import MemoryStore
from support.rig import (
    PRICE,
    Collector,
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
from support.scripted import HANG, Scripted, answer, calling, ending, text

from trio_agent.agent import Agent
from trio_agent.providers.contract import ModelInfo, UpstreamError
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import Message, ToolCall
from trio_agent.store.contract import ParkRow, Store, TurnRow
from trio_agent.store.sqlite import open_store
from trio_agent.turn.request import TurnRequest

READ = ToolCall("h1", "read_file", "{}")
CONTINUED = (user(), said("", READ), result("h1"))
NO_KEY = UpstreamError("unauthorized", "The key is wrong.", status=401)


def asking(*messages: Message, **fields: Any) -> TurnRequest:
    return request(*messages, **({"tools": (tool(),)} | fields))


async def parked(agent: Agent, **fields: Any) -> TurnRow:
    """A turn that waits for one result; its tool `count`, if it has one, has run once."""
    sink = await respond(agent, asking(**fields))
    assert isinstance(sink.last, fx.Finish)
    (row,) = await agent.store.list_turns()
    return row


async def park_of(store: Store) -> ParkRow:
    (park,) = await store.find_parks("", ["h1"])
    return park


def first() -> list[Any]:
    return calling(("h1", "read_file"))


@pytest.mark.parametrize("stream", [True, False])
async def test_a_repeat_after_a_status_goes_on(autojump_clock: trio.abc.Clock, stream: bool) -> None:
    """502, then the same request: the same turn, the server's tool not run again, every call counted once."""
    ran: list[int] = []

    async def count() -> str:
        """Has an effect."""
        ran.append(1)
        return "counted"

    running: list[TurnRow] = []

    async def look(_call: object) -> None:
        running.append(store_of(agent).only)

    lab = Scripted(calling(("s1", "count"), ("h1", "read_file")), [NO_KEY], [look, *answer("It says 42")])
    agent = make_agent(lab, tools=[count])
    history = (user(), said("", READ), result("h1"))
    with nothing_left(lab):
        row = await parked(agent)
        before = await park_of(agent.store)
        failed = await respond(agent, asking(*history, stream=stream))
        assert failed.kinds == ["Reject"]
        assert (failed.problem.code, failed.problem.upstream_status) == ("upstream_error", 401)
        between = store_of(agent).only
        assert (between.outcome, between.reason, between.state) == (
            "parked",
            "upstream_error",
            "host_tool_wait",
        )
        assert between.error is not None
        assert (between.ended_at, between.committed_by) == (None, None)
        after = await park_of(agent.store)
        assert (after.call_ids, after.history, after.created_at, after.expires_at) == (
            before.call_ids,
            before.history,
            before.created_at,
            before.expires_at,
        )
        admitted = await agent.admit(asking(*history, stream=stream))
        assert admitted.turn_id == row.id
        sink = Collector()
        await agent.run(admitted, sink)
    assert sink.text == "It says 42"
    assert len(ran) == 1
    assert [(each.outcome, each.reason, each.error) for each in running] == [("running", None, None)]
    told = lab.calls[2].request.messages
    assert told == lab.calls[1].request.messages
    assert [each.tool_call_id for each in told[-1].tool_results] == ["s1", "h1"]
    done = store_of(agent).only
    assert (done.outcome, done.error, done.usage.total_tokens) == ("completed", None, 30)
    assert done.cost_usd == sum(call.cost_usd or Decimal(0) for call in store_of(agent).model_calls)
    assert [(call.number, call.failure is None) for call in store_of(agent).model_calls] == [
        (1, True),
        (2, False),
        (3, True),
    ]
    assert [each.state for each in done.states if each.state in ("resumed", "host_tool_wait")] == [
        "host_tool_wait",
        "resumed",
    ] * 2
    assert store_of(agent).endings[row.id] == 1
    assert store_of(agent).parks == {}


@pytest.mark.parametrize(
    ("waits", "stream"),
    [([HANG], True), ([HANG], False), ([text("It"), HANG], False), ([[], NO_KEY], True)],
    ids=["silent", "silent whole", "half an answer unseen", "at the end of the call"],
)
@pytest.mark.parametrize("drain", ["cancel", "drain"])
async def test_a_client_that_leaves_may_come_back(
    autojump_clock: trio.abc.Clock, waits: list[Any], stream: bool, drain: Any
) -> None:
    """Nothing was seen of the response, so the turn waits as before, and what the client left is counted."""
    lab = Scripted(first(), [1.0, *waits], answer("It says 42"))
    lab.limits = type(lab.limits)(on_disconnect=drain, drain_timeout=0.5)
    agent = make_agent(lab)
    with nothing_left(lab):
        row = await parked(agent)
        with trio.move_on_after(1.0 if waits[0] == [] else 2.0):
            await respond(agent, asking(*CONTINUED, stream=stream))
        between = store_of(agent).only
        assert between.outcome == "parked"
        assert len(store_of(agent).model_calls) == 2
        sink = await respond(agent, asking(*CONTINUED, stream=stream))
    assert sink.text == "It says 42"
    assert store_of(agent).only.outcome == "completed"
    assert store_of(agent).only.id == row.id


@pytest.mark.parametrize(
    "script",
    [[text("It"), UpstreamError("truncated", "cut")], [text("It"), [READ], ending()]],
    ids=["cut", "out of contract"],
)
async def test_an_answer_that_was_never_shown_is_forgotten(
    autojump_clock: trio.abc.Clock, script: list[Any]
) -> None:
    """Not streamed, an answer that breaks off in the middle leaves nothing in the conversation."""
    lab = Scripted(first(), script, answer("It says 42"))
    agent = make_agent(lab)
    await parked(agent)
    failed = await respond(agent, asking(*CONTINUED, stream=False))
    assert isinstance(failed.last, fx.Reject)
    assert store_of(agent).only.outcome == "parked"
    sink = await respond(agent, asking(*CONTINUED, stream=False))
    assert sink.text == "It says 42"
    assert lab.calls[2].request.messages == lab.calls[1].request.messages


async def test_a_client_that_leaves_as_the_call_fails_may_come_back(autojump_clock: trio.abc.Clock) -> None:
    """The failure and the leaving come in the same step: the park is put back all the same."""
    scope = trio.CancelScope()

    async def leave(_call: object) -> None:
        scope.cancel()

    out_of_contract = [*text("It"), ev.ToolCallDelta(0, "{}")]
    lab = Scripted(first(), [leave, out_of_contract], answer("It says 42"))
    agent = make_agent(lab)
    await parked(agent)
    with nothing_left(lab), scope:
        await respond(agent, asking(*CONTINUED, stream=False))
    assert (store_of(agent).only.outcome, store_of(agent).only.reason) == ("parked", "client_disconnected")
    assert (await respond(agent, asking(*CONTINUED))).text == "It says 42"


async def test_half_an_answer_ends_the_turn(autojump_clock: trio.abc.Clock) -> None:
    """What the client has seen cannot be taken back: the turn failed, and a repeat is an ordinary one."""
    lab = Scripted(first(), [text("It"), UpstreamError("truncated", "cut")], answer("It says 42"))
    agent = make_agent(lab)
    row = await parked(agent)
    sink = await respond(agent, asking(*CONTINUED))
    assert isinstance(sink.last, fx.SendError)
    ended = await agent.store.get_turn(row.id)
    assert ended is not None
    assert (ended.outcome, ended.reason) == ("failed", "truncated")
    assert store_of(agent).parks == {}
    admitted = await agent.admit(asking(*CONTINUED))
    assert admitted.turn_id != row.id


async def test_the_window_ends_the_chance(autojump_clock: trio.abc.Clock) -> None:
    """Once the role is out the response is committed, so its failure is the turn's."""
    lab = Scripted(first(), [6.0, NO_KEY])
    agent = make_agent(lab)
    await parked(agent)
    sink = await respond(agent, asking(*CONTINUED))
    assert isinstance(sink.last, fx.SendError)
    assert store_of(agent).only.outcome == "failed"
    assert store_of(agent).parks == {}


@pytest.mark.parametrize(
    ("limits", "code", "repeats"),
    [({"max_model_calls": 3}, "max_model_calls", 2), ({"max_cost_usd": "1.5"}, "budget_exceeded", 1)],
)
async def test_repeats_do_not_get_round_the_limits(
    autojump_clock: trio.abc.Clock, limits: dict[str, Any], code: str, repeats: int
) -> None:
    """Calls and money of responses that failed count; a limit that is reached ends the turn for good."""
    used_and_cut = [ending(tokens=(10, 10))[:1], UpstreamError("rate_limited", "Slow down.")]
    lab = Scripted(first(), used_and_cut)
    agent = make_agent(lab, agent=limits)
    await parked(agent)
    codes = [(await respond(agent, asking(*CONTINUED))).problem.code for _ in range(repeats + 1)]
    assert codes == ["rate_limited"] * repeats + [code]
    row = store_of(agent).only
    assert (row.outcome, row.reason) == ("failed", code)
    assert len(lab.calls) == 1 + repeats
    assert row.usage.total_tokens == 15 + 20 * repeats
    spent = Decimal("0.6") + repeats * (10 * PRICE.input + 10 * PRICE.output)
    assert row.cost_usd == spent
    assert store_of(agent).parks == {}


async def test_a_repeat_does_not_prolong_the_wait(autojump_clock: trio.abc.Clock) -> None:
    """The park expires when it would have expired; one that is taken does not expire under its taker."""
    lab = Scripted(first(), [3.0, NO_KEY], answer("It says 42"))
    agent = make_agent(lab, server={"host_tool_ttl": 100})
    row = await parked(agent)
    await trio.sleep(98)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(respond, agent, asking(*CONTINUED))
        await trio.sleep(2.5)
        assert await agent.store.expire_parks(agent.world.now()) == 0
    assert store_of(agent).only.outcome == "parked"
    assert await agent.store.find_parks("", ["h1"]) == []
    assert await agent.store.expire_parks(agent.world.now()) == 1
    ended = store_of(agent).only
    assert (ended.outcome, ended.reason) == ("abandoned", "host_tool_timeout")
    assert (await agent.admit(asking(*CONTINUED))).turn_id != row.id


@pytest.mark.parametrize("real", [False, True], ids=["memory", "sqlite"])
async def test_of_twenty_repeats_one_goes_on(tmp_path: Path, real: bool) -> None:
    """The park that was put back is taken once again, and no more."""
    lab = Scripted(first(), [NO_KEY], answer("It says 42"))

    async def race(agent: Agent) -> None:
        with nothing_left(lab):
            row = await parked(agent)
            await respond(agent, asking(*CONTINUED))
            sinks = [Collector() for _ in range(20)]
            async with trio.open_nursery() as nursery:
                for sink in sinks:
                    nursery.start_soon(respond, agent, asking(*CONTINUED), sink)
        assert [sink.text for sink in sinks] == ["It says 42"] * 20
        rows = await agent.store.list_turns()
        assert [each.outcome for each in rows] == ["completed"] * 20
        (gone_on,) = [each for each in rows if any(state.state == "resumed" for state in each.states)]
        assert gone_on.id == row.id
        assert gone_on.usage.total_tokens == 30
        assert [call.number for call in await agent.store.list_calls(row.id)] == [1, 2, 3]

    if not real:
        await race(make_agent(lab))
        return
    async with open_store(tmp_path / "store.db", instance_id="one", now=lambda: 1_700_000_000.0) as store:
        await race(make_agent(lab, store=store))


async def test_a_request_that_looked_too_early_takes_no_old_park(autojump_clock: trio.abc.Clock) -> None:
    """Between its look and its grip another response failed: what that one spent must not be forgotten."""
    lab = Scripted(first(), [NO_KEY], answer("It says 42"))
    agent = make_agent(lab)
    row = await parked(agent)
    store = store_of(agent)
    look = store.get_turn

    async def slow_look(turn_id: str) -> TurnRow | None:
        store.get_turn = look  # type: ignore[method-assign]
        found = await look(turn_id)
        await respond(agent, asking(*CONTINUED))
        return found

    store.get_turn = slow_look  # type: ignore[method-assign]
    assert (await agent.admit(asking(*CONTINUED))).turn_id != row.id
    assert store.only.outcome == "parked"
    await respond(agent, asking(*CONTINUED))
    assert [call.number for call in store.model_calls] == [1, 2, 3]


async def test_a_fallback_that_failed_is_not_asked_first(autojump_clock: trio.abc.Clock) -> None:
    """The model that called the tool goes on, however many candidates the failed response went through."""
    models = [ModelInfo(id="lab-1"), ModelInfo(id="lab-2")]
    lab = Scripted(first(), [NO_KEY], [NO_KEY], answer("It says 42"), models=models)
    agent = make_agent(lab, routing={"roles": {"both": ["lab-1", "lab-2"]}})
    await parked(agent, model=None, role="both")
    failed = await respond(agent, asking(*CONTINUED, model=None, role="both"))
    assert failed.problem.code == "all_candidates_failed"
    sink = await respond(agent, asking(*CONTINUED, model=None, role="both"))
    assert sink.text == "It says 42"
    assert [call.request.model for call in lab.calls] == ["lab-1", "lab-1", "lab-2", "lab-1"]
    assert store_of(agent).only.outcome == "completed"


async def test_a_repeat_that_calls_tools_again_parks_anew(autojump_clock: trio.abc.Clock) -> None:
    """After a repeat the turn may park again, with a new wait, matched by the longer history."""
    lab = Scripted(first(), [NO_KEY], calling(("h2", "read_file")), [NO_KEY], answer("done"))
    agent = make_agent(lab)
    await parked(agent)
    await respond(agent, asking(*CONTINUED))
    await respond(agent, asking(*CONTINUED))
    longer = (*CONTINUED, said("", ToolCall("h2", "read_file", "{}")), result("h2"))
    assert isinstance((await respond(agent, asking(*longer))).last, fx.Reject)
    assert (await respond(agent, asking(*longer))).text == "done"
    row = store_of(agent).only
    assert (row.outcome, row.usage.total_tokens) == ("completed", 45)
    assert [call.number for call in store_of(agent).model_calls] == [1, 2, 3, 4, 5]


# --- a store that fails -----------------------------------------------------------------------------------


async def test_a_response_that_could_not_be_opened_may_be_repeated(autojump_clock: trio.abc.Clock) -> None:
    """503, no model call, and the park is there again as soon as the store takes a write."""
    lab = Scripted(first(), answer("It says 42"))
    agent = make_agent(lab)
    await parked(agent)
    store_of(agent).failing.add("open_turn")
    sink = await respond(agent, asking(*CONTINUED))
    assert sink.problem.code == "store_unavailable"
    assert len(lab.calls) == 1
    store_of(agent).failing.clear()
    assert (await respond(agent, asking(*CONTINUED))).text == "It says 42"
    assert store_of(agent).only.outcome == "completed"


@pytest.mark.parametrize("how", ["failing", "hanging"])
async def test_a_park_that_cannot_be_put_back_ends_the_turn(autojump_clock: trio.abc.Clock, how: str) -> None:
    """The client hears of the store, in bounded time, and the outcome is one."""
    lab = Scripted(first(), [NO_KEY])
    agent = make_agent(lab)
    row = await parked(agent)
    getattr(store_of(agent), how).add("park_turn")
    with nothing_left(lab):
        sink = await respond(agent, asking(*CONTINUED))
    assert sink.kinds == ["Reject"]
    assert sink.problem.code == "store_unavailable"
    assert trio.current_time() <= 21
    ended = store_of(agent).only
    assert (ended.outcome, ended.reason) == ("failed", "store_unavailable")
    assert store_of(agent).endings[row.id] == 1
    assert len(store_of(agent).model_calls) == 2


async def test_a_client_that_leaves_a_slow_disk_finds_its_park(autojump_clock: trio.abc.Clock) -> None:
    """The write that puts the park back is not torn by the client that leaves while it runs."""
    lab = Scripted(first(), [NO_KEY], answer("It says 42"))
    agent = make_agent(lab)
    await parked(agent)
    store: MemoryStore = store_of(agent)
    admitted = await agent.admit(asking(*CONTINUED))
    store.delay = 2.0
    with trio.move_on_after(3.0):  # the turn's row takes 2 s, the park another 2 s
        await agent.run(admitted, Collector())
    assert trio.current_time() == 4.0
    store.delay = 0.0
    assert store.only.outcome == "parked"
    assert (await respond(agent, asking(*CONTINUED))).text == "It says 42"


async def test_a_server_that_stops_leaves_the_turn_to_the_next_one(autojump_clock: trio.abc.Clock) -> None:
    """503 `server_shutdown` for the response that ran; the repeat goes on elsewhere, on the same store."""
    lab = Scripted(first(), [HANG], answer("It says 42"))
    agent = make_agent(lab)
    row = await parked(agent)
    sink = Collector()
    with nothing_left(lab):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(respond, agent, asking(*CONTINUED), sink)
            await trio.testing.wait_all_tasks_blocked()
            agent.drain()
            await agent.stop_turns()
    assert sink.kinds == ["Reject"]
    assert (sink.problem.code, sink.problem.retryable) == ("server_shutdown", True)
    stopped = store_of(agent).only
    assert (stopped.outcome, stopped.reason) == ("parked", "shutdown")
    following = make_agent(lab, store=agent.store)
    admitted = await following.admit(asking(*CONTINUED))
    assert admitted.turn_id == row.id
    await following.run(admitted, sink := Collector())
    assert sink.text == "It says 42"
