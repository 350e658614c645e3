"""OpenAI's Responses format, as far as answers go: stream events, output items, whole responses, usage.

The shapes are those of the OpenAI SDK's types (`ResponseStreamEvent`, `ResponseOutputItem`, `Response`) and
of the Open Responses specification. Decoding is lenient, since the format grows with every model: fields
are optional, unknown fields are left alone, and event and item types that are not known here are told apart
from broken ones. Items stay raw, so that what goes back to a model is what came from it.
"""

from __future__ import annotations

from typing import Final, TypeAlias, get_args

import msgspec
from msgspec import Raw, Struct

NO_ITEM: Final = Raw(b"{}")

MESSAGE_MARK: Final = '{"type":"message"'
"""How the JSON of a `ProviderReasoning` begins that says what a message item was beside its words."""

# --- output items --------------------------------------------------------------------------------


class OutputText(Struct, frozen=True, tag_field="type", tag="output_text"):
    text: str = ""


class OutputRefusal(Struct, frozen=True, tag_field="type", tag="refusal"):
    refusal: str = ""


class SummaryText(Struct, frozen=True):
    """A part of a reasoning item's `summary` (`summary_text`) or `content` (`reasoning_text`)."""

    text: str = ""


class MessageItem(Struct, frozen=True, tag_field="type", tag="message"):
    """What the model says. `content` is decoded part by part with `decode_part`.

    `phase` is `commentary` or `final_answer`; models that set it want it back (SDK type
    `ResponseOutputMessage`).
    """

    id: str | None = None
    content: list[Raw] = []
    phase: str | None = None


class ReasoningItem(Struct, frozen=True, tag_field="type", tag="reasoning"):
    """Reasoning: in summary, in full where the model is open about it, and encrypted.

    `encrypted_content` counts in the item that is done; before that it may be incomplete.
    """

    id: str | None = None
    summary: list[SummaryText] | None = None
    content: list[SummaryText] | None = None
    encrypted_content: str | None = None


class FunctionCallItem(Struct, frozen=True, tag_field="type", tag="function_call"):
    """A call. `call_id` goes with its output; `id` names the item itself."""

    id: str | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    status: str | None = None


class CustomToolCallItem(Struct, frozen=True, tag_field="type", tag="custom_tool_call"):
    """A call of a tool that takes plain text, `input`."""

    id: str | None = None
    call_id: str = ""
    name: str = ""
    input: str = ""
    status: str | None = None


OutputItem: TypeAlias = MessageItem | ReasoningItem | FunctionCallItem | CustomToolCallItem

# --- the response --------------------------------------------------------------------------------


class CacheWriteDetails(Struct, frozen=True):
    """Tokens written into the cache, by the lifetime they were written with."""

    ttl_12h_tokens: int | None = None


class InputTokensDetails(Struct, frozen=True):
    """`cached_tokens` and `cache_write_tokens` are inside the input tokens."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_tokens_details: CacheWriteDetails | None = None


class OutputTokensDetails(Struct, frozen=True):
    """`reasoning_tokens` are inside the output tokens."""

    reasoning_tokens: int | None = None


class ResponseUsage(Struct, frozen=True):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: InputTokensDetails | None = None
    output_tokens_details: OutputTokensDetails | None = None


class IncompleteDetails(Struct, frozen=True):
    """`reason` is `max_output_tokens` or `content_filter`; others belong to what is not asked for here."""

    reason: str | None = None


class ErrorObject(Struct, frozen=True):
    """Why a response failed. `type` is there where the error had one (SDK type `ResponseError`)."""

    code: str | None = None
    message: str | None = None
    type: str | None = None


class Response(Struct, frozen=True):
    """A response, whole or as far as it has come. The items of `output` are read with `decode_item`."""

    id: str | None = None
    object: str | None = None
    status: str | None = None
    model: str | None = None
    output: list[Raw] | None = None
    error: ErrorObject | None = None
    incomplete_details: IncompleteDetails | None = None
    usage: ResponseUsage | None = None


# --- stream events -------------------------------------------------------------------------------


class ResponseCreated(Struct, frozen=True, tag_field="type", tag="response.created"):
    response: Response = Response()


class ResponseQueued(Struct, frozen=True, tag_field="type", tag="response.queued"):
    response: Response = Response()


class ResponseInProgress(Struct, frozen=True, tag_field="type", tag="response.in_progress"):
    response: Response = Response()


class ResponseCompleted(Struct, frozen=True, tag_field="type", tag="response.completed"):
    response: Response = Response()


class ResponseIncomplete(Struct, frozen=True, tag_field="type", tag="response.incomplete"):
    response: Response = Response()


class ResponseFailed(Struct, frozen=True, tag_field="type", tag="response.failed"):
    response: Response = Response()


class OutputItemAdded(Struct, frozen=True, tag_field="type", tag="response.output_item.added"):
    """An item begins; its content follows in deltas."""

    output_index: int
    item: Raw = NO_ITEM


class OutputItemDone(Struct, frozen=True, tag_field="type", tag="response.output_item.done"):
    """An item is whole."""

    output_index: int
    item: Raw = NO_ITEM


class ContentPartAdded(Struct, frozen=True, tag_field="type", tag="response.content_part.added"):
    pass


class ContentPartDone(Struct, frozen=True, tag_field="type", tag="response.content_part.done"):
    pass


class OutputTextDelta(Struct, frozen=True, tag_field="type", tag="response.output_text.delta"):
    output_index: int
    delta: str = ""


class OutputTextDone(Struct, frozen=True, tag_field="type", tag="response.output_text.done"):
    pass


class RefusalDelta(Struct, frozen=True, tag_field="type", tag="response.refusal.delta"):
    output_index: int
    delta: str = ""


class RefusalDone(Struct, frozen=True, tag_field="type", tag="response.refusal.done"):
    pass


class FunctionCallArgumentsDelta(
    Struct, frozen=True, tag_field="type", tag="response.function_call_arguments.delta"
):
    output_index: int
    delta: str = ""


class FunctionCallArgumentsDone(
    Struct, frozen=True, tag_field="type", tag="response.function_call_arguments.done"
):
    pass


class CustomToolCallInputDelta(
    Struct, frozen=True, tag_field="type", tag="response.custom_tool_call_input.delta"
):
    output_index: int
    delta: str = ""


class CustomToolCallInputDone(
    Struct, frozen=True, tag_field="type", tag="response.custom_tool_call_input.done"
):
    pass


class SummaryPartAdded(Struct, frozen=True, tag_field="type", tag="response.reasoning_summary_part.added"):
    pass


class SummaryPartDone(Struct, frozen=True, tag_field="type", tag="response.reasoning_summary_part.done"):
    pass


class SummaryTextDelta(Struct, frozen=True, tag_field="type", tag="response.reasoning_summary_text.delta"):
    output_index: int
    summary_index: int = 0
    delta: str = ""


class SummaryTextDone(Struct, frozen=True, tag_field="type", tag="response.reasoning_summary_text.done"):
    pass


class ReasoningTextDelta(Struct, frozen=True, tag_field="type", tag="response.reasoning_text.delta"):
    """Reasoning in full, as open models give it."""

    output_index: int
    content_index: int = 0
    delta: str = ""


class ReasoningTextDone(Struct, frozen=True, tag_field="type", tag="response.reasoning_text.done"):
    pass


class ErrorEvent(Struct, frozen=True, tag_field="type", tag="error"):
    """The members of the error stand in the event itself, or in `error` as in the body of an HTTP error."""

    code: str | None = None
    message: str | None = None
    error: ErrorObject | None = None


StreamEvent: TypeAlias = (
    ResponseCreated
    | ResponseQueued
    | ResponseInProgress
    | ResponseCompleted
    | ResponseIncomplete
    | ResponseFailed
    | OutputItemAdded
    | OutputItemDone
    | ContentPartAdded
    | ContentPartDone
    | OutputTextDelta
    | OutputTextDone
    | RefusalDelta
    | RefusalDone
    | FunctionCallArgumentsDelta
    | FunctionCallArgumentsDone
    | CustomToolCallInputDelta
    | CustomToolCallInputDone
    | SummaryPartAdded
    | SummaryPartDone
    | SummaryTextDelta
    | SummaryTextDone
    | ReasoningTextDelta
    | ReasoningTextDone
    | ErrorEvent
)


class _Kind(Struct, frozen=True):
    type: str = ""


_event_decoder: msgspec.json.Decoder[StreamEvent] = msgspec.json.Decoder(StreamEvent)
_item_decoder: msgspec.json.Decoder[OutputItem] = msgspec.json.Decoder(OutputItem)
_part_decoder: msgspec.json.Decoder[OutputText | OutputRefusal] = msgspec.json.Decoder(
    OutputText | OutputRefusal
)
_kind_decoder = msgspec.json.Decoder(_Kind)

decode_response = msgspec.json.Decoder(Response).decode

_EVENTS: Final = frozenset(each.__struct_config__.tag for each in get_args(StreamEvent))
_ITEMS: Final = frozenset(each.__struct_config__.tag for each in get_args(OutputItem))
_PARTS: Final = frozenset({"output_text", "refusal"})


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
        raise


def decode_item(data: bytes | Raw) -> OutputItem | str:
    """One output item; its type's name, for one of a type that is not known here.

    Raises:
        msgspec.DecodeError: as for `decode_event`.
    """
    try:
        return _item_decoder.decode(data)
    except msgspec.ValidationError:
        kind = _kind_decoder.decode(data).type
        if kind not in _ITEMS:
            return kind
        raise


def decode_part(data: bytes | Raw) -> OutputText | OutputRefusal | None:
    """One part of a message's content; `None` for one of a type that is not known here.

    Raises:
        msgspec.DecodeError: as for `decode_event`.
    """
    try:
        return _part_decoder.decode(data)
    except msgspec.ValidationError:
        if _kind_decoder.decode(data).type not in _PARTS:
            return None
        raise
