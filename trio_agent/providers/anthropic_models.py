"""What Anthropic's models can do: limits, thinking, effort, sampling, tool choice.

`GET /v1/models` says most of it (SDK types `ModelInfo` and `ModelCapabilities`); `describe` takes it
from there. What the listing leaves out, and everything for models that were not listed, comes from
`FAMILIES`, which follows Anthropic's model overview, migration guides and pages on thinking, effort and
mid-conversation system messages, as they stood in October 2026. A refusal is only based on what one of
the two says: where both are silent the request goes out, and the upstream decides.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from trio_agent.providers.contract import ModelInfo
from trio_agent.wire.messages import ListedModel, ModelCapabilities, Support

ALL_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_UP_TO_MAX = ("low", "medium", "high", "max")


class Traits(Struct, frozen=True, kw_only=True):
    """What a model accepts; the defaults are those of a model that nothing is known about.

    `adaptive` and `budget` are the two ways to turn thinking on (`thinking.type` `adaptive` and `enabled`).
    `off` is the `thinking.type` that turns it off, `None` where that cannot be done. `forced_tools`
    is whether `tool_choice` may demand a call; with a thinking budget it never may. `sampling` is whether
    `temperature`, `top_p` and `top_k` may differ from their defaults. `system_turns` is whether
    `messages` may hold the role `system`. Limits are in tokens.
    """

    context_window: int | None = None
    max_output_tokens: int | None = None
    adaptive: bool = False
    budget: bool = True
    off: Literal["disabled", "between_tools"] | None = "disabled"
    efforts: tuple[str, ...] = ()
    sampling: bool = True
    forced_tools: bool = True
    structured_outputs: bool = True
    vision: bool = True
    system_turns: bool = False


def _older(window: int, output: int, *, budget: bool = True, structured: bool = False) -> Traits:
    return Traits(
        context_window=window, max_output_tokens=output, budget=budget, structured_outputs=structured
    )


def _newer(
    *,
    sampling: bool = False,
    budget: bool = False,
    efforts: tuple[str, ...] = ALL_EFFORTS,
    off: Literal["disabled", "between_tools"] | None = "disabled",
    forced_tools: bool = True,
    system_turns: bool = True,
    output: int = 128_000,
) -> Traits:
    return Traits(
        context_window=1_000_000,
        max_output_tokens=output,
        adaptive=True,
        budget=budget,
        off=off,
        efforts=efforts,
        sampling=sampling,
        forced_tools=forced_tools,
        system_turns=system_turns,
    )


FAMILIES: tuple[tuple[str, Traits], ...] = (
    ("claude-3-7", _older(200_000, 64_000)),
    ("claude-3-5", _older(200_000, 8_192, budget=False)),
    ("claude-3", _older(200_000, 4_096, budget=False)),
    ("claude-opus-4-5", _older(200_000, 64_000, structured=True)),
    ("claude-sonnet-4-5", _older(200_000, 64_000, structured=True)),
    ("claude-haiku-4-5", _older(200_000, 64_000, structured=True)),
    ("claude-opus-4-6", _newer(sampling=True, budget=True, efforts=_UP_TO_MAX, system_turns=False)),
    (
        "claude-sonnet-4-6",
        _newer(sampling=True, budget=True, efforts=_UP_TO_MAX, system_turns=False, output=64_000),
    ),
    ("claude-opus-4-7", _newer(system_turns=False)),
    ("claude-opus-4-8", _newer()),
    ("claude-opus-4", _older(200_000, 32_000)),
    ("claude-sonnet-4", _older(200_000, 64_000)),
    ("claude-opus-5-5", _newer(off=None, forced_tools=False)),
    ("claude-sonnet-5-5", _newer(off="between_tools", forced_tools=False)),
    ("claude-haiku-5-5", _newer(sampling=True)),
    ("claude-sonnet-5", _newer(system_turns=False)),
    ("claude-fable", _newer(off=None)),
    ("claude-mythos-preview", _newer(off=None, efforts=_UP_TO_MAX, system_turns=False)),
    ("claude-mythos", _newer(off=None)),
    ("claude-opus-5", _newer()),
    # Names to come: nothing is refused that such a model might take.
    ("claude-", _newer(sampling=True, budget=True, system_turns=False)),
)
"""Traits by the beginning of the model's id; the first row that fits counts."""

UNKNOWN = Traits()
"""For models that are not Claude: the base URL then belongs to another server that speaks Messages."""


def family(model: str) -> Traits:
    """What the table says about a model, by its id."""
    name = model.lower()
    for prefix, traits in FAMILIES:
        # `claude-opus-4` fits `claude-opus-4-20250514` and `claude-opus-4@…`, and not `claude-opus-45`.
        if name.startswith(prefix) and (prefix.endswith("-") or not name[len(prefix) :][:1].isalnum()):
            return traits
    return UNKNOWN


def describe(listed: ListedModel) -> Traits:
    """What the listing says about a model, completed by the table."""
    known = family(listed.id)
    told: dict[str, Any] = {}
    if listed.max_input_tokens:
        told["context_window"] = listed.max_input_tokens
    if listed.max_tokens:
        told["max_output_tokens"] = listed.max_tokens
    if listed.capabilities is not None:
        told |= _told_by(listed.capabilities)
    return (
        known
        if not told
        else Traits(**({name: getattr(known, name) for name in known.__struct_fields__} | told))
    )


def _told_by(capabilities: ModelCapabilities) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if capabilities.image_input is not None:
        told["vision"] = capabilities.image_input.supported
    if capabilities.structured_outputs is not None:
        told["structured_outputs"] = capabilities.structured_outputs.supported
    thinking = capabilities.thinking
    if thinking is not None and thinking.types is not None:
        types = thinking.types
        told["adaptive"] = _supported(types.adaptive)
        told["budget"] = _supported(types.enabled)
        told["off"] = (
            "disabled"
            if _supported(types.disabled)
            else "between_tools"
            if _supported(types.between_tools)
            else None
        )
    elif thinking is not None and not thinking.supported:
        told |= {"adaptive": False, "budget": False}
    effort = capabilities.effort
    if effort is not None:
        levels = tuple(word for word in ALL_EFFORTS if _supported(getattr(effort, word)))
        told["efforts"] = levels if effort.supported else ()
    return told


def _supported(support: Support | None) -> bool:
    return support is not None and support.supported


def capabilities_of(traits: Traits) -> tuple[str, ...]:
    """The traits in the words of `ModelInfo.capabilities`."""
    words = ["streaming", "tools"]
    if traits.vision:
        words.append("vision")
    if traits.adaptive or traits.budget:
        words.append("reasoning")
    if traits.structured_outputs:
        words.append("json_schema")
    return tuple(words)


def model_info(listed: ListedModel) -> ModelInfo:
    """A listed model in our terms. Its price comes from elsewhere: the listing has none."""
    traits = describe(listed)
    return ModelInfo(
        id=listed.id,
        display_name=listed.display_name,
        context_window=traits.context_window,
        max_output_tokens=traits.max_output_tokens,
        capabilities=capabilities_of(traits),
        created=_epoch(listed.created_at),
        owned_by="anthropic",
    )


def _epoch(rfc3339: str | None) -> int | None:
    if rfc3339 is None or not re.match(r"\d{4}-\d\d-\d\dT", rfc3339):
        return None
    try:
        return int(datetime.fromisoformat(rfc3339).timestamp())
    except ValueError:
        return None
