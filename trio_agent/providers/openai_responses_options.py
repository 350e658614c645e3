"""Options of a model call as fields of `POST /responses`. Refuses by name.

- `temperature`, `top_p`, `max_output_tokens`, `metadata`, `user`, `service_tier`, `prompt_cache_key`,
  `safety_identifier`, `parallel_tool_calls`, `tool_choice`: the same.
- `response_format`: `text.format`. `verbosity`: `text.verbosity`. `reasoning_effort`: `reasoning.effort`.
- `store`: the same, and `false` where the caller does not say: the whole conversation is sent each time.
- `stop`, `seed`, `top_k`, `reasoning_budget`, `presence_penalty`, `frequency_penalty`, `logit_bias`: refused
  unless neutral (0, empty). The wire has no such thing, and the caller counts on the difference.
- `extra` of the Responses wire: the same fields. Those above win; `reasoning`, `text` and `include` are
  merged. What makes the upstream remember or run things by itself (`previous_response_id`, `conversation`,
  `background`) is not passed on: the conversation is always sent whole, and the turn waits for its answer.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from trio_agent.providers.contract import NamedTool, Options, ProviderRequest, ResponseFormat, refuse

ENCRYPTED: Final = "reasoning.encrypted_content"
"""The member of `include` that makes reasoning items whole without the upstream's memory."""

_PLAIN: Final = (
    "temperature",
    "top_p",
    "max_output_tokens",
    "metadata",
    "user",
    "service_tier",
    "prompt_cache_key",
    "safety_identifier",
)
"""Options that have the same name on the wire."""

_ABSENT: Final = (
    "stop",
    "seed",
    "top_k",
    "reasoning_budget",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
)
_NEUTRAL_ZERO: Final = frozenset({"presence_penalty", "frequency_penalty"})

_OURS: Final = frozenset(
    {
        "model",
        "input",
        "instructions",
        "tools",
        "stream",
        "background",
        "previous_response_id",
        "conversation",
    }
)
"""Request fields that a caller's extra fields cannot replace."""


def check_options(options: Options, provider: str) -> None:
    """Refuse what the wire has no field for.

    Raises:
        AgentError: `unsupported_parameter`, naming the option.
    """
    for name in _ABSENT:
        value = getattr(options, name)
        if value is None or value in ((), {}) or (name in _NEUTRAL_ZERO and value == 0):
            continue
        raise refuse(name, provider, "the Responses API has no such option")
    for name in ("reasoning", "text"):
        if not isinstance(_extra(options).get(name) or {}, dict):
            raise refuse(name, provider, "it must be an object")
    if not isinstance(_extra(options).get("include") or [], list):
        raise refuse("include", provider, "it must be an array")


def _extra(options: Options) -> dict[str, Any]:
    return (options.extra or {}) if options.extra_wire == "responses" else {}


def add_options(
    body: dict[str, Any],
    request: ProviderRequest,
    *,
    reasons: bool,
    summary: str | None,
    custom: Collection[str] = (),
) -> dict[str, Any]:
    """`body` with the options of the request, and with `extra` where it came over this wire.

    Args:
        body: what `_OURS` names and the request has.
        request: `check_options` has passed it.
        reasons: whether the model reasons.
        summary: how its reasoning is to be summed up, where the caller does not say.
        custom: the tools that are offered as custom tools.
    """
    options = request.options
    extra = {name: value for name, value in _extra(options).items() if name not in _OURS}
    reasoning, text = dict(extra.pop("reasoning", None) or {}), dict(extra.pop("text", None) or {})
    include = list(extra.pop("include", None) or [])
    if options.reasoning_effort is not None:
        reasoning["effort"] = options.reasoning_effort
    if reasons and summary is not None:
        reasoning.setdefault("summary", summary)
    if reasons and ENCRYPTED not in include:
        include.append(ENCRYPTED)
    if options.response_format is not None:
        text["format"] = _format(options.response_format)
    if options.verbosity is not None:
        text["verbosity"] = options.verbosity
    fields = extra | {name: getattr(options, name) for name in _PLAIN if getattr(options, name) is not None}
    fields["store"] = bool(options.store)
    fields |= {
        name: value
        for name, value in (("reasoning", reasoning), ("text", text), ("include", include))
        if value
    }
    _add_tool_choice(fields, request, custom)
    return body | fields


def _format(wanted: ResponseFormat) -> dict[str, Any]:
    if wanted.type != "json_schema":
        return {"type": wanted.type}
    named = {
        "type": "json_schema",
        "name": wanted.name or "response",
        "schema": wanted.schema,
        "strict": wanted.strict,
        "description": wanted.description,
    }
    return {name: value for name, value in named.items() if value is not None}


def _add_tool_choice(fields: dict[str, Any], request: ProviderRequest, custom: Collection[str]) -> None:
    """Both fields mean nothing without tools; a demand is sent all the same, to be refused."""
    choice, tools = request.options.tool_choice, bool(request.tools)
    if isinstance(choice, NamedTool):
        kind = "custom" if choice.name in custom else "function"
        fields["tool_choice"] = {"type": kind, "name": choice.name}
    elif choice is not None and (tools or choice == "required"):
        fields["tool_choice"] = choice
    if request.options.parallel_tool_calls is not None and tools:
        fields["parallel_tool_calls"] = request.options.parallel_tool_calls
