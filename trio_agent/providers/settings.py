"""The `config` keys that all shipped provider modules share, checked before anything is mounted."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from trio_agent.providers.contract import CallLimits, CostTier, ModelInfo, ProviderConfigError
from trio_agent.providers.http import HttpSettings, UpstreamHttp
from trio_agent.statemachine.money import Price

S = TypeVar("S", bound="ProviderSettings")

_Seconds = Annotated[float, Meta(gt=0, le=86400)]
_Tokens = Annotated[int, Meta(gt=0)]
_Name = Annotated[str, Meta(min_length=1)]


class PriceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """USD per token, as decimal strings: `"0.0000025"`."""

    input: str
    output: str
    cached_input: str | None = None
    cache_write: str | None = None
    cache_write_1h: str | None = None
    reasoning: str | None = None


class ModelSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model named by the operator. Limits are in tokens."""

    id: _Name
    display_name: str | None = None
    context_window: _Tokens | None = None
    max_output_tokens: _Tokens | None = None
    capabilities: tuple[_Name, ...] = ()
    price: PriceSettings | None = None
    cost_tier: CostTier | None = None


class ProviderSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every shipped provider can be told. Durations are in seconds.

    `models` skips listing. A module with keys of its own derives from this struct.
    """

    base_url: _Name | None = None
    api_key: str | None = None
    headers: dict[str, str] = {}
    models: tuple[_Name | ModelSettings, ...] | None = None
    connect_timeout: _Seconds = 10.0
    first_byte_timeout: _Seconds | None = None
    idle_timeout: _Seconds | None = None
    max_retries: Annotated[int, Meta(ge=0, le=10)] | None = None
    max_connections: Annotated[int, Meta(ge=1, le=10000)] = 100
    on_disconnect: Literal["cancel", "drain"] | None = None
    drain_timeout: _Seconds | None = None

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
        models = [_model_info(model, f"config.models[{place}]") for place, model in enumerate(self.models)]
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


def parse_settings(config: Mapping[str, Any], kind: type[S]) -> S:
    """`config` as a settings struct.

    Raises:
        ProviderConfigError: an unknown key (with the nearest valid one), a wrong type or value. Names the
            path; never shows the value, which may be a secret.
    """
    _refuse_unknown_keys(config, kind, "config")
    models = config.get("models")
    for place, model in enumerate(models if isinstance(models, (list, tuple)) else ()):
        if isinstance(model, Mapping):
            _refuse_unknown_keys(model, ModelSettings, f"config.models[{place}]")
            if isinstance(model.get("price"), Mapping):
                _refuse_unknown_keys(model["price"], PriceSettings, f"config.models[{place}].price")
    try:
        settings = msgspec.convert(dict(config), kind)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        path = "config" + where.rstrip("`").replace("[...]", "[*]")
        raise ProviderConfigError(what, remedy=f"Correct {path}.", path=path) from None
    settings.listed_models()
    return settings


def _refuse_unknown_keys(given: Mapping[str, Any], kind: type[Struct], path: str) -> None:
    known = [field.encode_name for field in msgspec.structs.fields(kind)]
    for key in given:
        if key in known:
            continue
        near = difflib.get_close_matches(str(key)[:100], known, n=1)
        remedy = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(known)}."
        raise ProviderConfigError(
            f"unknown key {str(key)[:100]!r}", remedy=remedy, path=f"{path}.{str(key)[:100]}"
        )


def _model_info(model: str | ModelSettings, path: str) -> ModelInfo:
    if isinstance(model, str):
        return ModelInfo(id=model)
    return ModelInfo(
        id=model.id,
        display_name=model.display_name,
        context_window=model.context_window,
        max_output_tokens=model.max_output_tokens,
        capabilities=model.capabilities,
        price=None if model.price is None else _price(model.price, f"{path}.price"),
        metadata={} if model.cost_tier is None else {"cost_tier": model.cost_tier},
    )


def _price(settings: PriceSettings, path: str) -> Price:
    amounts: dict[str, Any] = {}
    for name in settings.__struct_fields__:
        text = getattr(settings, name)
        if text is None:
            continue
        amount = usd_per_token(text)
        if amount is None:
            raise ProviderConfigError(
                f"{text[:40]!r} is no price",
                remedy='Write USD per token as a decimal string, such as "0.0000025".',
                path=f"{path}.{name}",
            )
        amounts[name] = amount
    return Price(**amounts)


def usd_per_token(text: str) -> Decimal | None:
    """A price from its decimal string; `None` where it is none (not a number, negative, beyond 1 USD)."""
    try:
        amount = Decimal(text)
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and 0 <= amount <= 1 else None


_SECRET_HEADER: Final = re.compile(r"auth|key|token|secret|cookie", re.IGNORECASE)
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")


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
