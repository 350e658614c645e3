"""Prices out of the package `genai-prices`, in our terms.

The package comes with the extra `prices` and brings pydantic along, so it is imported only when it is
asked for. Its data are USD per million tokens, or tiers of them that hold for a whole call.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from trio_agent.statemachine.money import Price

VENDORS: Mapping[str, str] = {
    "anthropic": "anthropic",
    "azure-openai": "azure",
    "gemini": "google",
    "groq": "groq",
    "mistral": "mistral",
    "openai": "openai",
    "together": "together",
    "xai": "x-ai",
}
"""Provider modules of ours, and what genai-prices calls the vendor behind them."""

# Our class of tokens: the package's keys for it, the first that has a price counts.
_CLASSES: Mapping[str, tuple[str, ...]] = {
    "input": ("input_mtok",),
    "output": ("output_mtok",),
    "cached_input": ("cache_read_mtok",),
    "cache_write": ("cache_write_5m_mtok", "cache_write_mtok"),
    "cache_write_1h": ("cache_write_1h_mtok",),
    "reasoning": ("output_reasoning_mtok",),
}


class GenaiPrices:
    """The data that come with the installed package; nothing is fetched.

    Raises:
        ImportError: the package is not installed.
    """

    def __init__(self) -> None:
        self._snapshot: Any = importlib.import_module("genai_prices.data_snapshot").get_snapshot()

    def lookup(self, provider: str, model: str, at: datetime) -> Price | None:
        """The price of a model at a time, `None` where it is not known or not of our form."""
        vendor = VENDORS.get(provider)
        if vendor is None:
            return None
        try:
            _, found = self._snapshot.find_provider_model(model, None, vendor, None)
        except LookupError:
            return None
        return price_from(found.get_prices(at))


def price_from(prices: Any) -> Price | None:
    """A `genai_prices.types.ModelPrice` in our terms.

    `None` where it cannot be told exactly: no price for input or output, or nothing but zeros (the data
    say so of previews), a fee for each request, more than two tiers, or classes whose tiers begin at
    different sizes.
    """
    if getattr(prices, "requests_kcount", None) is not None:
        return None
    base: dict[str, Any] = {}
    long: dict[str, Any] = {}
    starts: set[int] = set()
    for name, keys in _CLASSES.items():
        value = next((found for key in keys if (found := getattr(prices, key, None)) is not None), None)
        if value is None:
            continue
        tiers = getattr(value, "tiers", ())
        if len(tiers) > 1:
            return None
        starts.update(tier.start for tier in tiers)
        base[name] = _per_token(value.base if tiers else getattr(value, "base", value))
        long[name] = _per_token(tiers[0].price) if tiers else base[name]
    if len(starts) > 1 or not {"input", "output"} <= base.keys() or not any(base.values()):
        return None
    if not starts:
        return Price(**base)
    return Price(**base, above=starts.pop(), long=Price(**long))


def _per_token(per_million: Decimal) -> Decimal:
    return per_million.scaleb(-6)
