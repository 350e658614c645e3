"""The first line of a recording: what of the server mattered for the turn, and nothing secret."""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import msgspec
from msgspec import Struct

from trio_agent.config.mask import bare_url, harmless_settings
from trio_agent.config.schema import AgentConfig, Config, Section, ServerConfig
from trio_agent.providers.registry import MountedProvider
from trio_agent.recording.format import FORMAT_VERSION, Header, ProviderFacts
from trio_agent.recording.plain import plain
from trio_agent.statemachine.conversation import Tool
from trio_agent.statemachine.money import Price

KEPT_HEADERS: Final = 256
_NOT_OF_A_TURN: Final = frozenset({"api_key", "cors_origins"})
_VERSIONS: Final = ("trio-agent", "trio", "msgspec")


class Premises(Struct, frozen=True):
    """What a recorder knows of the configuration that a turn runs under. `prices` are by full model name."""

    config: Config
    providers: Mapping[str, MountedProvider]
    prices: Mapping[str, Price | None]
    tools: tuple[Tool, ...]


class Headers:
    """The headers of recordings made under the same premises; most turns have the same."""

    def __init__(self, premises: Premises) -> None:
        self.premises = premises
        self._made: dict[tuple[str, tuple[tuple[str, str], ...]], Header] = {}

    def of(self, face: str, models: tuple[tuple[str, str], ...]) -> Header:
        """See `header_of`."""
        header = self._made.get((face, models))
        if header is None:
            header = header_of(self.premises, face=face, models=models)
            if len(self._made) < KEPT_HEADERS:
                self._made[face, models] = header
        return header


def header_of(premises: Premises, *, face: str, models: Collection[tuple[str, str]]) -> Header:
    """The header of a turn, but for its beginning.

    Args:
        models: the models that it could use, as provider and model id.
    """
    concerned: dict[str, list[str]] = {}
    for provider, model in models:
        concerned.setdefault(provider, []).append(model)
    names = {f"{provider}/{model}" for provider, model in models}
    return Header(
        trio_agent_recording=FORMAT_VERSION,
        face=face,
        timers="recorded",
        versions={"python": platform.python_version(), **{name: _version(name) for name in _VERSIONS}},
        config=_config(premises, concerned),
        providers={
            provider: _facts(premises.providers[provider], used)
            for provider, used in concerned.items()
            if provider in premises.providers
        },
        prices={name: plain(premises.prices.get(name)) for name in sorted(names)},
        tools=[plain(tool) for tool in premises.tools],
    )


def _config(premises: Premises, concerned: Mapping[str, Collection[str]]) -> dict[str, Any]:
    config = premises.config
    told: dict[str, Any] = {
        "providers": {
            name: _provider(premises, name, models)
            for name, models in concerned.items()
            if name in premises.providers
        }
    }
    for name, section, default in (
        ("server", config.server, ServerConfig()),
        ("agent", config.agent, AgentConfig()),
    ):
        differing = _differing(section, default)
        if differing:
            told[name] = differing
    if config.host_tools:
        told["host_tools"] = plain(config.host_tools)
    if config.routing.aliases or config.routing.roles:
        told["routing"] = plain(config.routing)
    return told


def _provider(premises: Premises, name: str, models: Collection[str]) -> dict[str, Any]:
    settings = harmless_settings(premises.config, name)
    if isinstance(named := settings.pop("models", None), list):
        # What the operator says of a model may decide what is sent; of others, nothing is to be told.
        settings["models"] = [each for each in named if _id_of(each) in models]
    url = premises.providers[name].provider.get_info().base_url
    if "base_url" not in settings and url:
        settings["base_url"] = bare_url(url)
    return {"module": premises.config.providers[name].module, "config": settings}


def _id_of(model: Any) -> Any:
    return model.get("id") if isinstance(model, dict) else model


def _differing(section: Section, default: Section) -> dict[str, Any]:
    said, usual = msgspec.to_builtins(section), msgspec.to_builtins(default)
    return {
        name: value for name, value in said.items() if value != usual[name] and name not in _NOT_OF_A_TURN
    }


def _facts(mounted: MountedProvider, models: Collection[str]) -> ProviderFacts:
    return ProviderFacts(
        models=[plain(each) for each in mounted.models if each.id in models],
        limits=plain(mounted.provider.limits),
        wire=mounted.provider.get_info().wire,
    )


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
