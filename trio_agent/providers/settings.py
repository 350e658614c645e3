"""The `config` keys that all shipped provider modules share, checked before anything is mounted. No HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from msgspec import Meta, Struct

from trio_agent.providers.contract import CallLimits, ModelInfo, ProviderConfigError
from trio_agent.providers.model_settings import ModelSettings, Name, model_info
from trio_agent.providers.strict_config import Retries, Seconds, parse_config

S = TypeVar("S", bound="ProviderSettings")


class ProviderSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every shipped provider can be told. Durations are in seconds.

    `models` skips listing. A module with keys of its own derives from this struct.
    """

    base_url: Name | None = None
    api_key: str | None = None
    headers: dict[str, str] = {}
    models: tuple[Name | ModelSettings, ...] | None = None
    connect_timeout: Seconds = 10.0
    first_byte_timeout: Seconds | None = None
    idle_timeout: Seconds | None = None
    max_retries: Retries | None = None
    max_connections: Annotated[int, Meta(ge=1, le=10000)] = 100
    on_disconnect: Literal["cancel", "drain"] | None = None
    drain_timeout: Seconds | None = None

    def limits(self) -> CallLimits:
        """The limits of a call; what is not set keeps `CallLimits`' default."""
        names = ("first_byte_timeout", "idle_timeout", "max_retries", "on_disconnect", "drain_timeout")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return CallLimits(**given)

    def listed_models(self) -> list[ModelInfo] | None:
        """The models that the operator named, or `None` where the upstream is to be asked.

        Raises:
            ProviderConfigError: a price is no amount of money, or an id comes twice.
        """
        if self.models is None:
            return None
        models = [model_info(model, f"config.models[{place}]") for place, model in enumerate(self.models)]
        seen: set[str] = set()
        for place, model in enumerate(models):
            if model.id in seen:
                raise ProviderConfigError(
                    f"model {model.id!r} is listed twice",
                    remedy="Leave one of them out.",
                    path=f"config.models[{place}]",
                )
            seen.add(model.id)
        return models


class TwoWireSettings(ProviderSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the modules can be told whose vendors have Chat Completions and Responses.

    Without `wire` the model decides. `reasoning_summary` asks for a summary of the reasoning of models that
    are called over Responses; the vendor gives one only to organisations that it has verified.
    """

    wire: Literal["chat", "responses"] | None = None
    reasoning_summary: Literal["auto", "concise", "detailed"] | None = None


def parse_settings(config: Mapping[str, Any], kind: type[S]) -> S:
    """`config` as a settings struct.

    Raises:
        ProviderConfigError: an unknown key (with the nearest valid one), a wrong type or value. Names the
            path; never shows the value, which may be a secret.
    """
    settings = parse_config(config, kind)
    settings.listed_models()
    return settings
