"""`/metrics`: what is counted of turns, what is read, who may see it, and how much it can grow."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio
from observing.metric_reading import OPEN_METRICS, Page, page_of
from support.memory_store import MemoryStore

from trio_agent.config.load import Draft
from trio_agent.observing.metrics import MOST_NAMES, Metrics
from trio_agent.opening import open_agent
from trio_agent.providers.contract import CallLimits, ModelInfo
from trio_agent.statemachine.conversation import Usage
from trio_agent.store.contract import StateAt, StoreError, TurnRow
from trio_agent.sweeping import sweep
from trio_agent.testing import (
    Client,
    ScriptedProvider,
    calls,
    client,
    fails,
    hangs,
    open_test_agent,
    pause,
    says,
)
from trio_agent.testing import text as words
from trio_agent.world import CountingWorld

READ = {"type": "function", "function": {"name": "read_file", "parameters": {"type": "object"}}}
TOKENS = Usage(100, 50, cached_input_tokens=30, cache_write_tokens=20, reasoning_tokens=10)


async def lookup() -> str:
    """Look something up."""
    return "found"


async def broken() -> str:
    """Fail."""
    raise RuntimeError("no")


async def shown(user: Client) -> Page:
    return page_of(await user.get("/metrics"))


async def test_turns_are_counted_by_how_they_ended(autojump_clock: trio.abc.Clock) -> None:
    """Completed, failed and parked turns, each in its own series; only streams have a first content."""
    provider = ScriptedProvider(
        [
            says("Hello"),
            [pause(0.3), words("Hel"), pause(1), words("lo"), *says("!")],
            fails("rejected", status=400),
            calls("read_file"),
            says("I see"),
        ]
    )
    async with open_test_agent(provider, config={"server": {"max_concurrent_turns": 1}}) as agent:
        user = client(agent)
        await user.say()
        await user.say(stream=True)
        await user.say()
        parked = await user.say(tools=[READ])
        message = parked.json()["choices"][0]["message"]
        result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "42"}
        asked = {"role": "user", "content": "Hello"}
        body = {"model": "scripted", "messages": [asked, message, result], "tools": [READ]}
        page = await shown(user)
        assert page.one("trio_agent_turns_parked") == 1
        assert page.one("trio_agent_store_size_bytes") == await agent.store.size()
        assert (await user.ask(body)).status == 200
        page = await shown(user)
    turns = page.of("trio_agent_turns_total", face="chat", provider="scripted", model="scripted")
    assert turns == {
        ("completed", "stop", "streaming"): 3,
        ("failed", "upstream_rejected", "preflight"): 1,
        ("parked", "tool_calls", "host_tool_wait"): 1,
    }
    assert page.one("trio_agent_turns_parked") == 0
    durations = page.of("trio_agent_turn_duration_seconds_sum", face="chat", outcome="completed")
    assert durations[()] == pytest.approx(1.3)
    assert page.one("trio_agent_time_to_first_content_seconds_count") == 1
    assert page.one("trio_agent_time_to_first_content_seconds_sum") == pytest.approx(0.3)
    assert page.of("trio_agent_model_calls_total", provider="scripted") == {
        ("scripted", "completed"): 4,
        ("scripted", "rejected"): 1,
    }
    assert page.one("trio_agent_upstream_errors_total", provider="scripted", kind="rejected") == 1


async def test_model_calls_tokens_and_cost(autojump_clock: trio.abc.Clock) -> None:
    """Retries, fallbacks, classes of tokens that add up, cost as far as it is known."""
    unavailable = fails("unavailable", status=503)
    priced = says("Hi", usage=TOKENS, cost_usd=Decimal("0.0125"))
    first = ScriptedProvider(
        [unavailable, unavailable, fails("refused"), priced],
        name="first",
        models=[ModelInfo(id="small")],
        limits=CallLimits(max_retries=1),
    )
    second = ScriptedProvider([says("Hi")], name="second", models=[ModelInfo(id="other")])
    roles = {"routing": {"roles": {"quick": ["first/small", "second/other"]}}}
    async with open_test_agent(first, second, config=roles) as agent:
        user = client(agent)
        body = {"messages": [{"role": "user", "content": "Hi"}], "routing_hint": {"role": "quick"}}
        assert (await user.ask(body)).status == 200
        assert (await user.say(model="first/small")).status == 200
        page = await shown(user)
    assert page.one("trio_agent_model_call_retries_total", provider="first") == 2
    assert page.of("trio_agent_fallbacks_total") == {("other", "second"): 1}
    assert page.of("trio_agent_upstream_errors_total", provider="first") == {
        ("unavailable",): 2,
        ("refused",): 1,
    }
    assert page.of("trio_agent_tokens_total", provider="first", model="small") == {
        ("input",): 50, ("cached_input",): 30, ("cache_write",): 20, ("output",): 40, ("reasoning",): 10,
    }  # fmt: skip
    assert page.of("trio_agent_cost_usd_total")[("small", "first")] == 0.0125
    assert page.one("trio_agent_model_calls_unpriced_total", provider="second") == 1
    assert page.of("trio_agent_model_calls_unpriced_total", provider="first") == {}, "none was answered"


async def test_tools_are_counted_in_the_answer_that_ran_them(autojump_clock: trio.abc.Clock) -> None:
    """By name and result; a turn that is parked and goes on does not count them again."""
    provider = ScriptedProvider([calls("lookup", "broken"), calls("read_file"), says("Done")])
    async with open_test_agent(provider, tools=[lookup, broken]) as agent:
        user = client(agent)
        message = (await user.say(tools=[READ])).json()["choices"][0]["message"]
        await trio.sleep(5)
        result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "42"}
        asked = {"role": "user", "content": "Hello"}
        await user.ask({"model": "scripted", "messages": [asked, message, result], "tools": [READ]})
        page = await shown(user)
    assert page.one("trio_agent_turns_total", outcome="completed") == 1
    assert page.of("trio_agent_tool_runs_total") == {("completed", "lookup"): 1, ("failed", "broken"): 1}
    assert page.one("trio_agent_tool_duration_seconds_count") == 2


async def test_a_call_that_was_cut_off_may_have_been_billed(autojump_clock: trio.abc.Clock) -> None:
    """It counts among those whose cost is not known, and one that was refused does not."""
    steps = [fails("unavailable", status=503), [words("Hel"), *fails("truncated")], fails("rejected")]
    async with open_test_agent(ScriptedProvider(steps)) as agent:
        user = client(agent)
        await user.say(stream=True)
        await user.say()
        page = await shown(user)
    assert page.of("trio_agent_model_calls_total") == {
        ("scripted", "scripted", "unavailable"): 1,
        ("scripted", "scripted", "truncated"): 1,
        ("scripted", "scripted", "rejected"): 1,
    }
    assert page.one("trio_agent_model_calls_unpriced_total") == 1


async def test_tools_that_a_model_makes_up_make_no_series(autojump_clock: trio.abc.Clock) -> None:
    """It may call what it likes, as often as it likes; the server's own tools keep their names."""
    made_up = [calls(*(f"fancy-{turn}-{number}" for number in range(20))) for turn in range(5)]
    provider = ScriptedProvider([*made_up, calls("lookup"), says("Done")])
    async with open_test_agent(provider, tools=[lookup]) as agent:
        user = client(agent)
        await user.say()
        page = await shown(user)
    assert page.of("trio_agent_tool_runs_total") == {("completed", "lookup"): 1, ("failed", "other"): 100}


async def test_what_runs_now_is_read(autojump_clock: trio.abc.Clock) -> None:
    """A turn that waits for its model runs; a stream is open once it has begun; later both are 0."""
    provider = ScriptedProvider([[words("Hel"), *hangs()]])
    async with open_test_agent(provider) as agent, trio.open_nursery() as nursery:
        user = client(agent)
        for stream in (True, False):
            nursery.start_soon(lambda stream=stream: user.say(stream=stream))
        await trio.sleep(1)
        page = await shown(user)
        assert page.one("trio_agent_turns_running", face="chat") == 2
        assert page.one("trio_agent_streams_open", face="chat") == 1
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
            page = await shown(user)
        assert page.of("trio_agent_turns_running") == page.of("trio_agent_streams_open") == {("chat",): 0}
    assert page.one("trio_agent_model_calls_total", result="stopped") == 2


async def test_labels_hold_nothing_that_clients_say(autojump_clock: trio.abc.Clock) -> None:
    """Unknown models, session ids, users and aliases make no series: many turns have those of one."""
    provider = ScriptedProvider([says("Hi")])
    async with open_test_agent(provider, config={"routing": {"aliases": {"nick": "scripted"}}}) as agent:
        user = client(agent)
        before: list[Any] = []
        for number in range(10):
            asked = {"role": "user", "content": f"content-{number}"}
            for model in ("scripted", "nick", f'evil-{number}"}} 1\n'):
                body = {"model": model, "messages": [asked], "user": f"user-{number}"}
                await user.ask(body, {"x-session-id": f"session-{number}"})
            before.append({(each.name, *sorted(each.labels.items())) for each in (await shown(user)).samples})
    assert before[0] == before[-1]
    assert not [
        name for name in before[0] if any("evil" in str(each) or "nick" in str(each) for each in name)
    ]


def test_names_that_are_too_many_share_one_series() -> None:
    """A provider that lists models without end does not make series without end."""
    metrics = Metrics()
    for number in range(MOST_NAMES + 50):
        row = TurnRow(
            id=f"t{number}", face="chat", model="m", created_at=0, served_model=f"m{number}", provider="p"
        )
        metrics.ended(row, ())
    (turns,) = [each for each in metrics.report().families if each.name == "trio_agent_turns"]
    assert len(turns.samples) == MOST_NAMES + 1
    assert sum(each.value for each in turns.samples) == MOST_NAMES + 50


async def test_who_may_see_it_and_in_which_form(autojump_clock: trio.abc.Clock) -> None:
    """Behind the key; text 0.0.4, or OpenMetrics for whoever asks, which a strict parser reads."""
    async with open_test_agent(ScriptedProvider([says("Hi")])) as agent:
        user = client(agent, api_key="a-key-that-is-long-enough")
        await user.say()
        stranger = await user.ask(method="GET", path="/metrics", headers={"authorization": "Bearer no"})
        assert stranger.status == 401
        plain = await user.get("/metrics")
        assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        strict = await user.ask(method="GET", path="/metrics", headers={"accept": OPEN_METRICS})
        assert strict.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert Page(strict.text, strictly=True).one("trio_agent_turns_total") == 1
        assert Page(plain.text).one("trio_agent_turns_total") == 1
        assert (await user.ask(method="POST", path="/metrics")).status == 405


async def test_a_store_that_is_out_of_reach_does_not_hide_the_rest(autojump_clock: trio.abc.Clock) -> None:
    """One that fails, and one that never answers: the page comes all the same, and says so."""
    for trouble in ("failing", "hanging"):
        world = CountingWorld(clock=trio.current_time)
        store = MemoryStore(world.now)
        async with open_test_agent(ScriptedProvider([says("Hi")]), store=store, world=world) as agent:
            user = client(agent)
            await user.say()
            getattr(store, trouble).add("count_turns")
            page = await shown(user)
        assert page.of("trio_agent_store_up") == {(): 0}
        assert "trio_agent_turns_parked" not in page.families
        assert page.one("trio_agent_turns_total") == 1


async def test_two_agents_of_a_process_count_apart(autojump_clock: trio.abc.Clock) -> None:
    """There is no registry that they share."""
    async with (
        open_test_agent(ScriptedProvider([says("Hi")])) as one,
        open_test_agent(ScriptedProvider([says("Hi")])) as other,
    ):
        await client(one).say()
        assert (await shown(client(one))).one("trio_agent_turns_total") == 1
        assert (await shown(client(other))).one("trio_agent_turns_total") == 0


async def test_the_store_is_timed(tmp_path: Path) -> None:
    """Each read and write of a real database, and each error; a caller that left is none."""
    async with open_agent({"providers": {"replay": {}}}, home=tmp_path, env={}) as agent:
        before = await shown(client(agent))
        await client(agent).say(model="demo")
        await agent.store.get_turn("turn_none")
        with trio.CancelScope() as scope:
            scope.cancel()
            await agent.store.get_turn("turn_none")
        page = await shown(client(agent))
        seconds = "trio_agent_store_operation_duration_seconds_count"
        assert page.one(seconds, operation="write") - before.one(seconds, operation="write") >= 2
        assert page.one(seconds, operation="read") > before.one(seconds, operation="read")
        assert page.one("trio_agent_store_errors_total") == 0
        metrics = agent.metrics
    with pytest.raises(StoreError):
        await agent.store.expire_parks(0.0)
    errors = next(each for each in metrics.report().families if each.name == "trio_agent_store_errors")
    assert {each.labels["operation"]: each.value for each in errors.samples} == {"read": 0, "write": 1}


async def test_parks_that_expire_are_counted(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The sweep that closes them says how many, in the log too."""
    caplog.set_level("INFO", "trio_agent")
    async with open_test_agent(
        ScriptedProvider([calls("read_file")]), config={"server": {"host_tool_ttl": 10}}
    ) as agent:
        await client(agent).say(tools=[READ])
        await trio.sleep(11)
        with trio.move_on_after(1):
            await sweep(agent.store, tuple, agent.world.now, agent.metrics.parks_expired)
        assert (await shown(client(agent))).one("trio_agent_parks_expired_total") == 1
    assert "1 parked turns were closed as abandoned" in caplog.text


async def test_a_reload_is_seen(autojump_clock: trio.abc.Clock) -> None:
    """The number of the configuration in force; the figures go on from where they were."""
    async with open_test_agent(ScriptedProvider([says("Hi")])) as agent:
        await client(agent).say()
        assert (await shown(client(agent))).one("trio_agent_config_generation") == 1
        await agent.reload(Draft(agent.config))
        page = await shown(client(agent))
    assert page.one("trio_agent_config_generation") == 2
    assert page.one("trio_agent_turns_total") == 1


async def test_the_queue_is_seen(autojump_clock: trio.abc.Clock) -> None:
    """Who waits now, how long others waited, and who was turned away."""
    config = {"server": {"max_concurrent_turns": 1, "max_queued_turns": 1, "queue_timeout": 60}}
    provider = ScriptedProvider([[pause(2), *says("Hi")]])
    async with open_test_agent(provider, config=config) as agent, trio.open_nursery() as nursery:
        user = client(agent)
        for _ in range(3):
            nursery.start_soon(user.say)
        await trio.sleep(1)
        page = await shown(user)
        assert page.one("trio_agent_queue_waiting") == 1
        assert page.one("trio_agent_queue_refusals_total") == 1
        await trio.sleep(5)
        page = await shown(user)
    assert page.one("trio_agent_queue_waiting") == 0
    assert page.one("trio_agent_queue_wait_seconds_count") == 1
    assert page.one("trio_agent_queue_wait_seconds_sum") == pytest.approx(2)
    assert page.one("trio_agent_queue_wait_seconds_bucket", le="1.0") == 0
    assert page.one("trio_agent_queue_wait_seconds_bucket", le="2.5") == 1
    assert page.one("trio_agent_queue_wait_seconds_bucket", le="+Inf") == 1


async def test_others_may_show_figures_of_theirs(autojump_clock: trio.abc.Clock) -> None:
    """A gauge is read when it is asked for; one that comes later under its name takes its place."""
    async with open_test_agent(ScriptedProvider([says("Hi")])) as agent:
        agent.metrics.watch("trio_agent_waiting", "Who waits.", lambda: {("a",): 1, ("b",): 2}, ("client",))
        assert (await shown(client(agent))).of("trio_agent_waiting") == {("a",): 1, ("b",): 2}
        agent.metrics.watch("trio_agent_waiting", "Who waits.", lambda: 7)
        assert (await shown(client(agent))).of("trio_agent_waiting") == {(): 7}


def test_a_clock_that_was_set_back_counts_nothing_negative() -> None:
    """Wall clocks jump; a duration is 0 then, and no counter falls."""
    row = TurnRow(
        id="t",
        face="chat",
        model="m",
        created_at=100,
        ended_at=50,
        outcome="completed",
        committed_by="content",
        states=(StateAt("streaming", 60),),
    )
    metrics = Metrics()
    metrics.ended(row, ())
    sums = [
        sample
        for each in metrics.report().families
        for sample in each.samples
        if sample.name.endswith("_sum")
    ]
    assert all(sample.value == 0 for sample in sums)
