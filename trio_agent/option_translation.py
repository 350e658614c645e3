"""What a provider's wire can carry of a request's options, and what the fields of one wire mean on another.

Fields that only some servers know (`Options.extra`) go as they came to an upstream that speaks the
client's format. For any other wire some of them have a meaning of ours, and the rest is named. Pure.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

from trio_agent.errors import AgentError
from trio_agent.providers.contract import Options
from trio_agent.wire.chat_request import VENDORS_OWN, shown_type

_EFFORTS = (("low", 4_096), ("medium", 16_384))
"""Thinking budgets, in tokens, up to which an effort stands for about as much; beyond them it is high."""

_OPENAIS_BOTH = frozenset({"moderation", "prompt_cache_options", "prompt_cache_retention"})
"""Fields of the same name and meaning in OpenAI's two formats (`CompletionCreateParams`,
`ResponseCreateParams`)."""


class Carried(Struct, frozen=True):
    """Options for one wire, and the names of the fields that it cannot carry, fit for a header."""

    options: Options
    ignored: tuple[str, ...] = ()


class _Wish(Struct, frozen=True):
    """What a field says of reasoning. `unread` are its members that say more than that."""

    effort: str | None = None
    budget: int | None = None
    unread: tuple[str, ...] = ()


def carry(options: Options, wire: str | None) -> Carried:
    """The options as a provider takes them that speaks `wire`.

    A provider that does not name its wire (`None`) gets the meaning and the fields themselves; what it
    does with them is not known here, so nothing is named.

    Raises:
        AgentError: `invalid_request`, a field is in no form that has a meaning.
    """
    extra = options.extra
    if not extra or options.extra_wire is None or options.extra_wire == wire:
        return Carried(options)
    said = {name: value for name, value in extra.items() if value is not None}
    unread: list[str] = [name for name in said if name not in VENDORS_OWN or options.extra_wire != "chat"]
    if options.extra_wire == "chat":
        wish = _reasoning_of(said)
        effort = options.reasoning_effort or wish.effort
        options = msgspec.structs.replace(
            options,
            top_k=said.get("top_k", options.top_k),
            reasoning_effort=effort,
            reasoning_budget=None if effort == "none" else wish.budget or options.reasoning_budget,
        )
        unread += wish.unread
    elif options.extra_wire == "messages":
        wish = _messages_reasoning(said)
        options = msgspec.structs.replace(options, reasoning_effort=wish.effort)
        unread = [name for name in unread if name not in ("thinking", "output_config")] + [*wish.unread]
    elif options.extra_wire == "responses":
        unread = _responses_unread(said)
    if wire is None:
        return Carried(options)
    if {options.extra_wire, wire} == {"chat", "responses"}:
        both = {name: said[name] for name in unread if name in _OPENAIS_BOTH}
        if both:
            unread = [name for name in unread if name not in both]
            extra_wire: Literal["chat", "responses"] = "chat" if wire == "chat" else "responses"
            options = msgspec.structs.replace(options, extra=both, extra_wire=extra_wire)
    return Carried(options, tuple(shown_type(name) for name in unread))


def _reasoning_of(said: dict[str, Any]) -> _Wish:
    if "thinking" not in said:
        return _openrouters(said["reasoning"]) if "reasoning" in said else _Wish()
    wish = _anthropics(said["thinking"])
    return msgspec.structs.replace(wish, unread=(*wish.unread, *(["reasoning"] * ("reasoning" in said))))


def _openrouters(value: Any) -> _Wish:
    """`reasoning` as OpenRouter has it: `effort` or `max_tokens`, `enabled` (medium effort), `exclude`."""
    members = _members("reasoning", value)
    effort = _typed("reasoning", members, "effort", str)
    budget = _typed("reasoning", members, "max_tokens", int)
    enabled = _typed("reasoning", members, "enabled", bool)
    # To leave the reasoning out of the answer is the default of nobody here.
    if _typed("reasoning", members, "exclude", bool) is False:
        del members["exclude"]
    unread = tuple(f"reasoning.{name}" for name in members if name not in ("effort", "max_tokens", "enabled"))
    if enabled is False:
        return _Wish("none", None, unread)
    if enabled and effort is None and budget is None:
        effort = "medium"
    return _Wish(effort, budget, unread)


def _anthropics(value: Any) -> _Wish:
    """`thinking` as Anthropic has it (`ThinkingConfigParam`), and others without a budget."""
    members = _members("thinking", value)
    kind = _typed("thinking", members, "type", str)
    budget = _typed("thinking", members, "budget_tokens", int)
    unread = tuple(f"thinking.{name}" for name in members if name not in ("type", "budget_tokens"))
    match kind:
        case "disabled":
            return _Wish("none", None, unread)
        case "adaptive":
            return _Wish("high", None, unread)  # what the API does where no effort is named
        case "enabled":
            return _Wish("medium" if budget is None else None, budget, unread)
    raise _wrong("thinking.type", "must be `enabled`, `adaptive` or `disabled`")


def _messages_reasoning(said: dict[str, Any]) -> _Wish:
    """`thinking` and `output_config` of a Messages request, for a wire that takes an effort in words.

    `adaptive` and `between_tools` leave it to the model how much to think, which other vendors' models do by
    themselves: nothing is said then. A budget becomes the effort that stands for about as much.
    """
    config = _members("output_config", said.get("output_config", {}))
    effort = _typed("output_config", config, "effort", str)
    unread = [f"output_config.{name}" for name in config if name != "effort"]
    if "thinking" in said:
        members = _members("thinking", said["thinking"])
        kind = _typed("thinking", members, "type", str)
        budget = _typed("thinking", members, "budget_tokens", int)
        unread += [f"thinking.{name}" for name in members if name not in ("type", "budget_tokens")]
        match kind:
            case "disabled":
                effort = "none"
            case "enabled":
                effort = effort or ("medium" if budget is None else _effort_of(budget))
            case "adaptive" | "between_tools":
                pass
            case _:
                raise _wrong("thinking.type", "must be `enabled`, `adaptive`, `between_tools` or `disabled`")
    # The highest word that other vendors know.
    return _Wish("xhigh" if effort == "max" else effort, None, tuple(unread))


def _responses_unread(said: dict[str, Any]) -> list[str]:
    """What of a Responses request's own fields no other wire has, member by member.

    A summary of the reasoning is what is shown wherever a model tells its reasoning.
    """
    unread: list[str] = []
    for name, value in said.items():
        if name in ("reasoning", "text"):
            members = _members(name, value)
            unread += [f"{name}.{key}" for key in members if (name, key) != ("reasoning", "summary")]
        else:
            unread.append(name)
    return unread


def _effort_of(budget: int) -> str:
    return next((word for word, most in _EFFORTS if budget <= most), "high")


def _members(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(name, "must be an object")
    return {key: member for key, member in value.items() if member is not None}


def _typed(name: str, members: dict[str, Any], key: str, kind: type) -> Any:
    value = members.get(key)
    if value is None or type(value) is kind:
        return value
    words = {str: "a string", int: "an integer", bool: "a boolean"}
    raise _wrong(f"{name}.{key}", f"must be {words[kind]}")


def _wrong(param: str, what: str) -> AgentError:
    return AgentError("invalid_request", f"`{param}` {what} for this model's provider.", param=param)
