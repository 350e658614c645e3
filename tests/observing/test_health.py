"""`/health/detailed`: what an operator learns of turns, limits, providers and the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from support.memory_store import MemoryStore

from trio_agent.config.load import Draft
from trio_agent.opening import open_agent
from trio_agent.providers.contract import CallLimits
from trio_agent.testing import ScriptedProvider, client, fails, hangs, open_test_agent, says
from trio_agent.world import CountingWorld

PAGE = Path(__file__).parents[2] / "docs" / "observability.md"


async def told(agent: Any) -> Any:
    answer = await client(agent).get("/health/detailed")
    assert answer.status == 200
    return answer.json()


def shape(value: Any) -> Any:
    """The keys of an object, and of those in it; providers have names of their own."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    return None


async def test_what_providers_did_lately(autojump_clock: trio.abc.Clock) -> None:
    """How long ago the last whole answer and the last failure were; nothing before the first call."""
    provider = ScriptedProvider(
        [says("Hi"), fails("unavailable", "secret words", status=503)], limits=CallLimits(max_retries=0)
    )
    async with open_test_agent(provider) as agent:
        before = (await told(agent))["providers"]["scripted"]
        assert (before["answered_seconds_ago"], before["last_failure"]) == (None, None)
        await client(agent).say()
        await trio.sleep(10)
        await client(agent).say()
        await trio.sleep(5)
        after = (await told(agent))["providers"]["scripted"]
    assert after["answered_seconds_ago"] == pytest.approx(15)
    assert after["last_failure"] == {
        "kind": "unavailable",
        "model": "scripted",
        "status": 503,
        "seconds_ago": pytest.approx(5),
    }


async def test_what_is_in_use_of_the_limits(autojump_clock: trio.abc.Clock) -> None:
    """Turns that run and requests that wait, of as many as there may be; the generation after a reload."""
    config = {"server": {"max_concurrent_turns": 1, "max_queued_turns": 5, "queue_timeout": 60}}
    async with open_test_agent(ScriptedProvider([hangs()]), config=config) as agent:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(client(agent).say)
            await trio.sleep(1)
            now = await told(agent)
            assert now["limits"] == {"turns": {"used": 1, "max": 1}, "queue": {"used": 2, "max": 5}}
            assert now["generation"] == 1
            nursery.cancel_scope.cancel()
        await agent.reload(Draft(agent.config))
        now = await told(agent)
    assert now["limits"]["turns"]["used"] == now["limits"]["queue"]["used"] == 0
    assert now["generation"] == 2


async def test_a_store_that_never_answers_is_unavailable(autojump_clock: trio.abc.Clock) -> None:
    """After two seconds, however long its own limit is."""
    world = CountingWorld(clock=trio.current_time)
    store = MemoryStore(world.now)
    async with open_test_agent(ScriptedProvider([says("Hi")]), store=store, world=world) as agent:
        store.hanging.add("count_turns")
        now = await told(agent)
    assert (now["status"], now["parked_turns"]) == ("unavailable", None)
    assert now["store"] == {"status": "unavailable", "message": "no answer within 2 s"}


async def test_the_manual_shows_what_is_told(tmp_path: Path) -> None:
    """Every key of the sample and no other, from a real database; a server has connections too."""
    (sample,) = [each for each in PAGE.read_text("utf-8").split("```json\n")[1:] if '"active_turns"' in each]
    expected = json.loads(sample.partition("```")[0])
    async with open_agent({"providers": {"replay": {}}}, home=tmp_path, env={}) as agent:
        now = await told(agent)
        agent.metrics.watch("trio_agent_connections_open", "As a server does.", lambda: 7)
        listening = await told(agent)
    assert "connections" not in now["limits"]
    assert listening["limits"]["connections"] == {"used": 7, "max": 2048}
    failure = expected["providers"]["replay"].pop("last_failure")
    assert failure.keys() == {"kind", "model", "status", "seconds_ago"}
    del listening["providers"]["replay"]["last_failure"]
    assert shape(listening) == shape(expected)
    assert now["store"]["size_bytes"] > 4096
