"""What an operator can say of a model in `config.models`: limits, abilities, prices. No HTTP."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, TypeAlias

from msgspec import Meta, Struct

from trio_agent.providers.contract import CostTier, ModelInfo, ProviderConfigError
from trio_agent.statemachine.money import Price

Name: TypeAlias = Annotated[str, Meta(min_length=1)]
Tokens: TypeAlias = Annotated[int, Meta(gt=0)]


class PriceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """USD per token, as decimal strings: `"0.0000025"`."""

    input: str
    output: str
    cached_input: str | None = None
    cache_write: str | None = None
    cache_write_1h: str | None = None
    reasoning: str | None = None


class ModelSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model named by the operator. Limits are in tokens; what is absent is not the operator's to say."""

    id: Name
    display_name: str | None = None
    context_window: Tokens | None = None
    max_output_tokens: Tokens | None = None
    capabilities: tuple[Name, ...] | None = None
    price: PriceSettings | None = None
    cost_tier: CostTier | None = None


def model_info(model: str | ModelSettings, path: str) -> ModelInfo:
    """A configured model as the listing shows it. Raises ProviderConfigError, naming `path`, for a price."""
    if isinstance(model, str):
        return ModelInfo(id=model)
    return ModelInfo(
        id=model.id,
        display_name=model.display_name,
        context_window=model.context_window,
        max_output_tokens=model.max_output_tokens,
        capabilities=model.capabilities or (),
        price=None if model.price is None else price_of(model.price, f"{path}.price"),
        metadata={} if model.cost_tier is None else {"cost_tier": model.cost_tier},
    )


def price_of(settings: PriceSettings, path: str) -> Price:
    """The price that the strings mean. Raises ProviderConfigError, naming the one at fault below `path`."""
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
