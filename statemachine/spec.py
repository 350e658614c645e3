"""What a turn is made with: everything it will ever know that does not come in as an event."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Literal

from msgspec import Struct

from .conversation import Message
from .money import Price


class Candidate(Struct, frozen=True, kw_only=True):
    """A model that may serve the turn, in order of preference. Limits are in seconds.

    `context_window` is in tokens, `None` where unknown. `price` is `None` where unknown.
    """

    provider: str
    model: str
    price: Price | None = None
    context_window: int | None = None
    max_retries: int = 2
    first_byte_timeout: float = 300.0
    idle_timeout: float = 120.0

    @property
    def origin(self) -> str:
        """The name that signed reasoning of this model is bound to."""
        return f"{self.provider}/{self.model}"


class Limits(Struct, frozen=True, kw_only=True):
    """Bounds of one turn; durations in seconds, money in USD.

    `preflight` is the window in which a failure is still an HTTP status and in which retries may start;
    a turn that is not streamed keeps the second meaning. `turn` runs for each response; it is cleared while
    the turn waits for the caller's tools and runs anew after that. `model_calls` and `cost_usd` count over
    the whole turn, parks included; with `cost_usd` set, only candidates with a known price are called.
    `answer_chars` bounds what one model call may say, in characters: text, reasoning and arguments.
    """

    preflight: float = 5.0
    keepalive: float = 3.0
    turn: float = 600.0
    host_tool: float = 900.0
    model_calls: int = 24
    cost_usd: Decimal | None = None
    answer_chars: int = 8_000_000


class TurnSpec(Struct, frozen=True, kw_only=True):
    """One turn as it was asked for.

    `routed` says that the caller named a route (a role), not one model. `host` says what a call of the
    caller's tool does: `park` ends the response and stores the turn, `wait` keeps it alive. `seed` feeds
    the jitter of retries.
    """

    turn_id: str
    stream: bool
    candidates: tuple[Candidate, ...]
    messages: tuple[Message, ...]
    server_tools: tuple[str, ...] = ()
    host_tools: tuple[str, ...] = ()
    host: Literal["park", "wait"] = "park"
    routed: bool = False
    limits: Limits = Limits()
    seed: int = 0


def checked(spec: TurnSpec) -> TurnSpec:
    """`spec` itself, when a turn can be made with it and stored.

    Raises:
        ValueError: there is no candidate, or a duration is negative or not finite (JSON has no infinity).
    """
    if not spec.candidates:
        raise ValueError("a turn needs at least one candidate")
    limits = spec.limits
    durations = {
        "limits.preflight": limits.preflight,
        "limits.keepalive": limits.keepalive,
        "limits.turn": limits.turn,
        "limits.host_tool": limits.host_tool,
    }
    for index, each in enumerate(spec.candidates):
        durations[f"candidates[{index}].first_byte_timeout"] = each.first_byte_timeout
        durations[f"candidates[{index}].idle_timeout"] = each.idle_timeout
    for name, seconds in durations.items():
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"{name} must be a finite number of seconds, not {seconds}")
    return spec
