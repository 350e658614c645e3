"""Types of input items of Responses requests: those that say nothing here, and those that cannot be taken.

What the others become is said in `responses_input`.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from trio_agent.errors import AgentError
from trio_agent.wire.chat_request import shown_type

Item: TypeAlias = dict[str, Any]

HOSTED_ITEMS: Final = frozenset(
    {
        "web_search_call",
        "file_search_call",
        "computer_call",
        "computer_call_output",
        "image_generation_call",
        "code_interpreter_call",
        "local_shell_call",
        "local_shell_call_output",
        "shell_call",
        "shell_call_output",
        "apply_patch_call",
        "apply_patch_call_output",
        "mcp_list_tools",
        "mcp_approval_request",
        "mcp_approval_response",
        "tool_search_call",
        "tool_search_output",
        "program",
        "program_output",
    }
)
"""Items of tools that a vendor runs. No model here was offered one, so nobody waits for them."""

_REFUSED: Final = {
    "compaction_trigger": "ask for a compaction with POST /v1/responses/compact",
    "configuration_update": "send the settings with the request, as `reasoning` and `text`",
}


def type_of(item: Item, place: str) -> str:
    """The type of an item; a message and a reference need not say theirs.

    Raises:
        AgentError: it says none, and is neither.
    """
    kind = item.get("type")
    if isinstance(kind, str):
        return kind
    if kind is None and "role" in item:
        return "message"
    if kind is None and "id" in item:
        return "item_reference"
    raise AgentError("invalid_request", f"{place}: an item needs `type`, a string.", param=f"{place}.type")


def unknown_type(kind: str, place: str) -> AgentError:
    """The error for an item of a type that is not taken."""
    advice = _REFUSED.get(kind)
    if advice is not None:
        return AgentError(
            "unsupported_parameter",
            f"{place}: items of type `{kind}` are not supported; {advice}.",
            param=place,
        )
    return AgentError(
        "invalid_request",
        f"{place}: {shown_type(kind)!r} is no type of input item that is known here.",
        param=f"{place}.type",
    )
