"""The `config` keys of the provider `replay`. No I/O."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct

from .contract import CallLimits
from .model_settings import ModelSettings
from .strict_config import Retries, Seconds

_Pause: TypeAlias = Annotated[float, Meta(ge=0, le=86_400)]


class ReplayConfig(Struct, forbid_unknown_fields=True, kw_only=True):
    """The keys of `config`. Durations are seconds, prices USD per token as decimal strings.

    `models` chooses what is served, in this order, by id or as an object with limits and prices; by
    default everything is. `scripts` adds models: `{id: {"calls": [[step, …], …]}}`; `scenarios` is the
    path of a JSON file of the same. `fixtures` is a folder: every `*.sse` file in it is a model that plays
    the bytes through the decoder of the real adapter. `delay` is the silence before `slow-headers`, `pace`
    the one before each word of `slow`, `words` the length of `long`. `seed` makes the ids of two instances
    differ.
    """

    models: list[str | ModelSettings] | None = None
    scripts: dict[str, Any] = {}
    scenarios: str | None = None
    fixtures: str | None = None
    delay: _Pause = 8.0
    pace: _Pause = 1.0
    words: Annotated[int, Meta(ge=1, le=1_000_000)] = 2000
    seed: str = ""
    first_byte_timeout: Seconds = CallLimits().first_byte_timeout
    idle_timeout: Seconds = CallLimits().idle_timeout
    max_retries: Retries = CallLimits().max_retries
    on_disconnect: Literal["cancel", "drain"] = CallLimits().on_disconnect
    drain_timeout: Seconds = CallLimits().drain_timeout
