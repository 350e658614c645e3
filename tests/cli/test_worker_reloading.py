"""A worker's part in a reload, on a virtual clock: step by step, as the supervisor says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio
from support.workshop import Workshop, open_workshop

from trio_agent.cli.worker_reloading import WorkerReloads
from trio_agent.config.problems import ConfigProblem
from trio_agent.server.workers.channel import Channel
from trio_agent.server.workers.messages import (
    Commit,
    Committed,
    Discard,
    Message,
    Prepare,
    Prepared,
    ToWorker,
)

MOUNT_SECONDS = 5


class Scene:
    """A worker whose providers take five seconds to mount, and what it has told its supervisor."""

    def __init__(self, shop: Workshop) -> None:
        self.shop = shop
        self.told: list[Message] = []
        self.reloads = WorkerReloads(cast("Channel[ToWorker]", self))

    def post(self, message: Message, *, droppable: bool = False) -> bool:
        self.told.append(message)
        return True

    @property
    def calls(self) -> int:
        """What is in force."""
        return self.shop.agent.config.agent.max_model_calls


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    async with open_workshop(delay=MOUNT_SECONDS) as shop, trio.open_nursery() as nursery:
        found = Scene(shop)
        nursery.start_soon(found.reloads.run, shop.agent)
        yield found
        nursery.cancel_scope.cancel()


def config(calls: int, **more: Any) -> bytes:
    return json.dumps({"providers": {"lab": {}}, "agent": {"max_model_calls": calls}, **more}).encode()


async def test_it_prepares_and_waits_for_the_word(autojump_clock: trio.abc.Clock) -> None:
    """Nothing is in force before, and the one that was asked to do so notes it in the audit log."""
    async with scene() as found:
        found.reloads.heard(Prepare(1, config(2)))
        await trio.sleep(60)
        assert (found.told, found.calls) == ([Prepared(1)], 24)
        found.reloads.heard(Commit(1, note=True))
        await trio.sleep(1)
        committed = found.told[1]
        assert isinstance(committed, Committed)
        assert "agent.max_model_calls" in committed.said
        assert found.calls == 2
        entries = await found.shop.agent.store.list_audit()
        assert [entry.kind for entry in entries] == ["config.reloaded"]


@pytest.mark.parametrize("after", [1, 10])
async def test_it_lets_go_of_what_is_not_wanted(after: float, autojump_clock: trio.abc.Clock) -> None:
    """In the middle of it as well as afterwards; the next one is prepared like any other."""
    async with scene() as found:
        found.reloads.heard(Prepare(1, config(2)))
        await trio.sleep(after)
        found.reloads.heard(Discard(1, (ConfigProblem("provider_unusable", "providers.lab", "no"),)))
        await trio.sleep(1)
        assert found.shop.up == found.shop.mounted[:1]
        entries = await found.shop.agent.store.list_audit()
        assert [entry.kind for entry in entries] == ["config.refused"]
        found.reloads.heard(Prepare(2, config(3)))
        await trio.sleep(10)
        found.reloads.heard(Commit(2))
        await trio.sleep(1)
        assert found.calls == 3


async def test_what_is_wrong_is_said(autojump_clock: trio.abc.Clock) -> None:
    """And nothing is kept that a commit could put in force."""
    async with scene() as found:
        found.reloads.heard(Prepare(1, config(2, nonsense=1)))
        await trio.sleep(10)
        (prepared,) = found.told
        assert isinstance(prepared, Prepared)
        assert [problem.code for problem in prepared.problems] == ["config_unknown_key"]
        found.reloads.heard(Commit(1))
        await trio.sleep(1)
        assert (len(found.told), found.calls) == (1, 24)


async def test_no_failure_ends_the_worker(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that nobody has foreseen counts as a problem, and the next reload is tried like any other."""

    async def fail(_: Any) -> None:
        raise OSError("the disk is gone")

    async with scene() as found:
        with monkeypatch.context() as broken:
            broken.setattr(found.shop.agent, "prepare", fail)
            found.reloads.heard(Prepare(1, config(2)))
            await trio.sleep(1)
        (prepared,) = found.told
        assert isinstance(prepared, Prepared)
        assert [problem.code for problem in prepared.problems] == ["reload_failed"]
        with monkeypatch.context() as broken:
            broken.setattr(found.shop.agent, "commit", lambda generation: 1 / 0)
            found.reloads.heard(Prepare(2, config(2)))
            found.reloads.heard(Commit(2))
            await trio.sleep(10)
        found.reloads.heard(Prepare(3, config(2)))
        found.reloads.heard(Commit(3))
        await trio.sleep(10)
        assert found.calls == 2
    assert sum(record.levelname == "ERROR" for record in caplog.records) == 2
