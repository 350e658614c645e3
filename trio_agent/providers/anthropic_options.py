"""Options of a model call as fields of `POST /v1/messages` (API version 2023-06-01). Refuses by name.

- `max_output_tokens`: `max_tokens`, which the wire requires. By default the model's own limit, at most
  an eighth of its context window.
- `temperature`, `top_p`, `top_k`: the same. 1 is the default of the first two and is then left out.
  Refused where the model or thinking forbids another value.
- `stop`: `stop_sequences`.
- `tool_choice`, `parallel_tool_calls`: `tool_choice` with `disable_parallel_tool_use`. A forced call is
  refused where the model, or a thinking budget, forbids it.
- `response_format`: `json_schema` is `output_config.format`. `json_object` is refused: the wire has no
  JSON mode without a schema.
- `reasoning_effort`: adaptive thinking and `output_config.effort`, rounded down to a level that the model
  has. Models without adaptive thinking get a budget from `BUDGETS`; it stays below half of the caller's
  limit, and only where the smallest budget does not fit, the limit is raised by that. `none` turns
  thinking off, and is refused by models that always think.
- `reasoning_budget`: `thinking.budget_tokens`. Refused by models that take no budget.
- `service_tier`: `auto` as it is, `default` and `standard_only` as `standard_only`; others are refused.
- `metadata.user_id`, `safety_identifier`, `user`: the first that is there is `metadata.user_id`.
- `seed`, `presence_penalty`, `frequency_penalty`, `logit_bias`, `verbosity`: refused unless neutral (0,
  empty, `medium`). The wire has no such thing, and the caller counts on the difference.
- `store`, `prompt_cache_key`, other `metadata`, an image's `detail`, a message's `name`, a tool's `strict`
  on a model that cannot guarantee schemas: left out. They do not change what is asked, and agents send
  them by default.
- `extra` of the Messages wire: the same fields. Those above win; `output_config` is merged; a `thinking`
  in it is more exact than ours, and wins.
"""

from __future__ import annotations

from typing import Any

from trio_agent.errors import AgentError
from trio_agent.providers.anthropic_models import ALL_EFFORTS, Traits
from trio_agent.providers.contract import NamedTool, Options, ProviderRequest, refuse

MIN_BUDGET = 1024
"""The smallest thinking budget that the API takes, in tokens (SDK type `ThinkingConfigEnabledParam`)."""

BUDGETS = {"minimal": 1_024, "low": 2_048, "medium": 8_192, "high": 16_384, "xhigh": 32_768, "max": 49_152}
"""Thinking budget by effort, in tokens, for models without adaptive thinking."""

UNKNOWN_MAX_TOKENS = 8_192
"""The default of `max_tokens` for models whose limits are not known."""

_SERVICE_TIERS = {"auto": "auto", "default": "standard_only", "standard_only": "standard_only"}
_FORCED = "the model cannot be made to call a tool"


def add_options(
    body: dict[str, Any], request: ProviderRequest, traits: Traits, provider: str
) -> dict[str, Any]:
    """`body` with the options of the request, and with `extra` where it came over the Messages wire.

    Raises:
        AgentError: an option cannot be carried; `param` names it.
    """
    options = request.options
    _refuse_unknown_to_the_wire(options, provider)
    extra = dict(options.extra or {}) if options.extra_wire == "messages" else {}
    output_config = dict(extra.pop("output_config", None) or {})
    body = {**extra, **body}
    thinking, effort = _thinking(options, traits, provider)
    if effort is not None:
        output_config["effort"] = effort
    if (schema_format := _response_format(options, traits, provider)) is not None:
        output_config["format"] = schema_format
    if output_config:
        body["output_config"] = output_config
    body["max_tokens"] = _max_tokens(options, traits, thinking, provider)
    thinking = extra.get("thinking") or thinking
    if thinking is not None:
        body["thinking"] = thinking
    body |= _sampling(options, traits, thinking, provider)
    if options.stop:
        body["stop_sequences"] = list(options.stop)
    if (choice := _tool_choice(request, traits, thinking, provider)) is not None:
        body["tool_choice"] = choice
    if (
        user := (options.metadata or {}).get("user_id") or options.safety_identifier or options.user
    ) is not None:
        body["metadata"] = {"user_id": user}
    if options.service_tier is not None:
        if options.service_tier not in _SERVICE_TIERS:
            raise refuse("service_tier", provider, f"it takes {', '.join(_SERVICE_TIERS)}")
        body["service_tier"] = _SERVICE_TIERS[options.service_tier]
    return body


def _refuse_unknown_to_the_wire(options: Options, provider: str) -> None:
    asked = {
        "seed": options.seed is not None,
        "presence_penalty": bool(options.presence_penalty),
        "frequency_penalty": bool(options.frequency_penalty),
        "logit_bias": bool(options.logit_bias),
        "verbosity": options.verbosity not in {None, "medium"},
    }
    for param, is_asked in asked.items():
        if is_asked:
            raise refuse(param, provider, "the Messages API has no such option")


def _thinking(options: Options, traits: Traits, provider: str) -> tuple[dict[str, Any] | None, str | None]:
    """The `thinking` field and the effort level."""
    if options.reasoning_budget is not None:
        if not traits.budget:
            raise refuse(
                "reasoning_budget",
                provider,
                "this model takes no thinking budget in tokens"
                + ("; use reasoning_effort" * traits.adaptive),
            )
        if options.reasoning_budget < MIN_BUDGET:
            raise refuse("reasoning_budget", provider, f"the smallest budget is {MIN_BUDGET} tokens")
        return {"type": "enabled", "budget_tokens": options.reasoning_budget}, None
    word = options.reasoning_effort
    if word is None:
        return None, None
    if word == "none":
        if traits.off is None:
            raise refuse("reasoning_effort", provider, "this model always thinks; 'low' is the least")
        return ({"type": traits.off} if traits.adaptive or traits.budget else None), None
    if word not in BUDGETS:
        raise refuse("reasoning_effort", provider, f"{word!r} is not one of none, {', '.join(BUDGETS)}")
    if traits.adaptive:
        # Some models leave the summary out by default; whoever asks for reasoning wants to see it.
        return {"type": "adaptive", "display": "summarized"}, _effort(word, traits.efforts)
    if not traits.budget:
        raise refuse("reasoning_effort", provider, "this model does not think")
    return {"type": "enabled", "budget_tokens": _fitting_budget(word, options.max_output_tokens)}, None


def _effort(word: str, levels: tuple[str, ...]) -> str | None:
    """The highest level that the model has and that is not above `word`; else its lowest."""
    wanted = ALL_EFFORTS.index("low" if word == "minimal" else word)
    fitting = [level for level in levels if ALL_EFFORTS.index(level) <= wanted]
    return fitting[-1] if fitting else next(iter(levels), None)


def _fitting_budget(word: str, limit: int | None) -> int:
    """Effort is a wish and the caller's limit a promise: thinking gets at most half of it."""
    return BUDGETS[word] if limit is None else max(MIN_BUDGET, min(BUDGETS[word], limit // 2))


def _max_tokens(options: Options, traits: Traits, thinking: dict[str, Any] | None, provider: str) -> int:
    budget: int | None = (thinking or {}).get("budget_tokens")
    limit = options.max_output_tokens
    if limit is None:
        return _default_max_tokens(traits) if budget is None else _room_beside(budget, traits)
    if budget is None or budget < limit:
        return limit
    if options.reasoning_budget is not None:
        raise AgentError(
            "invalid_request",
            f"reasoning_budget ({budget}) must be smaller than max_output_tokens ({limit}) "
            f"with provider {provider!r}: thinking counts towards it.",
            param="reasoning_budget",
        )
    # The smallest budget does not fit below the caller's limit; it goes on top of it.
    return limit + budget


def _default_max_tokens(traits: Traits) -> int:
    if traits.max_output_tokens is None:
        return UNKNOWN_MAX_TOKENS
    if traits.context_window is None:
        return traits.max_output_tokens
    # Older models reject a prompt that leaves less room than `max_tokens`, so the default must be modest.
    return min(traits.max_output_tokens, traits.context_window // 8)


def _room_beside(budget: int, traits: Traits) -> int:
    wanted = budget + _default_max_tokens(traits)
    return (
        wanted if traits.max_output_tokens is None else max(min(wanted, traits.max_output_tokens), budget + 1)
    )


def _sampling(
    options: Options, traits: Traits, thinking: dict[str, Any] | None, provider: str
) -> dict[str, float | int]:
    thinks = thinking is not None and thinking.get("type") in {"enabled", "adaptive"}
    why = "" if traits.sampling else "this model takes no sampling parameters"
    why = why or ("thinking is on (reasoning_effort, reasoning_budget or thinking)" if thinks else "")
    found: dict[str, float | int] = {}
    if options.temperature is not None and options.temperature != 1:
        if why:
            raise refuse("temperature", provider, f"{why}, which leaves it at 1")
        if not 0 <= options.temperature <= 1:
            raise refuse("temperature", provider, "it must lie between 0 and 1")
        found["temperature"] = options.temperature
    if options.top_p is not None and options.top_p != 1:
        # With thinking the API still takes 0.95 and more, on models that take sampling parameters at all.
        if why and (not traits.sampling or options.top_p < 0.95):
            raise refuse("top_p", provider, why)
        found["top_p"] = options.top_p
    if options.top_k is not None:
        if why:
            raise refuse("top_k", provider, why)
        found["top_k"] = options.top_k
    return found


def _response_format(options: Options, traits: Traits, provider: str) -> dict[str, Any] | None:
    wanted = options.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        raise refuse(
            "response_format",
            provider,
            "it has no JSON mode without a schema; give one as type 'json_schema'",
        )
    if wanted.schema is None:
        raise refuse("response_format", provider, "type 'json_schema' comes without a schema")
    if not traits.structured_outputs:
        raise refuse("response_format", provider, "this model has no structured outputs")
    return {"type": "json_schema", "schema": wanted.schema}


def _tool_choice(
    request: ProviderRequest, traits: Traits, thinking: dict[str, Any] | None, provider: str
) -> dict[str, Any] | None:
    if not request.tools:
        if isinstance(request.options.tool_choice, NamedTool) or request.options.tool_choice == "required":
            raise refuse("tool_choice", provider, "the request has no tools")
        return None
    choice, one_at_a_time = request.options.tool_choice, request.options.parallel_tool_calls is False
    if choice is None and not one_at_a_time:
        return None
    if choice == "none":
        return {"type": "none"}
    found: dict[str, Any]
    if isinstance(choice, NamedTool):
        found = {"type": "tool", "name": choice.name}
    else:
        found = {"type": "any" if choice == "required" else "auto"}
    if found["type"] != "auto":
        if not traits.forced_tools:
            raise refuse("tool_choice", provider, f"{_FORCED}; 'auto' and 'none' are taken")
        if (thinking or {}).get("type") == "enabled":
            raise refuse(
                "tool_choice",
                provider,
                f"{_FORCED} while it thinks with a budget (reasoning_budget, reasoning_effort)",
            )
    if one_at_a_time:
        found["disable_parallel_tool_use"] = True
    return found
