"""What one configuration comes to: its providers up, its tools loaded, its models priced."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from msgspec import Struct, field

from trio_agent.accounting.prices import PriceBook
from trio_agent.config.load import Draft
from trio_agent.config.problems import ConfigProblem, KeyPath, quote, render_path
from trio_agent.config.schema import Config
from trio_agent.errors import AgentError
from trio_agent.providers.contract import Mount, Provider
from trio_agent.providers.credentials import Credentials
from trio_agent.providers.directory import ModelDirectory
from trio_agent.providers.registry import BootProblem, MountedProvider, ProviderSpec, boot_providers
from trio_agent.statemachine.money import Price
from trio_agent.tools.box import PythonToolBox, load_tools
from trio_agent.tools.python import PythonTool, ToolDefinitionError, python_tool
from trio_agent.turn.toolbox import ToolBox
from trio_agent.world import World

logger = logging.getLogger("trio_agent.provider")


class Setup(Struct, frozen=True):
    """What one configuration comes to. `prices` holds every model's, by its full name.

    Whoever has it closes it; any task may, and a second time does nothing.
    """

    config: Config
    mounted: Mapping[str, MountedProvider]
    directory: ModelDirectory
    prices: Mapping[str, Price | None]
    tools: ToolBox
    resources: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def close(self) -> None:
        """Close the providers: shielded, within 5 seconds each."""
        await self.resources.aclose()

    @property
    def providers(self) -> dict[str, Provider]:
        """The providers by id."""
        return {mounted.id: mounted.provider for mounted in self.mounted.values()}


async def set_up(
    draft: Draft,
    config: Config,
    problems: list[ConfigProblem],
    *,
    credentials: Credentials,
    world: World,
    tools: Sequence[Callable[..., Any]],
    mounts: Mapping[str, Mount],
) -> Setup:
    """Load the tools and boot the providers of a configuration, as far as it goes.

    Args:
        config: the draft's.
        problems: takes what is found wrong. With any, the result is of no use.
        tools: server-side tools of an embedding program, beside those of the configuration.
        mounts: for entries of the configuration's providers, by id, in place of their modules.

    Returns:
        What is to be closed, also where there are problems.
    """
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
    specs = {
        name: ProviderSpec(each.module, each.config, mounts.get(name))
        for name, each in config.providers.items()
    }
    async with AsyncExitStack() as opened:
        booted = await boot_providers(
            specs, credentials=credentials, resources=opened, observers=(_log_event,)
        )
        problems += [_problem_of(each) for each in booted.problems]
        directory = booted.directory()
        problems += _check_routes(draft, config, booted.providers, directory)
        prices = _prices(config, directory, world)
        return Setup(config, booted.providers, directory, prices, box, opened.pop_all())


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
