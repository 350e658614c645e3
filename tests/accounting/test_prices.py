"""Prices: what one call costs over all token classes, and where a price comes from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_agent.accounting.genai import price_from
from trio_agent.accounting.prices import PriceBook
from trio_agent.statemachine.conversation import Usage
from trio_agent.statemachine.money import Price, cost_of

FULL = Price(
    input=Decimal("0.000003"),
    output=Decimal("0.000015"),
    cached_input=Decimal("0.0000003"),
    cache_write=Decimal("0.00000375"),
    cache_write_1h=Decimal("0.000006"),
    reasoning=Decimal("0.00002"),
)
PLAIN = Price(input=Decimal("0.000002"), output=Decimal("0.000008"))
TIERED = Price(input=Decimal("0.000001"), output=Decimal("0.000002"), above=1000, long=PLAIN)
MIXED = Usage(
    input_tokens=10_000,
    output_tokens=500,
    cached_input_tokens=6_000,
    cache_write_tokens=3_000,
    cache_write_1h_tokens=1_000,
    reasoning_tokens=200,
)

COSTS: list[tuple[str, Price, Usage, str]] = [
    ("nothing", FULL, Usage(), "0"),
    ("fresh input", FULL, Usage(input_tokens=1000), "0.003"),
    ("output", FULL, Usage(output_tokens=1000), "0.015"),
    ("reasoning is inside the output", FULL, Usage(output_tokens=1000, reasoning_tokens=400), "0.017"),
    ("cached input", FULL, Usage(input_tokens=1000, cached_input_tokens=1000), "0.0003"),
    ("short cache write", FULL, Usage(input_tokens=1000, cache_write_tokens=1000), "0.00375"),
    (
        "long cache write",
        FULL,
        Usage(input_tokens=1000, cache_write_tokens=1000, cache_write_1h_tokens=1000),
        "0.006",
    ),
    # .003 fresh + .0018 cached + .0075 written + .006 written for long + .0045 spoken + .004 thought
    ("all classes", FULL, MIXED, "0.0268"),
    # A class without a price of its own costs what its parent costs: 10000 * .000002 + 500 * .000008
    ("no own prices", PLAIN, MIXED, "0.024"),
    ("at the threshold", TIERED, Usage(input_tokens=1000, output_tokens=10), "0.00102"),
    ("above it, the whole call", TIERED, Usage(input_tokens=1001, output_tokens=10), "0.002082"),
]


@pytest.mark.parametrize(
    ("price", "usage", "expected"), [case[1:] for case in COSTS], ids=[case[0] for case in COSTS]
)
def test_costs_by_hand(price: Price, usage: Usage, expected: str) -> None:
    """Every token class is charged at its own price, exactly."""
    assert cost_of(usage, price) == Decimal(expected)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    fresh, cached, short, long, spoken, reasoning = (draw(st.integers(0, 10**7)) for _ in range(6))
    return Usage(fresh + cached + short + long, spoken + reasoning, cached, short + long, long, reasoning)


amounts = st.decimals(min_value=0, max_value=1, places=12)
prices = st.builds(
    Price,
    input=amounts,
    output=amounts,
    cached_input=st.none() | amounts,
    cache_write=st.none() | amounts,
    cache_write_1h=st.none() | amounts,
    reasoning=st.none() | amounts,
)


@given(usages(), usages(), prices)
def test_cost_is_additive_without_tiers(one: Usage, other: Usage, price: Price) -> None:
    """The cost of two calls together is the sum of their costs, to the last digit."""
    assert cost_of(one + other, price) == cost_of(one, price) + cost_of(other, price)


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> PriceBook:
    """A book without the optional package, whether it is installed, or imported already, or not."""
    for name in ("genai_prices", "genai_prices.data_snapshot"):
        monkeypatch.setitem(sys.modules, name, None)
    return PriceBook.load({"lab/own": PLAIN, "gpt-4.1": FULL, "gpt-5": PLAIN, "openai/gpt-5": TIERED})


KNOWN: list[tuple[str, str, str | None]] = [
    ("anthropic", "claude-sonnet-4-5", "0.000003"),
    ("anthropic", "claude-sonnet-4-5-20250929", "0.000003"),
    ("anthropic", "claude-sonnet-4-5-latest", "0.000003"),
    ("anthropic", "claude-opus-4@20250514", "0.000015"),
    ("anthropic", "Claude-Opus-5-5", "0.000004"),
    ("openai", "gpt-4.1-mini-2025-04-14", "0.0000004"),
    ("openai", "gpt-5-nano-2025-08-07", "0.00000005"),
    ("gemini", "models/gemini-2.5-pro", "0.00000125"),
    ("mistral", "mistral-large-2512", "0.0000005"),
    ("groq", "openai/gpt-oss-120b", "0.00000015"),
    ("xai", "grok-4-0709", "0.000003"),
    # Overrides: the provider's own first, then the bare name, for any provider.
    ("openai", "gpt-5", "0.000001"),
    ("lab", "gpt-5", "0.000002"),
    ("lab", "own", "0.000002"),
    ("lab", "gpt-4.1", "0.000003"),
    # Not known is not free.
    ("anthropic", "own", None),
    ("anthropic", "claude-sonnet-4-5-turbo", None),
    ("anthropic", "claude", None),
    ("openai", "gpt-5-image", None),
    ("openai", "gpt-4.1-mini-0414", None),
    ("openai", "", None),
    ("ollama", "gpt-oss-20b", None),
    ("vllm", "openai/gpt-oss-120b", None),
    ("replay", "claude-sonnet-4-5", None),
    ("chat-completions", "gpt-4o", None),
]


@pytest.mark.parametrize(("provider", "model", "per_input_token"), KNOWN)
def test_lookup(book: PriceBook, provider: str, model: str, per_input_token: str | None) -> None:
    """Exact names, dated names and overrides have a price; what is merely similar has none."""
    price = book.lookup(provider, model)
    assert (None if price is None else price.input) == (
        None if per_input_token is None else Decimal(per_input_token)
    )


def test_a_renamed_provider_has_its_modules_prices(book: PriceBook) -> None:
    """The vendor is known by the module, the operator's own prices by the id."""
    assert book.lookup("work", "claude-opus-5-5") is None
    assert book.lookup("work", "claude-opus-5-5", module="anthropic") == book.lookup(
        "anthropic", "claude-opus-5-5"
    )
    assert book.lookup("lab", "own", module="vllm") == PLAIN


def test_the_shipped_table(book: PriceBook) -> None:
    """Tiers and cache classes are in the table, its source is named, and no model is free."""
    haiku = book.lookup("anthropic", "claude-haiku-5-5")
    assert haiku == Price(
        input=Decimal("0.0000001"),
        output=Decimal("0.0000005"),
        cached_input=Decimal("0.00000001"),
        cache_write=Decimal("0.000000125"),
        cache_write_1h=Decimal("0.0000002"),
        above=100_000,
        long=Price(
            input=Decimal("0.0000005"),
            output=Decimal("0.0000025"),
            cached_input=Decimal("0.00000005"),
            cache_write=Decimal("0.000000625"),
            cache_write_1h=Decimal("0.000001"),
        ),
    )
    assert book.source.package == "genai-prices"
    assert book.source.licence.startswith("The MIT License")
    assert datetime.fromisoformat(book.source.date)
    every = list(_every(book))
    assert len(every) > 100
    assert all(price.input > 0 and price.output >= price.input for price in every)
    assert all((price.above is None) == (price.long is None) for price in every)


def _every(book: PriceBook) -> Iterator[Price]:
    for models in book._table.values():
        yield from models.values()


def tiers(base: str, *steps: tuple[int, str]) -> SimpleNamespace:
    made = [SimpleNamespace(start=start, price=Decimal(price)) for start, price in steps]
    return SimpleNamespace(base=Decimal(base), tiers=made)


FOREIGN: list[tuple[dict[str, Any], Price | None]] = [
    (
        {"input_mtok": Decimal(3), "output_mtok": Decimal(15), "cache_write_1h_mtok": Decimal(6)},
        Price(input=Decimal("0.000003"), output=Decimal("0.000015"), cache_write_1h=Decimal("0.000006")),
    ),
    (
        {"input_mtok": tiers("1", (1000, "2")), "output_mtok": Decimal(5)},
        Price(
            input=Decimal("0.000001"),
            output=Decimal("0.000005"),
            above=1000,
            long=Price(input=Decimal("0.000002"), output=Decimal("0.000005")),
        ),
    ),
    (
        {"input_mtok": tiers("1"), "output_mtok": Decimal(5)},
        Price(input=Decimal("0.000001"), output=Decimal("0.000005")),
    ),
    ({"input_mtok": Decimal(1)}, None),
    ({"input_mtok": Decimal(0), "output_mtok": Decimal(0)}, None),
    ({"input_mtok": Decimal(1), "output_mtok": Decimal(1), "requests_kcount": Decimal(5)}, None),
    ({"input_mtok": tiers("1", (10, "2"), (20, "3")), "output_mtok": Decimal(5)}, None),
    ({"input_mtok": tiers("1", (10, "2")), "output_mtok": tiers("1", (20, "2"))}, None),
]


@pytest.mark.parametrize(("foreign", "expected"), FOREIGN)
def test_prices_of_the_package(foreign: dict[str, Any], expected: Price | None) -> None:
    """What the package says is taken over exactly, or not at all."""
    assert price_from(SimpleNamespace(**foreign)) == expected


def test_the_installed_package_goes_before_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is asked with the vendor's name and the time; the table stands behind it."""
    asked: list[tuple[str, str | None, datetime]] = []

    class Model:
        def __init__(self, name: str, vendor: str | None) -> None:
            self.name, self.vendor = name, vendor

        def get_prices(self, at: datetime) -> SimpleNamespace:
            asked.append((self.name, self.vendor, at))
            return SimpleNamespace(input_mtok=Decimal(7), output_mtok=Decimal(8))

    class Snapshot:
        def find_provider_model(self, name: str, _: None, vendor: str | None, __: None) -> tuple[None, Model]:
            if name == "claude-opus-5-5":
                raise LookupError(name)
            return None, Model(name, vendor)

    package, snapshot = ModuleType("genai_prices"), ModuleType("genai_prices.data_snapshot")
    snapshot.get_snapshot = Snapshot  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "genai_prices", package)
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", snapshot)
    book = PriceBook.load({"gemini/mine": FULL}, wall_clock=lambda: 1_790_000_000.0)
    library = Price(input=Decimal("0.000007"), output=Decimal("0.000008"))
    assert book.lookup("gemini", "mine") == FULL
    assert book.lookup("gemini", "gemini-2.5-pro") == library
    assert book.lookup("anthropic", "claude-opus-5-5") == Price(
        input=Decimal("0.000004"),
        output=Decimal("0.00002"),
        cached_input=Decimal("0.0000002"),
        cache_write=Decimal("0.000005"),
        cache_write_1h=Decimal("0.000008"),
    )
    assert book.lookup("vllm", "anything") is None
    assert asked == [("gemini-2.5-pro", "google", datetime.fromtimestamp(1_790_000_000, UTC))]
