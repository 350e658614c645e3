"""Content blocks of Messages requests, towards our own parts.

The shapes are those of the `…BlockParam` types of Anthropic's SDK. A thinking block whose signature is
`UNSIGNED` is one of our own making: the mark is taken off, and the reasoning is unsigned again.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from trio_agent.errors import AgentError
from trio_agent.statemachine.conversation import (
    Image,
    Part,
    RedactedThinking,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from trio_agent.wire.body import decode_part
from trio_agent.wire.content import content_part
from trio_agent.wire.messages import RAW_ARGUMENTS

UNSIGNED: Final = "trio-agent-unsigned-reasoning"
"""The signature of thinking that has none: the format demands one, and clients give it back."""

Content = str | list[Raw] | None


class _Kind(Struct):
    type: str


class _Thinking(Struct):
    thinking: str = ""
    signature: str | None = None


class _Redacted(Struct):
    data: str


class _ToolUse(Struct):
    """`input` is kept as it was written."""

    id: str
    name: str
    input: Raw = Raw(b"{}")
    cache_control: dict[str, Any] | None = None


class _ToolResult(Struct):
    tool_use_id: str
    content: Content = None
    is_error: bool | None = None
    cache_control: dict[str, Any] | None = None


_kind = msgspec.json.Decoder(_Kind)
_thinking = msgspec.json.Decoder(_Thinking)
_redacted = msgspec.json.Decoder(_Redacted)
_tool_use = msgspec.json.Decoder(_ToolUse)
_tool_result = msgspec.json.Decoder(_ToolResult)
_members = msgspec.json.Decoder(dict[str, Any])
_odd_arguments = msgspec.json.Decoder(dict[str, str])

_WRITTEN_BY: Final = {
    "thinking": "assistant",
    "redacted_thinking": "assistant",
    "tool_use": "assistant",
    "tool_result": "user",
}


def parts_of(content: Content, role: str, place: str) -> list[Part]:
    """The content of one message.

    Args:
        place: where the content stands, such as `messages[3].content`.

    Raises:
        AgentError: `invalid_request`, `unsupported_content_type`, `invalid_content_part` or
            `invalid_image_url`, with the place of the block as `param`.
    """
    if content is None:
        return []
    if isinstance(content, str):
        return [Text(content)] if content else []
    return [_part(raw, role, f"{place}[{index}]") for index, raw in enumerate(content)]


def _part(raw: Raw, role: str, place: str) -> Part:
    kind = decode_part(raw, _kind, place).type
    writer = _WRITTEN_BY.get(kind)
    if writer is None:
        images, refusals = role in ("user", "result"), role == "assistant"
        members = decode_part(raw, _members, place)
        return content_part(members, place, images=images, refusals=refusals)
    if writer != role:
        raise _invalid(place, f"a `{kind}` block stands in messages of role `{writer}` only")
    match kind:
        case "thinking":
            thinking = decode_part(raw, _thinking, place)
            signed = thinking.signature not in (None, "", UNSIGNED)
            return Thinking(thinking.thinking, thinking.signature if signed else None)
        case "redacted_thinking":
            return RedactedThinking(decode_part(raw, _redacted, place).data)
        case "tool_use":
            return _tool_call(decode_part(raw, _tool_use, place), place)
        case _:
            return _result(decode_part(raw, _tool_result, place), place)


def _tool_call(block: _ToolUse, place: str) -> ToolCall:
    if not block.id or not block.name:
        raise _invalid(place, "a `tool_use` block needs an id and a name")
    written = bytes(block.input)
    if not written.startswith(b"{"):
        raise _invalid(place, "the `input` of a `tool_use` block must be an object")
    return ToolCall(block.id, block.name, _arguments(written), cache_control=block.cache_control)


def _arguments(written: bytes) -> str:
    """The arguments as the model wrote them, which may have been no JSON object."""
    if RAW_ARGUMENTS.encode() in written[:40]:
        try:
            members = _odd_arguments.decode(written)
        except msgspec.DecodeError:
            members = {}
        if list(members) == [RAW_ARGUMENTS]:
            return members[RAW_ARGUMENTS]
    return written.decode()


def _result(block: _ToolResult, place: str) -> ToolResult:
    if not block.tool_use_id:
        raise _invalid(place, "a `tool_result` block needs the id of the call that it answers")
    content: list[Text | Image] = []
    for part in parts_of(block.content, "result", f"{place}.content"):
        if not isinstance(part, Text | Image):
            raise _invalid(place, "a `tool_result` block holds text and images only")
        content.append(part)
    return ToolResult(block.tool_use_id, tuple(content), bool(block.is_error), block.cache_control)


def _invalid(place: str, why: str) -> AgentError:
    return AgentError("invalid_content_part", f"{place}: {why}.", param=place)
