"""What a replayed agent stands on: the recording's header as a booted house, without network and disk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import msgspec

from trio_agent.accounting.prices import PriceBook
from trio_agent.boot import House
from trio_agent.config.load import parse_config
from trio_agent.config.problems import ConfigError
from trio_agent.config.schema import Config, ProviderConfig
from trio_agent.providers.contract import (
    CallLimits,
    ModelInfo,
    Provider,
    ProviderConfigError,
    UpstreamError,
)
from trio_agent.providers.coordinator import MountCoordinator
from trio_agent.providers.credentials import Credentials, Found
from trio_agent.providers.directory import ModelDirectory
from trio_agent.providers.http_tap import AROUND, ScriptedTransport, broken
from trio_agent.providers.modules import ProviderModuleError, brief, find_mount
from trio_agent.providers.registry import (
    ContractViolationError,
    MountedProvider,
    check_models,
    close_provider,
    mount_provider,
)
from trio_agent.recording.format import Header, ProviderFacts
from trio_agent.replay.inbox import Inbox
from trio_agent.replay.result import ReplayError
from trio_agent.replay.upstream import PlayedProvider
from trio_agent.setup import Setup
from trio_agent.statemachine.money import Price
from trio_agent.store.contract import Store
from trio_agent.turn.toolbox import ToolBox
from trio_agent.world import World

_SECRET_NAMES: Final = ("KEY", "TOKEN", "SECRET")
PLACEHOLDER: Final = "no-key-is-needed-in-a-replay"


class PlaceholderCredentials(Credentials):
    """Has a key for everybody. It never leaves the process."""

    def __init__(self) -> None:
        super().__init__({})

    def find(self, *names: str) -> Found | None:
        secret = [name for name in names if any(word in name for word in _SECRET_NAMES)]
        return Found(secret[0], PLACEHOLDER, "environment") if secret else None


class Known:
    """What is the same for all files of a run, looked up once.

    Args:
        installed: the provider modules of the installed distributions, by name.
    """

    def __init__(self, installed: Mapping[str, str]) -> None:
        self.installed = installed
        self._books: dict[bytes, PriceBook] = {}

    def book(self, config: Config, world: World) -> PriceBook:
        key = msgspec.json.encode(config.prices, order="sorted")
        if key not in self._books:
            prices = {name: each.price() for name, each in config.prices.items()}
            self._books[key] = PriceBook.load(prices, wall_clock=world.now)
        return self._books[key]


def config_of(header: Header, name: str) -> Config:
    """The recording's configuration. Raises ReplayError."""
    try:
        return parse_config(header.config, {})
    except ConfigError as error:
        raise ReplayError(f"{name}: the header's config is wrong: {error}") from None


class _Offline:
    """Stands around whatever a provider asks of the network before its calls: nothing answers."""

    def __init__(self, world: World) -> None:
        self._world = world

    def transport(self, inner: object) -> ScriptedTransport:
        del inner
        return ScriptedTransport(self)

    def now(self) -> float:
        return self._world.now()

    async def head(self) -> tuple[int, list[tuple[str, str]]]:
        raise broken("connect_error", "a replay has no network")

    async def content(self) -> bytes:
        raise broken("connect_error", "a replay has no network")


@asynccontextmanager
async def open_house(
    header: Header,
    *,
    name: str,
    by_events: Collection[str],
    known: Known,
    inbox: Inbox,
    tools: Callable[[Config], ToolBox],
    store: Store,
    world: World,
) -> AsyncIterator[House]:
    """The house that a header describes.

    Args:
        name: of the file, for messages.
        by_events: the providers whose calls the file tells event by event; they are stood in for.
        tools: makes the server's tools of the configuration.

    Raises:
        ReplayError: what in the header cannot be had here.
    """
    config = config_of(header, name)
    async with AsyncExitStack() as resources:
        offline = AROUND.set(_Offline(world))
        try:
            mounted = {
                provider_id: await _provider(
                    provider_id,
                    section,
                    header.providers.get(provider_id, ProviderFacts()),
                    resources=resources,
                    played=provider_id in by_events,
                    known=known,
                    inbox=inbox,
                    where=f"{name}: providers.{provider_id}",
                )
                for provider_id, section in config.providers.items()
            }
        finally:
            AROUND.reset(offline)
        directory = ModelDirectory({each.id: each.models for each in mounted.values()})
        book = known.book(config, world)
        prices = _prices(header, config, directory, book, name)
        yield House(Setup(config, mounted, directory, prices, tools(config)), store, world)


async def _provider(
    provider_id: str,
    section: ProviderConfig,
    facts: ProviderFacts,
    *,
    resources: AsyncExitStack,
    played: bool,
    known: Known,
    inbox: Inbox,
    where: str,
) -> MountedProvider:
    """A provider of the header: the real one, or one that stands in for it (`played`)."""
    given: list[ModelInfo] = converted(facts.models, list[ModelInfo], f"{where}: models")
    limits = converted(facts.limits, CallLimits, f"{where}: limits")
    stack = AsyncExitStack()
    resources.push_async_callback(close_provider, provider_id, stack)
    coordinator = MountCoordinator(
        provider_id, resources=stack, credentials=PlaceholderCredentials(), config=section.config
    )
    real: Provider | None = None
    if not (played and given):
        try:
            real = await _mounted(section, coordinator, known, where)
        except ReplayError:
            # A plug-in that is not installed here does not matter where it was not called.
            if not given:
                raise
    models = given or ([] if real is None else await _listed(real, where))
    provider: Provider
    if real is None:
        provider = PlayedProvider(provider_id, models=models, limits=limits, wire=facts.wire, inbox=inbox)
    elif played:
        provider = PlayedProvider(
            provider_id, models=models, limits=real.limits, wire=real.get_info().wire, inbox=inbox
        )
    else:
        provider = real
    return MountedProvider(provider_id, provider, models, coordinator)


async def _mounted(
    section: ProviderConfig, coordinator: MountCoordinator, known: Known, where: str
) -> Provider:
    try:
        return await mount_provider(find_mount(section.module, known.installed), coordinator, section.config)
    except ProviderModuleError as error:
        raise ReplayError(f"{where}: {error.message} {error.remedy}") from None
    except ProviderConfigError as error:
        raise ReplayError(f"{where}.{error.path}: {error.message}. {error.remedy}") from None
    except (ContractViolationError, UpstreamError) as error:
        raise ReplayError(f"{where}: {error}") from None
    except Exception as error:  # noqa: BLE001  (a plug-in may raise anything)
        raise ReplayError(f"{where}: the provider crashed while mounting: {brief(error)}") from None


async def _listed(provider: Provider, where: str) -> list[ModelInfo]:
    """The models of a provider that the header gives none for. Asking over a network fails at once."""
    try:
        models = check_models(await provider.list_models())
    except (UpstreamError, ContractViolationError) as error:
        raise ReplayError(
            f"{where}: its models are not known ({error}). Name them in the header: in the provider's "
            "config.models, or under providers."
        ) from None
    except Exception as error:  # noqa: BLE001  (a plug-in may raise anything)
        raise ReplayError(f"{where}: the provider crashed while listing its models: {brief(error)}") from None
    if not models:
        raise ReplayError(f"{where}: it has no models. Name them in the header, under providers.")
    return models


def _prices(
    header: Header, config: Config, directory: ModelDirectory, book: PriceBook, name: str
) -> dict[str, Price | None]:
    given = converted(header.prices, dict[str, Price | None], f"{name}: prices")
    return {
        ref.full_name: given[ref.full_name]
        if ref.full_name in given
        else book.lookup(
            ref.provider_id,
            ref.model.id,
            module=config.providers[ref.provider_id].module,
            own=ref.model.price,
        )
        for ref in directory.listing()
    }


def converted(plain: Any, kind: Any, where: str) -> Any:
    """A part of the header as a struct. Raises ReplayError."""
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise ReplayError(f"{where}: {error}") from None
