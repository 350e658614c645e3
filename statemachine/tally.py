"""Usage and cost, summed over model calls, with an honest word about where the figures come from."""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct

from .conversation import Usage
from .effects import UsageSource
from .money import Price, cost_of

_WORST: dict[UsageSource, int] = {"provider": 0, "estimated": 1, "unknown": 2}


class CallFigures(Struct, frozen=True):
    """What one model call used. `billed` is false for a call that was refused before it began to answer."""

    usage: Usage
    source: UsageSource
    cost_usd: Decimal | None
    billed: bool = True


class Tally(Struct):
    """A running sum. `cost_usd` is absent as soon as one billed call's cost is unknown; `known_cost_usd`
    is the sum of those that are known, for limits."""

    usage: Usage = Usage()
    known_cost_usd: Decimal = Decimal(0)
    priced: bool = True
    source: UsageSource = "provider"
    calls: int = 0

    def add(self, figures: CallFigures) -> None:
        if not figures.billed:
            return
        self.calls += 1
        self.usage = self.usage + figures.usage
        if figures.cost_usd is None:
            self.priced = False
        else:
            self.known_cost_usd += figures.cost_usd
        if _WORST[figures.source] > _WORST[self.source]:
            self.source = figures.source

    @property
    def cost_usd(self) -> Decimal | None:
        return self.known_cost_usd if self.priced and self.calls else None

    @property
    def usage_source(self) -> UsageSource:
        return self.source if self.calls else "unknown"


def figures_of(
    reported: Usage | None,
    reported_cost_usd: Decimal | None,
    price: Price | None,
    *,
    finished: bool,
    answered: bool,
) -> CallFigures:
    """The figures of a call that ended.

    The provider's own cost wins over the price list. Figures of a call that did not finish are a lower
    bound and are called `estimated`; without any figures the usage is `unknown`, never zero. A call that
    failed before it answered at all was not billed.
    """
    if reported is None:
        return CallFigures(Usage(), "unknown", None, billed=finished or answered)
    cost = reported_cost_usd
    if cost is None and price is not None:
        cost = cost_of(reported, price)
    return CallFigures(reported, "provider" if finished else "estimated", cost)
