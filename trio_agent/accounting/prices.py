"""What models cost where their provider does not say so itself.

Three sources, in this order: the prices of the configuration (`prices`), the package `genai-prices` where
it is installed, and the table `prices.json` that ships with this module (made by `tools/update_prices.py`).
What none of them knows has no price, and is never taken for free.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import Struct

from trio_agent.accounting.genai import GenaiPrices
from trio_agent.statemachine.money import Price

# A release date, a stable version or `latest` after a name does not change a price; other suffixes do.
_SUFFIX = re.compile(r"[-@](\d{8}|\d{4}-\d{2}-\d{2}|\d{3}|latest)")


class TableSource(Struct, frozen=True):
    """Where the shipped table comes from, and the day (ISO 8601) whose prices it holds."""

    package: str
    version: str
    date: str
    unit: str
    licence: str


class _Figures(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """USD per million tokens."""

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    reasoning: Decimal | None = None


class _Entry(_Figures, frozen=True, forbid_unknown_fields=True, kw_only=True):
    names: list[str]
    above: int | None = None
    long: _Figures | None = None


class _Table(Struct, frozen=True):
    source: TableSource
    models: dict[str, list[_Entry]]


_decode_table = msgspec.json.Decoder(_Table).decode


class PriceBook:
    """Prices by provider and model. Build it with `load`.

    Args:
        overrides: prices by `provider/model` or `model`, in USD per token; they win.
        table: prices by provider module and model name.
        source: where `table` comes from.
        library: the prices of an installed package, asked before the table.
        wall_clock: seconds since the epoch: which of several prices over time holds.
    """

    def __init__(
        self,
        overrides: Mapping[str, Price],
        table: Mapping[str, Mapping[str, Price]],
        source: TableSource,
        *,
        library: GenaiPrices | None,
        wall_clock: Callable[[], float],
    ) -> None:
        self._overrides = dict(overrides)
        self._table = table
        self.source = source
        self._library = library
        self._wall_clock = wall_clock

    @classmethod
    def load(
        cls, overrides: Mapping[str, Price], *, wall_clock: Callable[[], float] = time.time
    ) -> PriceBook:
        """Read the shipped table, and import `genai-prices` where it is installed.

        The import takes a fraction of a second: call this while booting, not within a turn.
        """
        table, source = _shipped()
        try:
            library = GenaiPrices()
        except ImportError:
            library = None
        return cls(overrides, table, source, library=library, wall_clock=wall_clock)

    def lookup(
        self, provider: str, model: str, *, module: str | None = None, own: Price | None = None
    ) -> Price | None:
        """The price of a model, `None` where it is not known.

        Args:
            provider: the provider's id in the configuration.
            model: the provider's own id of the model.
            module: the provider's module, where it differs from the id. Vendors' prices go by it:
                `ollama`, `vllm`, `chat-completions` and `replay` have none.
            own: what the provider itself says the model costs; it gives way to the configuration's
                prices only.
        """
        for key in (f"{provider}/{model}", model):
            if key in self._overrides:
                return self._overrides[key]
        if own is not None:
            return own
        vendor, name = module or provider, model.lower().removeprefix("models/")
        if self._library is not None:
            price = self._library.lookup(vendor, name, datetime.fromtimestamp(self._wall_clock(), UTC))
            if price is not None:
                return price
        known = self._table.get(vendor, {})
        return known.get(name) or known.get(_without_suffix(name))


@cache
def _shipped() -> tuple[Mapping[str, Mapping[str, Price]], TableSource]:
    """The table that ships with this module, by provider module and model name, and where it comes from."""
    decoded = _decode_table((files("trio_agent.accounting") / "prices.json").read_bytes())
    table = {
        module: MappingProxyType({name: _price(entry) for entry in entries for name in entry.names})
        for module, entries in decoded.models.items()
    }
    return MappingProxyType(table), decoded.source


def _without_suffix(name: str) -> str:
    for found in _SUFFIX.finditer(name):
        if found.end() == len(name):
            return name[: found.start()]
    return name


def _price(entry: _Entry) -> Price:
    classes = _per_token(entry)
    if entry.long is None:
        return Price(**classes)
    return Price(**classes, above=entry.above, long=Price(**_per_token(entry.long)))


def _per_token(figures: _Figures) -> dict[str, Any]:
    return {
        name: value.scaleb(-6)
        for name in _Figures.__struct_fields__
        if (value := getattr(figures, name)) is not None
    }
