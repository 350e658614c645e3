"""What model calls cost: prices per token and their exact sum. Decimal throughout, never float."""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct

from .conversation import Usage


class Price(Struct, frozen=True, kw_only=True):
    """USD per token, by token class. A class without its own price costs what its parent class costs.

    `above` and `long` describe vendors that charge a whole call by another list once its prompt is
    larger than `above` tokens.
    """

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    reasoning: Decimal | None = None
    above: int | None = None
    long: Price | None = None


def cost_of(usage: Usage, price: Price) -> Decimal:
    """The exact cost in USD of one model call."""
    if price.long is not None and price.above is not None and usage.input_tokens > price.above:
        price = price.long
    write = price.input if price.cache_write is None else price.cache_write
    write_1h = write if price.cache_write_1h is None else price.cache_write_1h
    cached = price.input if price.cached_input is None else price.cached_input
    reasoning = price.output if price.reasoning is None else price.reasoning
    fresh = max(0, usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens)
    spoken = max(0, usage.output_tokens - usage.reasoning_tokens)
    return (
        fresh * price.input
        + usage.cached_input_tokens * cached
        + (usage.cache_write_tokens - usage.cache_write_1h_tokens) * write
        + usage.cache_write_1h_tokens * write_1h
        + spoken * price.output
        + usage.reasoning_tokens * reasoning
    )
