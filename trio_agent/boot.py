"""Booting an agent: all that the configuration names is there and answers, or all problems are told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

from msgspec import Struct

from trio_agent.config.home import choose_database, ensure_home, resolve_home
from trio_agent.config.load import Draft
from trio_agent.config.problems import ConfigError, ConfigProblem
from trio_agent.config.schema import Config, StoreConfig
from trio_agent.providers.contract import Mount
from trio_agent.providers.credentials import Credentials, CredentialsError
from trio_agent.setup import Setup, set_up
from trio_agent.store.contract import ObserveStore, Store, StoreError
from trio_agent.store.limits import Limits
from trio_agent.store.sqlite import open_store
from trio_agent.world import World

MakeSetup: TypeAlias = Callable[[Draft], Awaitable[Setup]]
"""Sets a configuration up as `boot` would. Raises ConfigError with every problem, and has closed all then."""


class House(Struct, frozen=True):
    """What a booted agent stands on. Without `set_up` no other configuration can be booted."""

    setup: Setup
    store: Store
    world: World
    set_up: MakeSetup | None = None
    workspace: str | None = None


@asynccontextmanager
async def boot(
    draft: Draft,
    *,
    home: Path | None,
    env: Mapping[str, str],
    world: World,
    tools: Sequence[Callable[..., Any]] = (),
    mounts: Mapping[str, Mount] | None = None,
    store: Store | None = None,
    workspace: str | None = None,
    observe_store: ObserveStore | None = None,
) -> AsyncIterator[House]:
    """Load the tools, boot the providers and open the store; close them again at the end.

    A configuration with problems is tried as well, as far as it goes, so that one report has them all.

    Args:
        home: the folder for credentials and the database; `None` stands for what `env` says.
        tools: server-side tools of an embedding program, beside those of the configuration.
        mounts: for entries of the configuration's providers, by id, in place of their modules.
        store: in place of the configured one. Then a home is looked into only where one is given; else
            credentials are in `env` alone.
        workspace: has a database of its own in the home, unless `store` is given.
        observe_store: is told of each operation of the configured store.

    Raises:
        ConfigError: with every problem that was found, the draft's own first.
    """
    config = draft.config
    if config is None:
        raise ConfigError(draft.problems)
    problems = list(draft.problems)
    where = _home(home, env, problems) if store is None or home is not None else None
    around = _Surroundings(where, env, world, tuple(tools), mounts or {})
    async with AsyncExitStack() as resources:
        setup = await around.set_up(draft, config, problems)
        resources.push_async_callback(setup.close)
        if store is None:
            store = await _open_store(
                draft, config, where, workspace, world, resources, problems, observe_store
            )
        if problems or store is None:
            raise ConfigError(problems)
        yield House(setup, store, world, around.set_up_anew, workspace)


class _Surroundings(Struct, frozen=True):
    """What every configuration of an agent is set up with, the first one and those of reloads."""

    home: Path | None
    env: Mapping[str, str]
    world: World
    tools: Sequence[Callable[..., Any]]
    mounts: Mapping[str, Mount]

    async def set_up(self, draft: Draft, config: Config, problems: list[ConfigProblem]) -> Setup:
        return await set_up(
            draft,
            config,
            problems,
            credentials=_credentials(self.env, self.home, problems),
            world=self.world,
            tools=self.tools,
            mounts=self.mounts,
        )

    async def set_up_anew(self, draft: Draft) -> Setup:
        problems = list(draft.problems)
        if draft.config is None:
            raise ConfigError(problems)
        setup = await self.set_up(draft, draft.config, problems)
        if problems:
            await setup.close()
            raise ConfigError(problems)
        return setup


def _home(home: Path | None, env: Mapping[str, str], problems: list[ConfigProblem]) -> Path | None:
    try:
        return ensure_home(resolve_home(env) if home is None else home)
    except ConfigError as error:
        problems += error.problems
        return None


async def _open_store(
    draft: Draft,
    config: Config,
    home: Path | None,
    workspace: str | None,
    world: World,
    resources: AsyncExitStack,
    problems: list[ConfigProblem],
    observe: ObserveStore | None,
) -> Store | None:
    """The store; `None` where it cannot be opened, or where a problem hides which one is meant."""
    if draft.lacks("store") or (config.store.path is None and home is None):
        return None
    try:
        path = choose_database(config.store.path, home, workspace)
    except ConfigError as error:
        problems += error.problems
        return None
    try:
        return await resources.enter_async_context(
            open_store(
                path,
                instance_id=world.new_id("inst_"),
                now=world.now,
                limits=limits_of(config.store),
                observe=observe,
            )
        )
    except StoreError as error:
        remedy = "mend that, or name another file in store.url, as sqlite:///absolute/path"
        problems.append(ConfigProblem("store_unusable", "store.url", str(error), remedy=remedy))
        return None


def limits_of(config: StoreConfig) -> Limits:
    """What a store keeps beside turns, as the configuration has it."""
    return Limits(
        responses=config.retention.responses,
        sessions=config.retention.sessions,
        events=config.retention.events,
        max_responses=config.max_responses,
        max_conversations=config.max_conversations,
        max_sessions=config.max_sessions,
    )


def _credentials(env: Mapping[str, str], home: Path | None, problems: list[ConfigProblem]) -> Credentials:
    if home is None:
        return Credentials(env)
    try:
        return Credentials.open(env, home)
    except CredentialsError as error:
        problems.append(ConfigProblem("credentials_unusable", "", str(error), remedy=error.remedy))
        return Credentials(env)
