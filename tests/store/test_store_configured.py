"""The configuration's keys about what is kept reach the store that an agent runs on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from store_samples import EPOCH, answer, conversation, keep, log, node

from trio_agent import open_agent
from trio_agent.store.contract import Store

UNUSED_S = 1000.0


async def answers(store: Store) -> list[object]:
    return [await store.get_answer("key_1", name) for name in ("one", "two")]


async def logs(store: Store) -> list[object]:
    return [await store.find_log("key_1", name) for name in ("one", "two")]


async def conversations(store: Store) -> list[object]:
    return [await store.get_conversation("key_1", name) for name in ("one", "two")]


async def sessions(store: Store) -> list[object]:
    return [(await store.list_nodes("key_1", name) or [None])[0] for name in ("one", "two")]


Look = Callable[[Store], Awaitable[list[object]]]


@pytest.mark.parametrize(
    ("said", "look", "left"),
    [
        ({}, answers, 2),
        ({}, logs, 2),
        ({}, conversations, 2),
        ({}, sessions, 2),
        ({"max_responses": 1}, answers, 1),
        ({"max_responses": 1}, logs, 1),
        ({"max_conversations": 1}, conversations, 1),
        ({"max_sessions": 1}, sessions, 1),
        ({"retention": {"responses": 900}}, answers, 0),
        ({"retention": {"responses": 900}}, conversations, 0),
        ({"retention": {"responses": 900}}, sessions, 2),
        ({"retention": {"sessions": 900}}, sessions, 0),
        ({"retention": {"sessions": 900}}, answers, 2),
        ({"retention": {"events": 900}}, logs, 0),
        ({"retention": {"events": 900}}, answers, 2),
    ],
)
async def test_every_key_is_honoured(tmp_path: Path, said: dict[str, Any], look: Look, left: int) -> None:
    """Two of each kind are kept and used no more; how many are there after a sweep is what the key says."""
    config = {"providers": {"replay": {}}, "store": said}
    async with open_agent(config, home=tmp_path / "home", env={}) as agent:
        now = agent.world.now()
        for name in ("one", "two"):
            await keep(
                agent.store,
                f"t{name}",
                answer=answer(name),
                log=log(name, ended_at=now),
                node=node(name, session_id=name, created_at=EPOCH),
            )
            await agent.store.put_conversation(conversation(name))
        await agent.store.sweep(now + UNUSED_S)
        assert sum(each is not None for each in await look(agent.store)) == left
