"""OpenAI Responses requests: what clients send, as a struct, and as a list of items.

Fields follow `ResponseCreateParams` of OpenAI's SDK and `CreateResponseBody` of the Open Responses
specification. Unknown fields are accepted; the face passes them on where the upstream speaks the same format.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from trio_agent.errors import AgentError
from trio_agent.wire.body import decode_part, other_fields
from trio_agent.wire.chat_request import RoutingHint, StreamOptions
from trio_agent.wire.responses_item_types import Item, type_of
from trio_agent.wire.responses_tools import Definition


class ConversationId(Struct):
    id: str


class CreateResponse(Struct, kw_only=True):
    """The body of `POST /v1/responses`, and of `response.create` over a WebSocket.

    `generate`, `type` and `stream_id` are the latter's. `generate: false` takes the input in, and asks for no
    answer yet; `type` says which message it is; events of an answer say its request's `stream_id` again.
    `client_metadata` is a client's word about itself (codex sends it), and nobody's here.
    """

    model: str | None = None
    input: str | list[Raw] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: str | ConversationId | None = None
    store: bool | None = None
    background: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    generate: bool | None = None
    include: list[str] | None = None
    tools: list[Definition] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    truncation: str | None = None
    context_management: Any = None
    prompt: Any = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    client_metadata: Any = None
    type: Any = None
    stream_id: str | None = None
    routing_hint: RoutingHint | None = None


CREATE_RESPONSE: Final = msgspec.json.Decoder(CreateResponse)
_FIELDS: Final = frozenset(CreateResponse.__struct_fields__)
_item: Final[msgspec.json.Decoder[Item]] = msgspec.json.Decoder(dict[str, Any])


def unknown_fields(body: bytes) -> dict[str, Any]:
    """The top-level fields that have no name here, as they came.

    Raises:
        AgentError: one of them holds a number that no program can take.
    """
    return {name: value for name, value in other_fields(body, _FIELDS).items() if value is not None}


def items_of(said: str | list[Raw] | None, *, place: str = "input") -> tuple[Item, ...]:
    """The input as a list of items, each with its `type`, messages with their content as parts.

    An item without an id has none here either; whoever keeps it gives it one.

    Args:
        place: the field that holds them.

    Raises:
        AgentError: one is no object, or says no type.
    """
    if said is None:
        return ()
    if isinstance(said, str):
        return ({"type": "message", "role": "user", "status": "completed", "content": _parts(said, "user")},)
    return tuple(_whole(raw, f"{place}[{index}]") for index, raw in enumerate(said))


def _whole(raw: Raw, place: str) -> Item:
    item = decode_part(raw, _item, place)
    kind = type_of(item, place)
    whole: Item = {"type": kind, **item} | {"type": kind}
    name = whole.pop("id", None)
    if isinstance(name, str) and name:
        whole["id"] = name
    elif name not in (None, ""):
        raise AgentError("invalid_request", f"{place}: `id` must be a string.", param=f"{place}.id")
    if kind == "message":
        if isinstance(whole.get("content"), str):
            whole["content"] = _parts(whole["content"], whole.get("role"))
        whole["status"] = whole.get("status") or "completed"
    return whole


def _parts(text: str, role: object) -> list[dict[str, Any]]:
    """A message's text as the format lists it."""
    if role == "assistant":
        return [{"type": "output_text", "text": text, "annotations": []}] if text else []
    return [{"type": "input_text", "text": text}]


def reference_of(item: Item, place: str) -> str | None:
    """The id of the item that this one stands for, if it is a reference.

    Raises:
        AgentError: it is one, without an id.
    """
    if item["type"] != "item_reference":
        return None
    if "id" in item:
        return str(item["id"])
    raise AgentError("invalid_request", f"{place}: a reference needs `id`, a string.", param=f"{place}.id")
