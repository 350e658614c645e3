"""What is said in a turn: messages and their parts, tools, and token usage.

These are the values that cross every border of the house. A face decodes a client's request into
them, a provider encodes them for its upstream, the turn machine folds a model's answer back into
them. They are frozen: a message that was stored is the message that is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from msgspec import Struct


class Text(Struct, frozen=True, tag_field="type", tag="text"):
    """Plain text. `cache_control` is a prompt-caching marker, passed on to wires that have one."""

    text: str
    cache_control: dict[str, Any] | None = None


class Image(Struct, frozen=True, tag_field="type", tag="image"):
    """An image by `http(s)` or `data:image/…` URL. `detail` is OpenAI's low | high | auto."""

    url: str
    detail: str | None = None
    cache_control: dict[str, Any] | None = None


class Refusal(Struct, frozen=True, tag_field="type", tag="refusal"):
    """The model's own words for declining (OpenAI's `refusal`)."""

    text: str


class Thinking(Struct, frozen=True, tag_field="type", tag="thinking"):
    """Reasoning in words. `signature` is the vendor's proof and goes back byte for byte."""

    text: str
    signature: str | None = None


class RedactedThinking(Struct, frozen=True, tag_field="type", tag="redacted_thinking"):
    """Reasoning that the vendor encrypted; `data` goes back byte for byte."""

    data: str


class ProviderReasoning(Struct, frozen=True, tag_field="type", tag="provider_reasoning"):
    """Reasoning in a shape that only its own provider knows; `data` is that provider's JSON text."""

    data: str


class ToolCall(Struct, frozen=True, tag_field="type", tag="tool_call"):
    """A call that the model made.

    `arguments` is the JSON text as the model wrote it, which may not be valid JSON.
    `provider_data` is JSON text that the provider wants back with the call (Gemini's thought
    signature).
    """

    id: str
    name: str
    arguments: str
    provider_data: str | None = None
    cache_control: dict[str, Any] | None = None


class ToolResult(Struct, frozen=True, tag_field="type", tag="tool_result"):
    """What a call returned. `is_error` tells the model that the call failed."""

    tool_call_id: str
    content: tuple[Text | Image, ...]
    is_error: bool = False
    cache_control: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        """The result in words, a line for each part; an image is only named as one."""
        return "\n".join(part.text if isinstance(part, Text) else "[image]" for part in self.content)


Part: TypeAlias = (
    Text | Image | Refusal | Thinking | RedactedThinking | ProviderReasoning | ToolCall | ToolResult
)
Role: TypeAlias = Literal["system", "developer", "user", "assistant", "tool"]

REASONING_PARTS = (Thinking, RedactedThinking, ProviderReasoning)


class Message(Struct, frozen=True):
    """One message of the conversation.

    `origin` is `<provider>/<model>` for an assistant message that a model of ours wrote, and absent
    for what a client sent. Signed reasoning is bound to it.
    """

    role: Role
    parts: tuple[Part, ...]
    name: str | None = None
    origin: str | None = None

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(part for part in self.parts if isinstance(part, ToolCall))

    @property
    def tool_results(self) -> tuple[ToolResult, ...]:
        return tuple(part for part in self.parts if isinstance(part, ToolResult))

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Text))


class Tool(Struct, frozen=True):
    """A function that the model may call. `parameters` is a JSON Schema, passed through as it is.

    With `freeform` the caller wants plain text instead of JSON: it is the format of that text, OpenAI's
    `{"type": "text"}` or `{"type": "grammar", "syntax", "definition"}`. On a wire that has no such tools the
    text is the one parameter, `input`, which is what `parameters` says then.
    """

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    cache_control: dict[str, Any] | None = None
    freeform: dict[str, Any] | None = None


class Usage(Struct, frozen=True):
    """Tokens of one or more model calls.

    `input_tokens` counts the whole prompt: cached reads and cache writes are inside it, not beside
    it. `output_tokens` counts the whole answer, reasoning inside it. (OpenAI's convention; Anthropic's
    wire reports the classes apart, and its adapter adds them up.) `cache_write_1h_tokens` are those of
    the `cache_write_tokens` that were written with the longer, dearer lifetime.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.cache_write_1h_tokens + other.cache_write_1h_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


def without_foreign_reasoning(messages: Sequence[Message], origin: str) -> tuple[Message, ...]:
    """The conversation as `origin` may see it: signed reasoning of other models is left out.

    A signature is only valid with the provider and model that made it. Messages without an origin are
    the client's own and are passed on as they are.
    """
    return tuple(
        message if message.origin is None or message.origin == origin else _without_reasoning(message)
        for message in messages
    )


def _without_reasoning(message: Message) -> Message:
    parts = tuple(
        ToolCall(part.id, part.name, part.arguments) if isinstance(part, ToolCall) else part
        for part in message.parts
        if not isinstance(part, REASONING_PARTS)
    )
    return Message(message.role, parts, message.name)
