"""Chat Completions requests: what clients send, as structs, and as our conversation.

Fields follow OpenAI's `CompletionCreateParams`. Unknown fields are accepted; the face passes them on where
the upstream speaks the same format. `VENDORS_OWN` fields are no part of OpenAI's format, but of what servers
like it take: they go the same way, and have a meaning elsewhere too.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec
from msgspec import Struct

from trio_agent.errors import AgentError
from trio_agent.statemachine.conversation import (
    Image,
    Message,
    Part,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from trio_agent.wire.body import other_fields
from trio_agent.wire.content import content_part


class FunctionCall(Struct):
    name: str
    arguments: str = ""


class MessageToolCall(Struct):
    id: str
    function: FunctionCall | None = None
    type: str = "function"


class ChatMessage(Struct):
    """A message as clients send it; which fields matter depends on the role."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[MessageToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None


class StreamOptions(Struct):
    include_usage: bool | None = None


class RoutingHint(Struct):
    role: str | None = None


class FunctionDefinition(Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ChatTool(Struct):
    """`type` says whether it is a function of the caller's or a tool that a vendor hosts."""

    type: str = "function"
    function: FunctionDefinition | None = None
    cache_control: dict[str, Any] | None = None


class JsonSchemaFormat(Struct):
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class ChatResponseFormat(Struct):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class NamedFunction(Struct):
    name: str


class NamedToolChoice(Struct):
    type: str = "function"
    function: NamedFunction | None = None


class ChatRequest(Struct, kw_only=True):
    """The body of `POST /v1/chat/completions`."""

    messages: list[ChatMessage]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    tools: list[ChatTool] | None = None
    tool_choice: str | NamedToolChoice | None = None
    functions: list[Any] | None = None
    function_call: Any = None
    parallel_tool_calls: bool | None = None
    response_format: ChatResponseFormat | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    store: bool | None = None
    routing_hint: RoutingHint | None = None
    top_k: int | None = None
    reasoning: Any = None
    thinking: Any = None


VENDORS_OWN = frozenset({"top_k", "reasoning", "thinking"})
CHAT_REQUEST = msgspec.json.Decoder(ChatRequest)
_SHOWN_TYPE_LENGTH = 40
_FIELDS = frozenset(ChatRequest.__struct_fields__)


def extra_fields(body: bytes) -> dict[str, Any] | None:
    """The top-level fields that only some servers know, decoded; `None` where there are none.

    These are what `ChatRequest` does not know, and its `VENDORS_OWN` where they are not null.

    Raises:
        AgentError: one of them holds a number that no program can take.
    """
    found = other_fields(body, _FIELDS - VENDORS_OWN)
    return {
        name: value for name, value in found.items() if name not in VENDORS_OWN or value is not None
    } or None


def count_parts(request: ChatRequest) -> int:
    """Messages, content parts, tool calls and tools of a request."""
    total = len(request.messages) + len(request.tools or ())
    for message in request.messages:
        if isinstance(message.content, list):
            total += len(message.content)
        total += len(message.tool_calls or ())
    return total


def conversation(messages: list[ChatMessage]) -> tuple[Message, ...]:
    """The messages of a request as our own.

    Raises:
        AgentError: with the place in the request as `param`.
    """
    if not messages:
        raise AgentError("invalid_request", "`messages` must hold at least one message.", param="messages")
    return tuple(_message(message, f"messages[{index}]") for index, message in enumerate(messages))


def _message(message: ChatMessage, place: str) -> Message:
    if message.role == "tool":
        return Message("tool", (_tool_result(message, place),), message.name)
    if message.tool_calls and message.role != "assistant":
        raise _bad(place, "tool_calls", "only an assistant message can hold tool calls")
    parts: list[Part] = []
    if message.role == "assistant":
        if message.reasoning_content:
            parts.append(Thinking(message.reasoning_content))
        parts += _content(message, place, images=False)
        if message.refusal:
            parts.append(Refusal(message.refusal))
        for index, call in enumerate(message.tool_calls or ()):
            parts.append(_tool_call(call, f"{place}.tool_calls[{index}]"))
        return Message("assistant", tuple(parts), message.name)
    if message.content is None:
        raise _bad(place, "content", f"a {message.role} message needs content")
    return Message(message.role, tuple(_content(message, place, images=message.role == "user")), message.name)


def _content(message: ChatMessage, place: str, *, images: bool) -> list[Text | Image | Refusal]:
    content = message.content
    if content is None:
        return []
    if isinstance(content, str):
        return [Text(content)] if content or message.role != "assistant" else []
    return [
        content_part(part, f"{place}.content[{index}]", images=images, refusals=message.role == "assistant")
        for index, part in enumerate(content)
    ]


def _tool_result(message: ChatMessage, place: str) -> ToolResult:
    if not message.tool_call_id:
        raise _bad(place, "tool_call_id", "a tool message needs the id of the call that it answers")
    parts = tuple(part for part in _content(message, place, images=True) if isinstance(part, Text | Image))
    return ToolResult(message.tool_call_id, parts)


def _tool_call(call: MessageToolCall, place: str) -> ToolCall:
    if call.function is None:
        raise AgentError(
            "unsupported_parameter",
            f"{place}: only tool calls of type `function` can be carried.",
            param=place,
        )
    if not call.id:
        raise _bad(place, "id", "a tool call needs an id")
    return ToolCall(call.id, call.function.name, call.function.arguments)


def tools_of(tools: list[ChatTool] | None) -> tuple[tuple[Tool, ...], tuple[str, ...]]:
    """The caller's functions, and the types of the vendor-hosted tools among them.

    Raises:
        AgentError: a tool that is neither, or two of one name.
    """
    functions: dict[str, Tool] = {}
    hosted: dict[str, None] = {}
    for index, tool in enumerate(tools or ()):
        place = f"tools[{index}]"
        if tool.type == "custom":
            raise AgentError(
                "unsupported_parameter",
                f"{place}: custom tools cannot be carried over Chat Completions here; use a function.",
                param=place,
            )
        if tool.type != "function":
            hosted[shown_type(tool.type)] = None
            continue
        if tool.function is None:
            raise _bad(place, "function", "a tool of type `function` needs `function`")
        if not tool.function.name:
            raise _bad(place, "function.name", "a function needs a name")
        function = tool.function
        if function.name in functions:
            raise _bad(place, "function.name", f"two tools are named {function.name!r}")
        functions[function.name] = Tool(
            function.name, function.description, function.parameters, function.strict, tool.cache_control
        )
    return tuple(functions.values()), tuple(hosted)


def shown_type(name: str) -> str:
    """A type that a client made up, fit for a header, a message and a record."""
    return re.sub(r"[^!-+\--~]", "?", name[:_SHOWN_TYPE_LENGTH])


def _bad(place: str, field: str, why: str) -> AgentError:
    return AgentError("invalid_request", f"{place}: {why}.", param=f"{place}.{field}")
