"""The `config` keys that all shipped provider modules share, checked before anything is mounted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

from msgspec import Meta, Struct

from trio_agent.providers.contract import CallLimits, ModelInfo, ProviderConfigError
from trio_agent.providers.http import HttpSettings, UpstreamHttp
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


_SECRET_HEADER: Final = re.compile(r"auth|key|token|secret|cookie", re.IGNORECASE)
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile(r"(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?")  # RFC 9110, 5.5


def upstream_http(
    settings: ProviderSettings, *, base_url: str, auth: Mapping[str, str], api_key: str | None
) -> UpstreamHttp:
    """The HTTP client for these settings.

    Args:
        settings: gives the operator's headers, which win over `auth`, and the limits.
        base_url: the address to use.
        auth: the headers that carry the key.
        api_key: kept out of all messages, as is every header value that sounds secret.

    Raises:
        ProviderConfigError: the address, the key or a header cannot be used.
    """
    for name, value in settings.headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise ProviderConfigError(
                f"header {name[:60]!r} cannot be sent",
                remedy="Header names are tokens, values are printable ASCII on one line.",
                path="config.headers",
            )
    if any(not _HEADER_VALUE.fullmatch(value) for value in auth.values()):
        raise ProviderConfigError(
            "the API key holds characters that no HTTP header can carry",
            remedy="Copy the key again, without line ends or typographic characters.",
            path="config.api_key",
        )
    own = {name.lower() for name in settings.headers}
    headers = {name: value for name, value in auth.items() if name.lower() not in own} | settings.headers
    secrets = [value for name, value in settings.headers.items() if _SECRET_HEADER.search(name)]
    try:
        return UpstreamHttp(
            HttpSettings(
                base_url=base_url,
                headers=headers,
                connect_timeout=settings.connect_timeout,
                max_connections=settings.max_connections,
            ),
            secrets=(*secrets, *([api_key] if api_key else [])),
        )
    except ValueError as error:
        raise ProviderConfigError(
            f"base_url: {error}",
            remedy="Give the address up to and including the version, such as https://api.example.com/v1.",
            path="config.base_url",
        ) from None
