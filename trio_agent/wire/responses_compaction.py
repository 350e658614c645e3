"""A compaction: the request for one, and the answer, which is the input of whatever goes on from it.

Fields follow `ResponseCompactParams` and `CompactedResponse` of OpenAI's SDK, and `CompactResource` of the
Open Responses specification.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Raw, Struct

from trio_agent.statemachine.conversation import Image, Message, Text
from trio_agent.wire.body import other_fields
from trio_agent.wire.chat_request import RoutingHint
from trio_agent.wire.responses_items import ItemStatus
from trio_agent.wire.responses_object import ResponseUsage
from trio_agent.wire.responses_tools import Definition

_DETAILS: Final = ("low", "high", "auto")


class CompactRequest(Struct, kw_only=True):
    """The body of `POST /v1/responses/compact`."""

    model: str | None = None
    input: str | list[Raw] | None = None
    previous_response_id: str | None = None
    instructions: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    routing_hint: RoutingHint | None = None


COMPACT_REQUEST: Final = msgspec.json.Decoder(CompactRequest)
_FIELDS: Final = frozenset(CompactRequest.__struct_fields__)


class InputText(Struct, frozen=True, tag_field="type", tag="input_text"):
    text: str


class InputImage(Struct, frozen=True, tag_field="type", tag="input_image"):
    image_url: str
    detail: str = "auto"


class KeptMessage(Struct, frozen=True, tag_field="type", tag="message"):
    """What somebody said to the model, word for word."""

    id: str
    role: str
    content: tuple[InputText | InputImage, ...]
    status: ItemStatus = "completed"


class CompactionItem(Struct, frozen=True, tag_field="type", tag="compaction"):
    """What stands for all the rest. `encrypted_content` is a token of `compaction_token`."""

    id: str
    encrypted_content: str


class AdditionalTools(Struct, frozen=True, tag_field="type", tag="additional_tools"):
    """The tools that came as items of the conversation. Nothing else offers them to the next request."""

    id: str
    tools: tuple[Definition, ...]
    role: str = "developer"


CompactedItem: TypeAlias = AdditionalTools | KeptMessage | CompactionItem


class CompactedResponse(Struct, frozen=True, kw_only=True):
    """The answer. `created_at` is in seconds since the epoch."""

    id: str
    object: str = "response.compaction"
    created_at: int
    output: tuple[CompactedItem, ...]
    usage: ResponseUsage


def left_out(body: bytes) -> tuple[str, ...]:
    """The fields of a body that say something, and are none of a `CompactRequest`."""
    said: Mapping[str, Any] = other_fields(body, _FIELDS)
    return tuple(name for name, value in said.items() if value is not None)


def kept_message(message: Message, item_id: str) -> KeptMessage:
    """A message of a user's, the system's or a developer's as an item."""
    content = tuple(_content(part) for part in message.parts if isinstance(part, Text | Image))
    return KeptMessage(item_id, message.role, content)


def _content(part: Text | Image) -> InputText | InputImage:
    if isinstance(part, Text):
        return InputText(part.text)
    return InputImage(part.url, part.detail if part.detail in _DETAILS else "auto")


__all__ = [
    "COMPACT_REQUEST",
    "AdditionalTools",
    "CompactRequest",
    "CompactedItem",
    "CompactedResponse",
    "CompactionItem",
    "KeptMessage",
    "kept_message",
    "left_out",
]
