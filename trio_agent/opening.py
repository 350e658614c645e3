"""Opening an agent, and closing it again.

```python
async with trio_agent.open_agent(config) as agent:
    async with agent.turn("Hello", model="demo") as turn:
        async for event in turn: ...
```

Cancelling the surrounding scope cancels all of it. Nothing here is global: two agents with different
configurations live in one process.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from trio_agent.agent import Agent
from trio_agent.boot import House, boot
from trio_agent.config.load import Draft, load_draft, parse_draft
from trio_agent.config.schema import Config
from trio_agent.generations import Contexts, ContextsFor, plain_contexts
from trio_agent.nursery import open_plain_nursery
from trio_agent.observing.metrics import Metrics
from trio_agent.peers import Alone, Peers
from trio_agent.recording.header import Premises
from trio_agent.recording.recorded import recorded
from trio_agent.recording.recorder import Record
from trio_agent.setup import Setup
from trio_agent.store.owed_outcomes import OwedOutcomes
from trio_agent.sweeping import sweep, sweep_after_deaths
from trio_agent.turn.observer import TurnObserver
from trio_agent.world import RealWorld, World


@asynccontextmanager
async def open_agent(
    config: Config | Draft | Mapping[str, Any] | str | os.PathLike[str],
    *,
    home: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    world: World | None = None,
    tools: Sequence[Callable[..., Any]] = (),
    record: Record | str | os.PathLike[str] | None = None,
    observers: Sequence[TurnObserver] = (),
    peers: Peers | None = None,
    workspace: str | None = None,
) -> AsyncIterator[Agent]:
    """Boot an agent, and close it when the block is left.

    Args:
        config: a loaded configuration, a mapping like the JSON file's, or the file's path. A draft with
            problems is booted as far as it goes, so that the ConfigError has those of the boot too.
        home: the folder for credentials and the database; by default `TRIO_AGENT_HOME`.
        env: where variables and credentials are looked up; by default the process's environment.
        world: where wall time, ids and random numbers come from.
        tools: server-side tools of this program: callables with type hints and a docstring.
        record: a folder that every turn is recorded to, one file each; a `Record` says more about it.
        observers: hear of every turn that begins or ends, beside the log.
        peers: the processes that serve the same clients beside this one.
        workspace: the name of a database of its own in the home, in place of the home's one.

    Raises:
        ConfigError: with every problem that was found.
    """
    env = os.environ if env is None else env
    where = None if home is None else Path(home)
    world = world or RealWorld()
    peers = peers or Alone()
    metrics = Metrics(worker=str(peers.number), started_at=world.now())
    async with (
        boot(
            _draft_of(config, env),
            home=where,
            env=env,
            world=world,
            tools=tools,
            workspace=workspace,
            observe_store=metrics.store_used,
        ) as house,
        open_plain_nursery() as nursery,
    ):
        async with (
            recorded(record) as contexts,
            running_agent(
                house, _of_setup(contexts), observers=observers, metrics=metrics, peers=peers
            ) as agent,
        ):
            nursery.start_soon(
                sweep, house.store, agent.mounted_providers, house.world.now, metrics.parks_expired
            )
            nursery.start_soon(sweep_after_deaths, house.store, agent.peers, house.world.now)
            yield agent
        nursery.cancel_scope.cancel()


def _draft_of(
    config: Config | Draft | Mapping[str, Any] | str | os.PathLike[str], env: Mapping[str, str]
) -> Draft:
    if isinstance(config, str | os.PathLike):
        return load_draft(Path(config), env)
    if isinstance(config, Draft):
        return config
    return Draft(config) if isinstance(config, Config) else parse_draft(config, env)


def _of_setup(contexts: Callable[[Premises], Contexts]) -> ContextsFor:
    def contexts_for(setup: Setup) -> Contexts:
        return contexts(Premises(setup.config, setup.mounted, setup.prices, tuple(setup.tools.tools)))

    return contexts_for


@asynccontextmanager
async def running_agent(
    house: House,
    contexts: ContextsFor = plain_contexts,
    *,
    observers: Sequence[TurnObserver] = (),
    metrics: Metrics | None = None,
    peers: Peers | None = None,
) -> AsyncIterator[Agent]:
    """An agent with a nursery for its turns. What runs in it when the block is left ends as by a shutdown.

    Args:
        house: what it stands on.
        contexts: makes what a request stands in.
        observers: hear of turns, beside the log.
        metrics: count what happens here.
        peers: the processes that serve with this one.
    """
    owed: OwedOutcomes | None = None
    agent: Agent | None = None
    try:
        async with open_plain_nursery() as nursery:
            owed = OwedOutcomes(house.store, nursery)
            agent = Agent(
                house,
                contexts=contexts,
                nursery=nursery,
                owed=owed,
                observers=observers,
                metrics=metrics,
                peers=peers,
            )
            try:
                yield agent
            finally:
                agent.drain()
                agent.end_as("shutdown")
                nursery.cancel_scope.cancel()
    finally:
        if owed is not None:
            await owed.settle()  # noqa: ASYNC102 - it shields itself, with a limit
        if agent is not None:
            await agent.close_generations()  # noqa: ASYNC102 - each provider is closed shielded, with a limit
