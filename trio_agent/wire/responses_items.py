"""Items of a Responses answer, as clients are shown them.

Shapes follow OpenAI's `ResponseOutputItem` and the Open Responses specification's `ItemField`. A tool of
the server's is shown as a call of an MCP server named `SERVER_LABEL`: of all items it is the one that says
that the call was made for the client, and what came of it.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Struct, UnsetType

from trio_agent.wire.responses_input import SERVER_LABEL

ItemStatus: TypeAlias = Literal["in_progress", "completed", "incomplete", "failed"]

_RESPONSE_PREFIX: Final = "resp_"
_PHASES: Final = frozenset({"commentary", "final_answer"})


class MessageFacts(Struct, frozen=True):
    """What a provider that speaks this format keeps of a message beside its words."""

    type: str = ""
    id: str | None = None
    phase: str | None = None


_decode_facts = msgspec.json.Decoder(MessageFacts).decode


def facts_of(data: str) -> MessageFacts | None:
    """The facts of a message that a provider wants back, if these are facts of one."""
    try:
        facts = _decode_facts(data)
    except (msgspec.DecodeError, RecursionError):
        return None
    return facts if facts.type == "message" and (facts.phase is None or facts.phase in _PHASES) else None


class TextPart(Struct, frozen=True, tag_field="type", tag="output_text"):
    text: str
    annotations: list[Any] = []
    logprobs: list[Any] = []


class RefusalPart(Struct, frozen=True, tag_field="type", tag="refusal"):
    refusal: str


class SummaryPart(Struct, frozen=True, tag_field="type", tag="summary_text"):
    text: str


class MessageItem(Struct, frozen=True, tag_field="type", tag="message"):
    """The model's words. `phase` is `commentary` or `final_answer`, where its model says so."""

    id: str
    status: ItemStatus
    content: list[TextPart | RefusalPart]
    role: str = "assistant"
    phase: str | UnsetType = UNSET


class ReasoningItem(Struct, frozen=True, tag_field="type", tag="reasoning"):
    """Reasoning. `encrypted_content` is what its model wants back, opaque to clients."""

    id: str
    status: ItemStatus
    summary: list[SummaryPart]
    encrypted_content: str | UnsetType = UNSET


class FunctionCallItem(Struct, frozen=True, tag_field="type", tag="function_call"):
    """A call of a function of the client's. `arguments` is JSON text, as the model wrote it."""

    id: str
    status: ItemStatus
    call_id: str
    name: str
    arguments: str
    namespace: str | UnsetType = UNSET


class CustomToolCallItem(Struct, frozen=True, tag_field="type", tag="custom_tool_call"):
    """A call of a tool that takes free text."""

    id: str
    status: ItemStatus
    call_id: str
    name: str
    input: str
    namespace: str | UnsetType = UNSET


class McpCallItem(Struct, frozen=True, tag_field="type", tag="mcp_call"):
    """A call of a tool of the server's. `error` is there once it failed, with the same text as `output`.

    `call_id` is ours: with it, a conversation that comes back whole is known for the one that was had.
    """

    id: str
    status: ItemStatus
    call_id: str
    name: str
    arguments: str
    output: str | None = None
    error: dict[str, Any] | None = None
    server_label: str = SERVER_LABEL
    approval_request_id: None = None


OutputItem: TypeAlias = MessageItem | ReasoningItem | FunctionCallItem | CustomToolCallItem | McpCallItem


def item_id(prefix: str, response_id: str, index: int) -> str:
    """The id of an output item: it follows from the response's, so that a stream can be written again."""
    return f"{prefix}_{response_id.removeprefix(_RESPONSE_PREFIX)}_{index}"
