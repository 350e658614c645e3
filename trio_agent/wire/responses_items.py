"""Items of a Responses answer, as clients are shown them.

Shapes follow OpenAI's `ResponseOutputItem` and the Open Responses specification's `ItemField`. A tool of
the server's is shown as a call of an MCP server named `SERVER_LABEL`: of all items it is the one that says
that the call was made for the client, and what came of it.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

from msgspec import UNSET, Struct, UnsetType

SERVER_LABEL: Final = "trio-agent"

ItemStatus: TypeAlias = Literal["in_progress", "completed", "incomplete", "failed"]

_RESPONSE_PREFIX: Final = "resp_"


class TextPart(Struct, frozen=True, tag_field="type", tag="output_text"):
    text: str
    annotations: list[Any] = []
    logprobs: list[Any] = []


class RefusalPart(Struct, frozen=True, tag_field="type", tag="refusal"):
    refusal: str


class SummaryPart(Struct, frozen=True, tag_field="type", tag="summary_text"):
    text: str


class MessageItem(Struct, frozen=True, tag_field="type", tag="message"):
    id: str
    status: ItemStatus
    content: list[TextPart | RefusalPart]
    role: str = "assistant"


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
