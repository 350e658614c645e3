"""Tool calls of the Responses wire, which has two kinds of them: functions, and custom tools that take text.

To the turn every call is one with JSON arguments. The text of a custom tool is the one member of them,
`input`, so its pieces are escaped as they come and stand between what opens and closes the object.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from trio_agent.statemachine.conversation import Tool, ToolCall
from trio_agent.wire.freeform import CLOSING, OPENING, escaped, unwrapped

FUNCTION: Final = "function_call"
CUSTOM: Final = "custom_tool_call"
CallKind: TypeAlias = Literal["function_call", "custom_tool_call"]

OWED: Final = frozenset(
    {
        "computer_call",
        "local_shell_call",
        "shell_call",
        "apply_patch_call",
        "mcp_approval_request",
    }
)
"""Items of other kinds that somebody outside of the vendor has to answer. No such tool is ever offered."""


class CallFacts(Struct, frozen=True, omit_defaults=True):
    """What a call item was beside the call: `ToolCall.provider_data` of this wire."""

    item_id: str
    kind: CallKind = FUNCTION


_decode_facts = msgspec.json.Decoder(CallFacts).decode


def facts_of(call: ToolCall) -> CallFacts | None:
    """What is known of the item that a call came as; nothing, where another wire or a client made it."""
    if call.provider_data is None:
        return None
    try:
        return _decode_facts(call.provider_data)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None


def custom_names(tools: Iterable[Tool]) -> frozenset[str]:
    """The tools that are offered as custom tools, where the model knows such."""
    return frozenset(tool.name for tool in tools if tool.freeform is not None)


def encode_tool(tool: Tool, custom: Collection[str]) -> dict[str, Any]:
    """A tool's definition. `custom` are those that the model gets as custom tools."""
    if tool.name in custom:
        wired: dict[str, Any] = {"type": "custom", "name": tool.name, "format": tool.freeform}
    else:
        wired = {
            "type": "function",
            "name": tool.name,
            "parameters": tool.parameters or {"type": "object", "properties": {}},
            "strict": bool(tool.strict),
        }
    if tool.description is not None:
        wired["description"] = tool.description
    return wired


def kind_of(call: ToolCall, custom: Collection[str]) -> CallKind:
    """As what a call goes back: as what it came, and otherwise as what its tool is now."""
    facts = facts_of(call)
    if facts is not None:
        return facts.kind
    return CUSTOM if call.name in custom else FUNCTION


def encode_call(call: ToolCall, kind: CallKind, call_id: str) -> dict[str, Any]:
    """A call's item. `call_id` is its id as the wire takes it."""
    item: dict[str, Any] = {"type": kind, "call_id": call_id, "name": call.name}
    if kind == CUSTOM:
        item["input"] = unwrapped(call.arguments)
    else:
        item["arguments"] = call.arguments if call.arguments.strip() else "{}"
    facts = facts_of(call)
    if facts is not None:
        item["id"] = facts.item_id
    return item


class OpenCall:
    """One call while it comes; what it gives are pieces of JSON arguments.

    Args:
        index: our own count of calls.
    """

    def __init__(self, index: int, kind: CallKind) -> None:
        self.index = index
        self._custom = kind == CUSTOM
        self._said = 0
        self._opened = False

    def more(self, piece: str) -> str:
        """A piece of what the model wrote."""
        if not piece:
            return ""
        self._said += len(piece)
        if not self._custom:
            return piece
        opening = "" if self._opened else OPENING
        self._opened = True
        return opening + escaped(piece)

    def rest(self, whole: str | None = None, *, cut: bool = False) -> str:
        """What ends the call.

        Args:
            whole: all that the model wrote, where the upstream says it once more.
            cut: whether the model was stopped within the call; its arguments then stay open.
        """
        missing = (whole or "")[self._said :]
        if cut:
            return self.more(missing)
        if self._custom:
            more = self.more(missing)
            return more + ("" if self._opened else OPENING) + CLOSING
        # A call without arguments is `{}` on every wire; an empty string is not JSON.
        return missing if self._said else missing.strip() or "{}"
