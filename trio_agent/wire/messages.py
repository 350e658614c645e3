"""Anthropic's Messages format, as far as answers go: stream events, whole messages, errors, model lists.

Decoding is lenient, since the format promises to grow: fields are optional, unknown fields are left
alone, and event, block and delta types that are not known here are told apart from broken ones
(https://platform.claude.com/docs/en/api/versioning: new variants may appear within a version). The
shapes are those of the types of Anthropic's Python SDK.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec
from msgspec import Raw, Struct

RAW_ARGUMENTS: Final = "_raw_arguments"
"""The one member of an `input` that stands for arguments which are no JSON object: the text as it was."""

# --- content blocks, as `content_block_start` and whole messages carry them ----------------------


class TextBlock(Struct, frozen=True, tag_field="type", tag="text"):
    text: str = ""


class ThinkingBlock(Struct, frozen=True, tag_field="type", tag="thinking"):
    thinking: str = ""
    signature: str | None = None


class RedactedThinkingBlock(Struct, frozen=True, tag_field="type", tag="redacted_thinking"):
    data: str = ""


class ToolUseBlock(Struct, frozen=True, tag_field="type", tag="tool_use"):
    """`input` stays as it was written, byte for byte; it is `{}` where the arguments come as deltas."""

    id: str = ""
    name: str = ""
    input: Raw = Raw(b"{}")


ContentBlock: TypeAlias = TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock


# --- deltas --------------------------------------------------------------------------------------


class TextDelta(Struct, frozen=True, tag_field="type", tag="text_delta"):
    text: str = ""


class ThinkingDelta(Struct, frozen=True, tag_field="type", tag="thinking_delta"):
    thinking: str = ""


class SignatureDelta(Struct, frozen=True, tag_field="type", tag="signature_delta"):
    signature: str = ""


class InputJSONDelta(Struct, frozen=True, tag_field="type", tag="input_json_delta"):
    partial_json: str = ""


BlockDelta: TypeAlias = TextDelta | ThinkingDelta | SignatureDelta | InputJSONDelta


# --- usage, stop reasons, errors -----------------------------------------------------------------


class CacheCreation(Struct, frozen=True):
    """Cache writes by lifetime, in tokens."""

    ephemeral_5m_input_tokens: int | None = None
    ephemeral_1h_input_tokens: int | None = None


class OutputTokensDetails(Struct, frozen=True):
    """`thinking_tokens` are inside the output tokens."""

    thinking_tokens: int | None = None


class MessageUsage(Struct, frozen=True):
    """Token counts; `input_tokens` counts neither cache reads nor cache writes (SDK type `Usage`)."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation: CacheCreation | None = None
    output_tokens_details: OutputTokensDetails | None = None


class StopDetails(Struct, frozen=True):
    """Why a refusal happened (SDK type `RefusalStopDetails`)."""

    category: str | None = None
    explanation: str | None = None


class ErrorObject(Struct, frozen=True):
    type: str = ""
    message: str = ""


class MessageStub(Struct, frozen=True):
    """The message that `message_start` announces; its content follows in later events."""

    id: str | None = None
    model: str | None = None
    usage: MessageUsage | None = None


class MessageChange(Struct, frozen=True):
    """The `delta` of `message_delta`."""

    stop_reason: str | None = None
    stop_details: StopDetails | None = None
    stop_sequence: str | None = None


# --- stream events -------------------------------------------------------------------------------


class MessageStart(Struct, frozen=True, tag_field="type", tag="message_start"):
    message: MessageStub = MessageStub()


class ContentBlockStart(Struct, frozen=True, tag_field="type", tag="content_block_start"):
    """`content_block` is `None` for a block of a type that is not known here."""

    index: int
    content_block: ContentBlock | None


class ContentBlockDelta(Struct, frozen=True, tag_field="type", tag="content_block_delta"):
    index: int
    delta: BlockDelta


class ContentBlockStop(Struct, frozen=True, tag_field="type", tag="content_block_stop"):
    index: int


class MessageDelta(Struct, frozen=True, tag_field="type", tag="message_delta"):
    """The counts in `usage` are cumulative."""

    delta: MessageChange = MessageChange()
    usage: MessageUsage | None = None


class MessageStop(Struct, frozen=True, tag_field="type", tag="message_stop"):
    pass


class Ping(Struct, frozen=True, tag_field="type", tag="ping"):
    pass


class ErrorEvent(Struct, frozen=True, tag_field="type", tag="error"):
    """Both the `error` event of a stream and the body of an HTTP error."""

    error: ErrorObject = ErrorObject()


StreamEvent: TypeAlias = (
    MessageStart
    | ContentBlockStart
    | ContentBlockDelta
    | ContentBlockStop
    | MessageDelta
    | MessageStop
    | Ping
    | ErrorEvent
)


class WholeMessage(Struct, frozen=True):
    """An answer that was not streamed. `content` is decoded block by block with `decode_block`."""

    id: str | None = None
    type: str = ""
    model: str | None = None
    content: list[Raw] = []
    stop_reason: str | None = None
    stop_details: StopDetails | None = None
    usage: MessageUsage | None = None
    stop_sequence: str | None = None


class TokensCount(Struct, frozen=True):
    """The answer of `count_tokens`."""

    input_tokens: int


# --- model list ----------------------------------------------------------------------------------


class Support(Struct, frozen=True):
    supported: bool = False


class ThinkingTypes(Struct, frozen=True):
    """Which `thinking.type` values a model accepts (SDK type `ThinkingTypes`)."""

    adaptive: Support | None = None
    between_tools: Support | None = None
    disabled: Support | None = None
    enabled: Support | None = None


class ThinkingCapability(Struct, frozen=True):
    supported: bool = False
    types: ThinkingTypes | None = None


class EffortCapability(Struct, frozen=True):
    supported: bool = False
    low: Support | None = None
    medium: Support | None = None
    high: Support | None = None
    xhigh: Support | None = None
    max: Support | None = None


class ModelCapabilities(Struct, frozen=True):
    effort: EffortCapability | None = None
    image_input: Support | None = None
    structured_outputs: Support | None = None
    thinking: ThinkingCapability | None = None


class ListedModel(Struct, frozen=True):
    """One entry of `GET /v1/models`. Limits are in tokens, `created_at` is RFC 3339."""

    id: str
    display_name: str | None = None
    created_at: str | None = None
    max_input_tokens: int | None = None
    max_tokens: int | None = None
    capabilities: ModelCapabilities | None = None


class ModelPage(Struct, frozen=True):
    data: list[ListedModel]
    has_more: bool = False
    last_id: str | None = None


class _Kind(Struct, frozen=True):
    type: str = ""


class _EventKinds(Struct, frozen=True):
    type: str = ""
    index: int = 0
    content_block: _Kind | None = None
    delta: _Kind | None = None


_event_decoder: msgspec.json.Decoder[StreamEvent] = msgspec.json.Decoder(StreamEvent)
_kinds_decoder = msgspec.json.Decoder(_EventKinds)
_block_decoder: msgspec.json.Decoder[ContentBlock] = msgspec.json.Decoder(ContentBlock)
_kind_decoder = msgspec.json.Decoder(_Kind)

decode_message = msgspec.json.Decoder(WholeMessage).decode
decode_error = msgspec.json.Decoder(ErrorEvent).decode
decode_count = msgspec.json.Decoder(TokensCount).decode
decode_model_page = msgspec.json.Decoder(ModelPage).decode

_EVENTS = frozenset(
    {
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "ping",
        "error",
    }
)
_BLOCKS = frozenset({"text", "thinking", "redacted_thinking", "tool_use"})
_DELTAS = frozenset({"text_delta", "thinking_delta", "signature_delta", "input_json_delta"})


def decode_event(data: bytes) -> StreamEvent | None:
    """The event in the data of one server-sent event; `None` for one of a type that is not known here.

    Raises:
        msgspec.DecodeError: the data is not JSON, or a known event has another shape than documented.
    """
    try:
        return _event_decoder.decode(data)
    except msgspec.ValidationError:
        if _kind_decoder.decode(data).type not in _EVENTS:
            return None
        kinds = _kinds_decoder.decode(data)
        if (
            kinds.type == "content_block_delta"
            and kinds.delta is not None
            and kinds.delta.type not in _DELTAS
        ):
            return None
        block = kinds.content_block
        if kinds.type == "content_block_start" and block is not None and block.type not in _BLOCKS:
            return ContentBlockStart(kinds.index, None)
        raise


def decode_block(data: bytes | Raw) -> ContentBlock | None:
    """One content block of a whole message; `None` for one of a type that is not known here.

    Raises:
        msgspec.DecodeError: as for `decode_event`.
    """
    try:
        return _block_decoder.decode(data)
    except msgspec.ValidationError:
        if _kind_decoder.decode(data).type not in _BLOCKS:
            return None
        raise
