"""Booting an agent: all that the configuration names is there and answers, or all problems are told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from trio_agent.accounting.prices import PriceBook
from trio_agent.config.home import ensure_home
from trio_agent.config.problems import ConfigError, ConfigProblem
from trio_agent.config.schema import Config
from trio_agent.errors import AgentError
from trio_agent.providers.credentials import Credentials, CredentialsError
from trio_agent.providers.directory import ModelDirectory
from trio_agent.providers.registry import BootProblem, MountedProvider, ProviderSpec, boot_providers
from trio_agent.statemachine.money import Price
from trio_agent.store.contract import Store, StoreError
from trio_agent.store.sqlite import open_store
from trio_agent.tools.box import PythonToolBox, load_tools
from trio_agent.tools.python import PythonTool, ToolDefinitionError, python_tool
from trio_agent.world import World

DATABASE = "store.sqlite3"


class House(Struct, frozen=True):
    """What a booted agent stands on. `prices` holds every model's, by its full name."""

    config: Config
    providers: Mapping[str, MountedProvider]
    directory: ModelDirectory
    prices: Mapping[str, Price | None]
    tools: PythonToolBox
    store: Store
    world: World


@asynccontextmanager
async def boot(
    config: Config,
    *,
    home: Path,
    env: Mapping[str, str],
    world: World,
    tools: Sequence[Callable[..., Any]] = (),
) -> AsyncIterator[House]:
    """Open the store, load the tools and boot the providers; close them again at the end.

    Args:
        tools: server-side tools of an embedding program, beside those of the configuration.

    Raises:
        ConfigError: with every problem that was found.
    """
    problems: list[ConfigProblem] = []
    if not config.providers:
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
    credentials = _credentials(env, ensure_home(home), problems)
    async with AsyncExitStack() as resources:
        specs = {name: ProviderSpec(each.module, each.config) for name, each in config.providers.items()}
        booted = await boot_providers(specs, credentials=credentials, resources=resources)
        problems += [_problem_of(each) for each in booted.problems]
        directory = booted.directory()
        if not problems:
            problems += _check_routes(config, directory)
        if problems:
            raise ConfigError(problems)
        book = PriceBook.load(
            {name: each.price() for name, each in config.prices.items()}, wall_clock=world.now
        )
        prices = {
            ref.full_name: book.lookup(
                ref.provider_id,
                ref.model.id,
                module=config.providers[ref.provider_id].module,
                own=ref.model.price,
            )
            for ref in directory.listing()
        }
        path = config.store.path or home / DATABASE
        try:
            store = await resources.enter_async_context(
                open_store(path, instance_id=world.new_id("inst_"), now=world.now)
            )
        except StoreError as error:
            raise ConfigError(
                [ConfigProblem("store_unusable", "store.url", str(error), remedy="see the message")]
            ) from None
        yield House(config, booted.providers, directory, prices, box, store, world)


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
            problems.append(ConfigProblem("tool_unusable", "tools", str(error)))
    return PythonToolBox([*loaded, *ours])


def _credentials(env: Mapping[str, str], home: Path, problems: list[ConfigProblem]) -> Credentials:
    try:
        return Credentials.open(env, home)
    except CredentialsError as error:
        problems.append(ConfigProblem("credentials_unusable", "", str(error), remedy=error.remedy))
        return Credentials(env)


def _problem_of(problem: BootProblem) -> ConfigProblem:
    code: Any = problem.code if problem.code == "config_invalid_provider_module" else "provider_unusable"
    return ConfigProblem(code, problem.path, problem.message, remedy=problem.remedy)


def _check_routes(config: Config, directory: ModelDirectory) -> list[ConfigProblem]:
    """Aliases and roles must lead to models that are served."""
    problems: list[ConfigProblem] = []
    aliases = config.routing.aliases
    places = [(f"routing.aliases.{name}", target) for name, target in aliases.items()]
    places += [
        (f"routing.roles.{role}[{index}]", aliases.get(model, model))
        for role, models in config.routing.roles.items()
        for index, model in enumerate(models)
    ]
    for path, model in places:
        try:
            directory.resolve(model)
        except AgentError as error:
            problems.append(
                ConfigProblem(
                    "config_unknown_model", path, error.message, "the name of a model that is served"
                )
            )
    return problems
