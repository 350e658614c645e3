"""Reading the configuration again in a server's process, on a virtual clock: when, how often, when not."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from support.workshop import Workshop, open_workshop

from trio_agent.cli.reloading import reload_when_wanted
from trio_agent.cli.wanted import Wanted
from trio_agent.server.options import ServeOptions
from trio_agent.server.service_manager import ServiceManager

MOUNT_SECONDS = 5


class Scene:
    """A server's agent whose reloads take five seconds. `file` is its configuration."""

    def __init__(self, shop: Workshop, file: Path) -> None:
        self.shop = shop
        self.file = file
        self.wanted = Wanted()
        self.shutdown = trio.Event()
        self.over = trio.Event()

    def put(self, **config: Any) -> None:
        self.file.write_text(json.dumps({"providers": {"lab": {}}, **config}))

    async def run(self) -> None:
        options = ServeOptions(config=str(self.file), log_format="text")
        manager = ServiceManager(None)
        await reload_when_wanted(self.shop.agent, options, None, manager, self.wanted, self.shutdown)
        self.over.set()


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    async with open_workshop(delay=MOUNT_SECONDS) as shop, trio.open_nursery() as nursery:
        found = Scene(shop, folder / "host_config.json")
        found.put()
        nursery.start_soon(found.run)
        yield found
        found.shutdown.set()
        await found.over.wait()


async def test_what_is_asked_for_during_a_reload_is_one_more(
    autojump_clock: trio.abc.Clock, tmp_path: Path
) -> None:
    """However often: the file that was there last is in force at the end."""
    async with scene(tmp_path) as found:
        found.wanted.ask()
        await trio.sleep(1)
        for number in (2, 3, 4):
            found.put(agent={"max_model_calls": number})
            found.wanted.ask()
        await trio.sleep(20)
        assert len(found.shop.mounted) == 3, "the start, the reload, and one more"
        assert found.shop.agent.config.agent.max_model_calls == 4


async def test_a_pipe_in_the_place_of_the_file_is_refused(
    autojump_clock: trio.abc.Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To open it would stop the whole server, until somebody writes into it."""
    async with scene(tmp_path) as found:
        found.file.unlink()
        os.mkfifo(found.file)
        found.wanted.ask()
        await trio.sleep(1)
        assert "it is a pipe or a device" in capsys.readouterr().err


async def test_the_end_of_the_server_gives_a_reload_up(
    autojump_clock: trio.abc.Clock, tmp_path: Path
) -> None:
    """At once, and with nothing changed."""
    async with scene(tmp_path) as found:
        found.put(agent={"max_model_calls": 2})
        found.wanted.ask()
        await trio.sleep(1)
        told = trio.current_time()
        found.shutdown.set()
        await found.over.wait()
        assert trio.current_time() == told
        assert found.shop.agent.config.agent.max_model_calls == 24
        assert found.shop.up == found.shop.mounted[:1]


async def test_a_failure_that_nobody_has_foreseen_ends_no_server(
    autojump_clock: trio.abc.Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is told, and the next reload is tried like any other."""
    async with scene(tmp_path) as found:
        found.put(agent={"max_model_calls": 2})
        with monkeypatch.context() as broken:

            async def fail(draft: Any) -> None:
                raise OSError("the disk is gone")

            broken.setattr(found.shop.agent, "prepare", fail)
            found.wanted.ask()
            await trio.sleep(20)
        assert "reload_failed" in capsys.readouterr().err
        assert found.shop.agent.config.agent.max_model_calls == 24
        found.wanted.ask()
        await trio.sleep(20)
        assert found.shop.agent.config.agent.max_model_calls == 2
