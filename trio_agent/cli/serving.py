"""What `trio-agent serve` does once signals are heard: looks for every problem, or serves."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from trio_agent.agent import Agent
from trio_agent.cli.address import key_of, taken, tell_address
from trio_agent.cli.claiming import announce, note_end, state_of
from trio_agent.cli.common import read_draft
from trio_agent.cli.reloading import reload_when_wanted
from trio_agent.cli.wanted import Wanted
from trio_agent.config.load import Draft
from trio_agent.config.problems import ConfigProblem
from trio_agent.nursery import open_plain_nursery
from trio_agent.observing.telemetry import telemetry
from trio_agent.opening import open_agent
from trio_agent.peers import Peers
from trio_agent.recording.recorder import Record
from trio_agent.server.app import serve_on
from trio_agent.server.options import ServeOptions
from trio_agent.server.service_manager import ServiceManager


async def serve_config(
    options: ServeOptions,
    *,
    shutdown: trio.Event,
    wanted: Wanted,
    on_serving: Callable[[Agent], None],
) -> None:
    """Serve what a configuration declares until `shutdown` is set.

    Args:
        options: what the server was asked for.
        shutdown: set it to end the server in order.
        wanted: says when to read the configuration again. What was asked for during the boot is done after.
        on_serving: called once connections are accepted.

    Raises:
        ConfigError: with every problem that was found.
    """
    draft = read_draft(None if options.config is None else Path(options.config))
    key = key_of(options, draft)
    async with (
        taken(options, draft) as place,
        agent_of(options, draft.with_problems(place.problems), key) as agent,
        open_plain_nursery() as nursery,
    ):
        if place.claim is not None:
            await announce(place.claim, state_of(agent, options, place.listeners, key))
        manager = ServiceManager.of(os.environ)
        nursery.start_soon(note_end, place.claim, shutdown, agent.world, manager)
        bound = await nursery.start(
            partial(serve_on, agent, place.listeners, api_key=options.api_key, shutdown=shutdown)
        )
        nursery.start_soon(reload_when_wanted, agent, options, place.claim, manager, wanted, shutdown)
        on_serving(agent)
        for address in bound:
            manager.ready(tell_address(options, address, len(agent.models())))


@asynccontextmanager
async def agent_of(
    options: ServeOptions, draft: Draft, key: str | None, *, peers: Peers | None = None
) -> AsyncIterator[Agent]:
    """The agent that serves what was asked for, with the traces that the environment asks for.

    Raises:
        ConfigError: as `open_agent`.
    """
    secrets = (key,) if key else ()
    record = None if options.record is None else Record(options.record, secrets=secrets)
    problems: list[ConfigProblem] = []
    async with (
        telemetry(os.environ, problems) as observers,
        open_agent(
            draft.with_problems(problems),
            record=record,
            observers=observers,
            peers=peers,
            workspace=options.workspace,
        ) as agent,
    ):
        yield agent
