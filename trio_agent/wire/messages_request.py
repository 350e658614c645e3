"""Anthropic Messages requests: what clients send, as structs, and as our conversation.

Fields follow `MessageCreateParams` and `MessageCountTokensParams` of Anthropic's SDK. Unknown fields are
accepted; the face passes them on where the upstream speaks the same format.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from trio_agent.errors import AgentError
from trio_agent.statemachine.conversation import Message, Part, Tool, ToolResult
from trio_agent.wire.body import other_fields
from trio_agent.wire.chat_request import RoutingHint, shown_type
from trio_agent.wire.messages_content import Content, parts_of


class InputMessage(Struct):
    role: Literal["user", "assistant", "system"]
    content: Content


class InputTool(Struct):
    """A function of the caller's, or a tool of Anthropic's own where `type` names one.

    The last four members tell Anthropic's servers how to load, stream and call a tool.
    """

    name: str | None = None
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    cache_control: dict[str, Any] | None = None
    allowed_callers: Any = None
    defer_loading: Any = None
    eager_input_streaming: Any = None
    input_examples: Any = None


class ChosenTool(Struct):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThreadChoice(Struct):
    """Whether the server is to keep the conversation, or keeps it under the id of an earlier message."""

    type: Literal["create", "continue"]
    previous_message_id: str | None = None


class MessagesRequest(Struct, kw_only=True):
    """The body of `POST /v1/messages` and, without `max_tokens`, of `/v1/messages/count_tokens`."""

    messages: list[InputMessage]
    model: str | None = None
    max_tokens: int | None = None
    system: Content = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    tools: list[InputTool] | None = None
    tool_choice: ChosenTool | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None
    thinking: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None
    output_format: dict[str, Any] | None = None
    container: Any = None
    mcp_servers: Any = None
    compaction: Any = None
    thread: ThreadChoice | None = None
    routing_hint: RoutingHint | None = None


class Conversation(Struct, frozen=True):
    """The messages of a request as our own.

    `places` has, for each of them, where it stood in the request, and where each of its parts did.
    """

    messages: tuple[Message, ...]
    places: tuple[tuple[str, tuple[str, ...]], ...]


class Tools(Struct, frozen=True):
    """The caller's functions, and what was left out of the list.

    `hosted` are the tools that Anthropic's servers would run: the name that `tool_choice` calls each by, and
    its type. `members` are the members of definitions that are not carried.
    """

    functions: tuple[Tool, ...]
    hosted: tuple[tuple[str, str], ...]
    members: tuple[str, ...]


MESSAGES_REQUEST: Final = msgspec.json.Decoder(MessagesRequest)
_FIELDS: Final = frozenset(MessagesRequest.__struct_fields__)
_HINTS: Final = ("allowed_callers", "defer_loading", "eager_input_streaming", "input_examples")
_CALLERS_OWN: Final = re.compile(r"function\Z|(?:bash|text_editor|memory|computer|browser)_")


def unknown_fields(body: bytes) -> dict[str, Any]:
    """The top-level fields that have no name here, as they came.

    Raises:
        AgentError: one of them holds a number that no program can take.
    """
    return {name: value for name, value in other_fields(body, _FIELDS).items() if value is not None}


def conversation(request: MessagesRequest) -> Conversation:
    """The messages of a request.

    A message that brings tool results and says something too becomes two, the results first: that is the
    order in which Anthropic wants them, and the only one that other formats can say.

    Raises:
        AgentError: with the place in the request as `param`.
    """
    if not request.messages:
        raise AgentError("invalid_request", "`messages` must hold at least one message.", param="messages")
    messages: list[Message] = []
    places: list[tuple[str, tuple[str, ...]]] = []

    def add(role: Any, where: str, placed: list[tuple[Part, str]]) -> None:
        messages.append(Message(role, tuple(part for part, _ in placed)))
        places.append((where, tuple(place for _, place in placed)))

    if request.system:
        add("system", "system", _placed(parts_of(request.system, "system", "system"), "system"))
    for index, message in enumerate(request.messages):
        where = f"messages[{index}]"
        content = f"{where}.content"
        placed = _placed(parts_of(message.content, message.role, content), content)
        results = [each for each in placed if isinstance(each[0], ToolResult)]
        rest = [each for each in placed if not isinstance(each[0], ToolResult)]
        if results:
            add("tool", where, results)
        if rest or not results:
            add(message.role, where, rest)
    return Conversation(tuple(messages), tuple(places))


def _placed(parts: list[Part], content: str) -> list[tuple[Part, str]]:
    return [(part, f"{content}[{index}]") for index, part in enumerate(parts)]


def count_parts(messages: tuple[Message, ...], tools: list[InputTool] | None) -> int:
    """Messages, content parts (those of tool results too) and tools of a request."""
    total = len(messages) + len(tools or ())
    for message in messages:
        total += len(message.parts) + sum(len(result.content) for result in message.tool_results)
    return total


def tools_of(tools: list[InputTool] | None) -> Tools:
    """The caller's tools.

    Raises:
        AgentError: a definition lacks what it needs, two are of one name, or one is for the caller to run and
            is not described, or not in this format.
    """
    functions: dict[str, Tool] = {}
    hosted: dict[tuple[str, str], None] = {}
    members: dict[str, None] = {}
    for index, tool in enumerate(tools or ()):
        place = f"tools[{index}]"
        kind = tool.type or "custom"
        if kind != "custom":
            if _CALLERS_OWN.match(kind):
                raise AgentError(
                    "unsupported_parameter",
                    f"{place}: tools of type {shown_type(kind)!r} cannot be carried. Describe it as a tool "
                    "of your own, with `name` and `input_schema`.",
                    param=place,
                )
            hosted[tool.name or kind, shown_type(kind)] = None
            continue
        if not tool.name:
            raise _bad(place, "name", "a tool needs a name")
        if tool.input_schema is None:
            raise _bad(place, "input_schema", "a tool needs `input_schema`, a JSON Schema")
        if tool.name in functions:
            raise _bad(place, "name", f"two tools are named {tool.name!r}")
        functions[tool.name] = Tool(
            tool.name, tool.description, tool.input_schema, tool.strict, tool.cache_control
        )
        members |= {f"tools.{name}": None for name in _HINTS if getattr(tool, name)}
    return Tools(tuple(functions.values()), tuple(hosted), tuple(members))


def _bad(place: str, field: str, why: str) -> AgentError:
    return AgentError("invalid_request", f"{place}: {why}.", param=f"{place}.{field}")


__all__ = [
    "MESSAGES_REQUEST",
    "ChosenTool",
    "Conversation",
    "InputMessage",
    "InputTool",
    "MessagesRequest",
    "ThreadChoice",
    "Tools",
    "conversation",
    "count_parts",
    "tools_of",
    "unknown_fields",
]
