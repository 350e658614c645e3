"""How a Responses request wants its answer: what is refused by name, and the rest as options of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, get_args

from msgspec import Struct

from trio_agent.errors import AgentError
from trio_agent.providers.contract import NamedTool, Options, ResponseFormat, ToolChoice
from trio_agent.statemachine.conversation import Tool
from trio_agent.wire.body import convert
from trio_agent.wire.chat_request import shown_type
from trio_agent.wire.responses_request import CreateResponse
from trio_agent.wire.responses_tools import Tools

INCLUDES: Final = (
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
)
"""What `include` may name. All but the first are of tools that no answer here holds, or shown in any case."""

FIELDS: Final = {
    "response_format": "text.format",
    "verbosity": "text.verbosity",
    "reasoning_effort": "reasoning.effort",
}
"""Where this format has options of ours that it calls otherwise."""

_LOGPROBS: Final = "message.output_text.logprobs"
_MOST_METADATA: Final = 16
_LONGEST_KEY: Final = 64
_LONGEST_VALUE: Final = 512


class _Format(Struct):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class _Text(Struct):
    format: _Format | None = None
    verbosity: str | None = None


class _Reasoning(Struct):
    """`generate_summary` is an older name of `summary`."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class _Choice(Struct):
    type: str
    name: str | None = None
    namespace: str | None = None
    mode: str | None = None
    tools: list[dict[str, Any]] | None = None


def refuse_what_cannot_be_carried(body: CreateResponse, *, over_socket: bool) -> None:
    """Refuse what no model could do, and what contradicts itself.

    Raises:
        AgentError: naming the field.
    """
    include = body.include or ()
    refusals = (
        ("top_logprobs", bool(body.top_logprobs), "log probabilities are not passed on"),
        ("include", _LOGPROBS in include, "log probabilities are not passed on"),
        ("prompt", body.prompt is not None, "the server keeps no prompts; send `instructions` and `input`"),
        (
            "max_tool_calls",
            body.max_tool_calls is not None,
            "calls of the server's own tools are bounded by its configuration",
        ),
        ("generate", body.generate is not None and not over_socket, "it has a meaning over a WebSocket only"),
    )
    for name, refused, why in refusals:
        if refused:
            raise AgentError("unsupported_parameter", f"`{name}` cannot be honoured: {why}.", param=name)
    checked_include(include)
    if body.background and body.store is False:
        raise _bad("background", "needs `store`: who reads the answer later finds it there")
    if body.conversation is not None and body.store is False:
        raise _bad("conversation", "needs `store`: what is said there is kept")
    if body.previous_response_id is not None and body.conversation is not None:
        raise _bad("previous_response_id", "and `conversation` cannot both say what came before")
    if body.max_output_tokens is not None and body.max_output_tokens < 1:
        raise _bad("max_output_tokens", "must be 1 or more")
    if body.truncation not in (None, "auto", "disabled"):
        raise _bad("truncation", "must be `auto` or `disabled`")
    check_metadata(body.metadata or {})


def checked_include(names: Sequence[str]) -> tuple[str, ...]:
    """Names of what is to be shown as well.

    Raises:
        AgentError: one of them is none that there is.
    """
    for index, name in enumerate(names):
        if name not in INCLUDES:
            raise _bad(f"include[{index}]", f"is none of {', '.join(INCLUDES)}")
    return tuple(names)


def check_metadata(metadata: dict[str, str]) -> None:
    """Refuse more than a client may attach to something.

    Raises:
        AgentError: naming `metadata`.
    """
    if len(metadata) > _MOST_METADATA:
        raise _bad("metadata", f"holds at most {_MOST_METADATA} pairs")
    for key, value in metadata.items():
        if len(key) > _LONGEST_KEY or len(value) > _LONGEST_VALUE:
            raise _bad(
                "metadata",
                f"has keys of at most {_LONGEST_KEY} characters and values of at most {_LONGEST_VALUE}",
            )


def left_out(body: CreateResponse) -> list[str]:
    """The fields that are not honoured, and change nothing that an answer says."""
    return ["context_management"] if body.context_management else []


def offered(
    said: str | dict[str, Any] | None, tools: Tools
) -> tuple[tuple[Tool, ...], ToolChoice | NamedTool | None]:
    """The tools that the model is offered, and how it is to choose among them.

    Raises:
        AgentError: a tool is demanded that is not available, or not there.
    """
    if said is None:
        return tools.functions, None
    if isinstance(said, str):
        return tools.functions, _mode(said, tools.functions, tools.hosted, "tool_choice")
    choice = convert(said, _Choice, "tool_choice")
    if choice.type == "allowed_tools":
        if choice.tools is None:
            raise _bad("tool_choice.tools", "is missing: a choice of type `allowed_tools` lists tools")
        allowed = _allowed(choice.tools, tools)
        mode = choice.mode or "auto"
        if mode not in ("auto", "required"):
            raise _bad("tool_choice.mode", "must be `auto` or `required`")
        return allowed, _mode(mode, allowed, tools.hosted, "tool_choice.mode")
    return tools.functions, NamedTool(_named(choice, tools, tools.spaces(), "tool_choice"))


def _mode(said: str, functions: Sequence[Tool], hosted: Sequence[str], place: str) -> ToolChoice:
    for mode in get_args(ToolChoice):
        if said == mode:
            if said == "required" and hosted and not functions:
                raise _unavailable(hosted[0])
            found: ToolChoice = mode
            return found
    raise _bad(place, "must be `auto`, `none`, `required` or name a tool")


def _allowed(wanted: Sequence[dict[str, Any]], tools: Tools) -> tuple[Tool, ...]:
    """Those of the caller's tools that it allows; a hosted one among them is left out as it is of `tools`."""
    names: set[str] = set()
    spaces = tools.spaces()
    for index, raw in enumerate(wanted):
        place = f"tool_choice.tools[{index}]"
        choice = convert(raw, _Choice, place)
        if choice.type in ("function", "custom"):
            names.add(_named(choice, tools, spaces, place))
        elif choice.type == "namespace":
            names |= {known for (space, _), known in tools.known.items() if space and space == choice.name}
    return tuple(tool for tool in tools.functions if tool.name in names)


def _named(choice: _Choice, tools: Tools, spaces: Mapping[str, list[str | None]], place: str) -> str:
    """The model's name of a tool that the caller names; the only one of a name needs no namespace."""
    if choice.type not in ("function", "custom"):
        raise _unavailable(choice.type)
    if not choice.name:
        raise _bad(f"{place}.name", f"is missing: a choice of type `{choice.type}` names a tool")
    wanted, there = choice.namespace, spaces.get(choice.name, [])
    if wanted is None and len(there) == 1:
        wanted = there[0]
    known = tools.known.get((wanted, choice.name))
    if known is None:
        raise _bad(place, f"names the tool {choice.name[:64]!r}, which is not among the tools")
    return known


def _unavailable(kind: str) -> AgentError:
    return AgentError(
        "unsupported_parameter",
        f"`tool_choice` demands {shown_type(kind)!r}, which is not available here; it can be `auto`, `none`, "
        "`required` or name a function or custom tool of `tools`.",
        param="tool_choice",
    )


def options_of(body: CreateResponse, choice: ToolChoice | NamedTool | None, extra: dict[str, Any]) -> Options:
    """The options of a request.

    Args:
        extra: the fields that have no name here; they go along on a wire of the same format.

    Raises:
        AgentError: `text` or `reasoning` have another shape.
    """
    text = convert(body.text or {}, _Text, "text")
    reasoning = convert(body.reasoning or {}, _Reasoning, "reasoning")
    fields = dict(extra)
    for name, value, known in (
        ("text", body.text, ("format", "verbosity")),
        ("reasoning", body.reasoning, ("effort", "generate_summary")),
    ):
        rest = {key: each for key, each in (value or {}).items() if key not in known and each is not None}
        if rest:
            fields[name] = rest
    if reasoning.generate_summary is not None:
        fields.setdefault("reasoning", {}).setdefault("summary", reasoning.generate_summary)
    if body.truncation == "auto":
        fields["truncation"] = "auto"
    return Options(
        temperature=body.temperature,
        top_p=body.top_p,
        max_output_tokens=body.max_output_tokens,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        tool_choice=choice,
        parallel_tool_calls=body.parallel_tool_calls,
        response_format=_response_format(text.format),
        reasoning_effort=reasoning.effort,
        verbosity=text.verbosity,
        metadata=body.metadata,
        user=body.user,
        service_tier=body.service_tier,
        prompt_cache_key=body.prompt_cache_key,
        safety_identifier=body.safety_identifier,
        extra=fields or None,
        extra_wire="responses",
    )


def _response_format(wanted: _Format | None) -> ResponseFormat | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return ResponseFormat("json_object")
    if wanted.schema is None:
        raise AgentError(
            "invalid_request",
            "`text.format` of type `json_schema` needs `schema`, a JSON Schema.",
            param="text.format.schema",
        )
    return ResponseFormat("json_schema", wanted.name, wanted.schema, wanted.strict, wanted.description)


def _bad(param: str, why: str) -> AgentError:
    return AgentError("invalid_request", f"`{param}` {why}.", param=param)
