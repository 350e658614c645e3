"""Booting an agent: all that the configuration names is there and answers, or all problems are told."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from trio_agent.accounting.prices import PriceBook
from trio_agent.config.home import database_path, ensure_home, resolve_home
from trio_agent.config.load import Draft
from trio_agent.config.problems import ConfigError, ConfigProblem, KeyPath, quote, render_path
from trio_agent.config.schema import Config, StoreConfig
from trio_agent.errors import AgentError
from trio_agent.providers.contract import Mount
from trio_agent.providers.credentials import Credentials, CredentialsError
from trio_agent.providers.directory import ModelDirectory
from trio_agent.providers.registry import BootProblem, MountedProvider, ProviderSpec, boot_providers
from trio_agent.statemachine.money import Price
from trio_agent.store.contract import Store, StoreError
from trio_agent.store.limits import Limits
from trio_agent.store.sqlite import open_store
from trio_agent.tools.box import PythonToolBox, load_tools
from trio_agent.tools.python import PythonTool, ToolDefinitionError, python_tool
from trio_agent.turn.toolbox import ToolBox
from trio_agent.world import World

logger = logging.getLogger("trio_agent.provider")


class House(Struct, frozen=True):
    """What a booted agent stands on. `prices` holds every model's, by its full name."""

    config: Config
    providers: Mapping[str, MountedProvider]
    directory: ModelDirectory
    prices: Mapping[str, Price | None]
    tools: ToolBox
    store: Store
    world: World
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

    Raises:
        ConfigError: with every problem that was found, the draft's own first.
    """
    config = draft.config
    if config is None:
        raise ConfigError(draft.problems)
    problems = list(draft.problems)
    if not config.providers and not draft.lacks("providers"):
        problems.append(
            ConfigProblem(
                "config_missing_key",
                "providers",
                "no provider is declared",
                "at least one provider",
                remedy='add one, such as "providers": {"replay": {}}',
            )
        )
    box = _load_tools(config, tools, problems)
    where = _home(home, env, problems) if store is None or home is not None else None
    credentials = _credentials(env, where, problems)
    async with AsyncExitStack() as resources:
        specs = {
            name: ProviderSpec(each.module, each.config, (mounts or {}).get(name))
            for name, each in config.providers.items()
        }
        booted = await boot_providers(
            specs, credentials=credentials, resources=resources, observers=(_log_event,)
        )
        problems += [_problem_of(each) for each in booted.problems]
        directory = booted.directory()
        problems += _check_routes(draft, config, booted.providers, directory)
        if store is None:
            store = await _open_store(draft, config, where, workspace, world, resources, problems)
        if problems or store is None:
            raise ConfigError(problems)
        prices = _prices(config, directory, world)
        yield House(config, booted.providers, directory, prices, box, store, world, workspace)


def _prices(config: Config, directory: ModelDirectory, world: World) -> dict[str, Price | None]:
    book = PriceBook.load({name: each.price() for name, each in config.prices.items()}, wall_clock=world.now)
    return {
        ref.full_name: book.lookup(
            ref.provider_id,
            ref.model.id,
            module=config.providers[ref.provider_id].module,
            own=ref.model.price,
        )
        for ref in directory.listing()
    }


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
) -> Store | None:
    """The store; `None` where it cannot be opened, or where a problem hides which one is meant."""
    if draft.lacks("store") or (config.store.path is None and home is None):
        return None
    try:
        path = database_path(home or Path(), workspace)
    except ConfigError as error:
        problems += error.problems
        return None
    if config.store.path is not None and workspace is not None:
        problems.append(_two_databases(workspace))
        return None
    path = config.store.path or path
    try:
        return await resources.enter_async_context(
            open_store(path, instance_id=world.new_id("inst_"), now=world.now, limits=limits_of(config.store))
        )
    except StoreError as error:
        remedy = "mend that, or name another file in store.url, as sqlite:///absolute/path"
        problems.append(ConfigProblem("store_unusable", "store.url", str(error), remedy=remedy))
        return None


def _two_databases(workspace: str) -> ConfigProblem:
    return ConfigProblem(
        "config_invalid_value",
        "store.url",
        f"the workspace {quote(workspace)} has a database of its own in the home, and this names another one",
        "one of the two",
        remedy="leave out store.url, or --workspace (TRIO_AGENT_WORKSPACE)",
    )


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


def _load_tools(
    config: Config, given: Sequence[Callable[..., Any]], problems: list[ConfigProblem]
) -> PythonToolBox:
    loaded, failures = load_tools(config.agent.tools, timeout=config.agent.tool_timeout)
    for failure in failures:
        index = config.agent.tools.index(failure.name)
        problems.append(
            ConfigProblem("tool_unusable", f"agent.tools[{index}]", failure.message, remedy=failure.remedy)
        )
    ours: list[PythonTool] = []
    for function in given:
        try:
            ours.append(python_tool(function, timeout=config.agent.tool_timeout))
        except ToolDefinitionError as error:
            remedy = "mend the function that was given to open_agent"
            problems.append(ConfigProblem("tool_unusable", "tools", str(error), remedy=remedy))
    return PythonToolBox([*loaded, *ours])


def _credentials(env: Mapping[str, str], home: Path | None, problems: list[ConfigProblem]) -> Credentials:
    if home is None:
        return Credentials(env)
    try:
        return Credentials.open(env, home)
    except CredentialsError as error:
        problems.append(ConfigProblem("credentials_unusable", "", str(error), remedy=error.remedy))
        return Credentials(env)


def _problem_of(problem: BootProblem) -> ConfigProblem:
    code: Any = problem.code if problem.code == "config_invalid_provider_module" else "provider_unusable"
    return ConfigProblem(code, problem.path, problem.message, remedy=problem.remedy)


def _check_routes(
    draft: Draft, config: Config, mounted: Mapping[str, object], directory: ModelDirectory
) -> list[ConfigProblem]:
    """Aliases and roles must lead to models that are served.

    While a provider is missing, only its own problem is told: what it would have served is not known.
    """
    aliases = config.routing.aliases
    places: list[tuple[KeyPath, str]] = [
        (("routing", "aliases", name), target) for name, target in aliases.items()
    ]
    places += [
        (("routing", "roles", role, index), model)
        for role, models in config.routing.roles.items()
        for index, model in enumerate(models)
        if model not in aliases and not draft.lacks("routing", "aliases", model)
    ]
    all_there = mounted.keys() == config.providers.keys() and not draft.lacks("providers")
    return [
        _unknown_model(path, model, directory)
        for path, model in places
        if not _is_served(model, directory) and (all_there or model.partition("/")[0] in mounted)
    ]


def _is_served(model: str, directory: ModelDirectory) -> bool:
    try:
        directory.resolve(model)
    except AgentError:
        return False
    return True


def _unknown_model(path: KeyPath, model: str, directory: ModelDirectory) -> ConfigProblem:
    near = directory.close_matches(model)
    return ConfigProblem(
        "config_unknown_model",
        render_path(path),
        f"no provider serves a model {quote(model)}",
        "the name of a model that is served",
        near[0] if near else "",
        f"write {quote(near[0])}" if near else "write one of those that `trio-agent models` lists",
    )


def _log_event(provider: str, event: str, data: Mapping[str, Any]) -> None:
    """What a provider emits is for those who look closely, and may hold anything: names only, at debug."""
    logger.debug("provider %s emitted %s (%s)", provider, event, ", ".join(sorted(map(str, data))))
