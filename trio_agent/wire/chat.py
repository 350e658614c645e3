"""Chat Completions answers: chunks, whole answers, usage, as upstreams send them.

The shapes are those of the OpenAI SDK's types `ChatCompletionChunk`, `ChatCompletion` and
`CompletionUsage`, with the additions of other servers that speak the format. Everything is optional and
unknown fields are ignored: servers differ, and an odd field must not end a stream that is otherwise good.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
from msgspec import Raw, Struct

T = TypeVar("T", bound=Struct)
NO_RAW: Final = Raw(b"")
"""The value of a raw field that is absent."""


class ChatFunction(Struct, frozen=True):
    """Name and arguments of a call. Some servers send the arguments as an object instead of as text."""

    name: str | None = None
    arguments: str | dict[str, Any] | list[Any] | None = None


class ChatToolCall(Struct, frozen=True):
    """A tool call or a fragment of one. `extra_content` is Gemini's and goes back as it came."""

    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: ChatFunction | None = None
    extra_content: Raw = NO_RAW


class ChatDelta(Struct, frozen=True):
    """What a chunk adds, or (`ChatMessage`) a whole message.

    Reasoning in words is `reasoning_content` (DeepSeek, older vLLM, xAI) or `reasoning` (OpenRouter, Groq,
    Ollama, newer vLLM); `reasoning_details` are OpenRouter's blocks. `content` is a list of parts on
    Mistral's reasoning models.
    """

    role: str | None = None
    content: str | list[Any] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[dict[str, Any]] | None = None
    tool_calls: list[ChatToolCall] | None = None


ChatMessage: TypeAlias = ChatDelta


class ChatChoice(Struct, frozen=True):
    """`delta` in a chunk, `message` in a whole answer.

    `stop_reason` is vLLM's: the stop sequence that ended the answer, or the number of such a token.
    """

    index: int | None = None
    delta: ChatDelta | None = None
    message: ChatMessage | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None


class PromptDetails(Struct, frozen=True):
    """Classes within `prompt_tokens`."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_creation_tokens: int | None = None


class CompletionDetails(Struct, frozen=True):
    """Classes within `completion_tokens`."""

    reasoning_tokens: int | None = None


class CostDetails(Struct, frozen=True):
    """OpenRouter: USD that the vendor charged on the caller's own account."""

    upstream_inference_cost: Decimal | None = None


class ChatUsage(Struct, frozen=True):
    """Token counts, and what the call cost where the server says it.

    `cost` is USD on OpenRouter, `cost_in_usd_ticks` is xAI's unit of 1e-10 USD, `cost_usd` is our own.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    prompt_cache_hit_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost: Decimal | None = None
    cost_usd: Decimal | None = None
    cost_in_usd_ticks: int | None = None
    is_byok: bool | None = None
    cost_details: CostDetails | None = None


class GroqExtra(Struct, frozen=True):
    """Groq's own corner of a chunk."""

    usage: ChatUsage | None = None
    error: Any = None


class ChatChunk(Struct, frozen=True):
    """One chunk of a stream; with `message` in its choices, a whole answer."""

    id: str | None = None
    object: str | None = None
    model: str | None = None
    choices: list[ChatChoice] | None = None
    usage: ChatUsage | None = None
    error: Any = None
    x_groq: GroqExtra | None = None


ChatCompletion: TypeAlias = ChatChunk

_decode_chunk = msgspec.json.Decoder(ChatChunk).decode
encode_json = msgspec.json.Encoder(decimal_format="number").encode
"""JSON in which exact decimals are numbers again."""
_decode_any = msgspec.json.Decoder(float_hook=Decimal).decode

_NESTED: Final[dict[tuple[type[Struct], str], type[Struct]]] = {
    (ChatChunk, "choices"): ChatChoice,
    (ChatChunk, "usage"): ChatUsage,
    (ChatChunk, "x_groq"): GroqExtra,
    (GroqExtra, "usage"): ChatUsage,
    (ChatChoice, "delta"): ChatDelta,
    (ChatChoice, "message"): ChatDelta,
    (ChatDelta, "tool_calls"): ChatToolCall,
    (ChatToolCall, "function"): ChatFunction,
    (ChatUsage, "prompt_tokens_details"): PromptDetails,
    (ChatUsage, "completion_tokens_details"): CompletionDetails,
    (ChatUsage, "cost_details"): CostDetails,
}
_LISTS: Final = frozenset({"choices", "tool_calls"})


def decode_chunk(data: bytes) -> ChatChunk:
    """A chunk or a whole answer from its JSON. Fields of a wrong type are as good as absent.

    Raises:
        msgspec.DecodeError: not JSON, or not an object.
    """
    try:
        return _decode_chunk(data)
    except msgspec.ValidationError:
        pass
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(str(error)) from None
    try:
        value = _decode_any(data)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None
    if not isinstance(value, dict):
        raise msgspec.DecodeError(f"expected an object, got {type(value).__name__}")
    return _salvage(value, ChatChunk)


def _salvage(value: dict[str, Any], kind: type[T]) -> T:
    """What of `value` fits `kind`, field by field."""
    kept: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        name = field.encode_name
        if name not in value:
            continue
        given = value[name]
        if field.type is Raw:
            kept[name] = Raw(encode_json(given))
            continue
        nested = _NESTED.get((kind, name))
        if nested is not None and name in _LISTS:
            if isinstance(given, list):
                kept[name] = [_salvage(item, nested) for item in given if isinstance(item, dict)]
        elif nested is not None:
            if isinstance(given, dict):
                kept[name] = _salvage(given, nested)
        else:
            try:
                kept[name] = msgspec.convert(given, field.type, strict=False)
            except msgspec.ValidationError:
                continue
    return kind(**kept)
