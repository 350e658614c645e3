"""Anthropic Messages answers, as clients expect them.

Shapes follow `Message` and `RawMessageStreamEvent` of Anthropic's SDK; `cost_usd` and `usage_source` are
ours. Every event has its `event:` line: the SDKs go by it.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from trio_agent.statemachine.conversation import Usage
from trio_agent.statemachine.effects import UsageSource
from trio_agent.statemachine.events import FinishReason
from trio_agent.wire.messages import RAW_ARGUMENTS
from trio_agent.wire.sse import frame

encode = msgspec.json.Encoder(decimal_format="string").encode

PING: Final = frame(b'{"type":"ping"}', event="ping")
DELTA_END: Final = b"}}\n\n"
_DELTA: Final = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%s","%s":'
)
MESSAGE_STOP: Final = frame(b'{"type":"message_stop"}', event="message_stop")

STOP_REASONS: Final[dict[FinishReason, str]] = {
    "stop": "end_turn",
    "tool_calls": "tool_use",
    "length": "max_tokens",
    "content_filter": "refusal",
}

_object = msgspec.json.Decoder(dict[str, Raw])


class CacheCreation(Struct):
    ephemeral_5m_input_tokens: int
    ephemeral_1h_input_tokens: int


class OutputTokensDetails(Struct):
    thinking_tokens: int


class MessagesUsage(Struct):
    """Tokens. `input_tokens` counts neither cache reads nor cache writes; all three together are the prompt.

    `cost_usd` is an exact decimal, absent when unknown; `usage_source` is there unless the provider itself
    reported the figures.
    """

    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    cache_creation: CacheCreation
    output_tokens_details: OutputTokensDetails
    cost_usd: str | UnsetType = UNSET
    usage_source: str | UnsetType = UNSET


def usage_of(usage: Usage, cost_usd: Decimal | None, source: UsageSource) -> MessagesUsage:
    written, read = usage.cache_write_tokens, usage.cached_input_tokens
    return MessagesUsage(
        max(0, usage.input_tokens - read - written),
        usage.output_tokens,
        written,
        read,
        CacheCreation(max(0, written - usage.cache_write_1h_tokens), usage.cache_write_1h_tokens),
        OutputTokensDetails(usage.reasoning_tokens),
        UNSET if cost_usd is None else f"{cost_usd:f}",
        UNSET if source == "provider" else source,
    )


class StopDetails(Struct):
    """Why the model declined; `explanation` are its own words."""

    explanation: str | None
    category: None = None
    type: str = "refusal"


class StopState(Struct):
    """The `delta` of `message_delta`."""

    stop_reason: str | None
    stop_sequence: str | None = None
    stop_details: StopDetails | None = None


class WholeMessage(Struct, kw_only=True):
    """An answer that is not streamed, and what `message_start` begins with."""

    id: str
    type: str = "message"
    role: str = "assistant"
    model: str
    content: list[dict[str, Any]]
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: StopDetails | None = None
    usage: MessagesUsage


def stop_state(reason: FinishReason, stop_sequence: str | None, refusal: str) -> StopState:
    """How an answer ended. `refusal` are the words with which the model declined, if it did.

    Models of other vendors decline in words and finish with `stop`; here that has a reason of its own.
    """
    if reason == "content_filter" or (refusal and reason == "stop"):
        return StopState("refusal", stop_details=StopDetails(refusal or None))
    if reason == "stop" and stop_sequence is not None:
        return StopState("stop_sequence", stop_sequence)
    return StopState(STOP_REASONS[reason])


def tool_input(arguments: str) -> Any:
    """The arguments of a call as `input`, which must be an object: byte for byte where they are one."""
    if not arguments.strip():
        return {}
    try:
        _object.decode(arguments)
        return Raw(arguments.encode())
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return {RAW_ARGUMENTS: arguments}


# --- the events of a stream ------------------------------------------------------------------------


def message_start(response_id: str, model: str, usage: Usage) -> bytes:
    """The first event, with the usage that is known so far; `message_delta` has the figures that count."""
    known = usage_of(usage, None, "provider")
    message = WholeMessage(id=response_id, model=model, content=[], usage=known)
    return frame(encode({"type": "message_start", "message": message}), event="message_start")


def block_start(index: int, block: dict[str, Any]) -> bytes:
    event = {"type": "content_block_start", "index": index, "content_block": block}
    return frame(encode(event), event="content_block_start")


def block_delta(index: int, kind: str, name: str, value: str) -> bytes:
    """A delta of type `kind` whose member `name` is `value`."""
    return delta_head(index, kind, name) + encode(value) + DELTA_END


def delta_head(index: int, kind: str, name: str) -> bytes:
    """What all deltas of a block begin with: made once, so that a chunk costs the encoding of its text."""
    return _DELTA % (index, kind.encode(), name.encode())


def block_stop(index: int) -> bytes:
    return frame(b'{"type":"content_block_stop","index":%d}' % index, event="content_block_stop")


def message_delta(state: StopState, usage: MessagesUsage) -> bytes:
    return frame(encode({"type": "message_delta", "delta": state, "usage": usage}), event="message_delta")
