"""What is kept of responses and conversations, as JSON in the store's rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from trio_agent.faces.responses_head import PREFIX
from trio_agent.faces.responses_output import Head
from trio_agent.statemachine.conversation import Message
from trio_agent.store.kept import ItemDirection, ItemRow
from trio_agent.wire.responses_item_types import Item
from trio_agent.wire.responses_tools import Definition

_ID_PREFIXES: Final = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "mcp_call": "mcp",
    "compaction": "cmp",
}
LONGEST_ID: Final = 256
"""Characters of an item's id that a client chose; an item with a longer one gets one of ours."""

_encode = msgspec.json.Encoder(decimal_format="string").encode
decode_item: Final[msgspec.json.Decoder[Item]] = msgspec.json.Decoder(dict[str, Any])
decode_messages = msgspec.json.Decoder(tuple[Message, ...]).decode


class KeptResponse(Struct, frozen=True, kw_only=True):
    """The `body` of an answer's row.

    `response` is the response object, byte for byte as its client was given it. Until it has ended, and where
    its end was never written, there is `head` instead, which says what is known of it. `later_tools` are
    offered to whoever goes on from it.
    """

    head: Head | None = None
    later_tools: tuple[Definition, ...] = ()
    response: Raw = Raw(b"null")

    @property
    def ended(self) -> bool:
        """Whether `response` is there."""
        return self.head is None


class ConversationPart(Struct, frozen=True, kw_only=True):
    """What one response or one request adds to a conversation: messages, and tools that came as items."""

    messages: tuple[Message, ...]
    tools: tuple[Definition, ...] = ()


decode_response = msgspec.json.Decoder(KeptResponse).decode
decode_conversation_part = msgspec.json.Decoder(ConversationPart).decode


def input_rows(
    items: Sequence[Item], *, owner: str, made_from: str, answer_id: str | None = None
) -> tuple[ItemRow, ...]:
    """Items that a client sent, each with an id that no other one of them has.

    Args:
        made_from: an id, from which those follow that are missing.
        answer_id: the answer that they are the input of, if any.
    """
    rows: dict[str, ItemRow] = {}
    _, _, digits = made_from.partition("_")
    for place, item in enumerate(items):
        name = str(item.get("id") or "")
        if not name or len(name) > LONGEST_ID or name in rows:
            prefix = _ID_PREFIXES.get(item["type"], "item")
            name = f"{prefix}_{digits}_i{place}"
        rows[name] = item_row(name, {**item, "id": name}, place, "input", owner=owner, answer_id=answer_id)
    return tuple(rows.values())


def made_for(item_id: str) -> str:
    """The id of the response that an item's id was made for, if it is one of ours."""
    _, _, rest = item_id.partition("_")
    return f"{PREFIX}{rest.partition('_')[0]}"


def item_row(
    name: str,
    item: Any,
    position: int,
    direction: ItemDirection,
    *,
    owner: str,
    answer_id: str | None,
) -> ItemRow:
    """One item as it is kept."""
    return ItemRow(
        id=name,
        owner=owner,
        position=position,
        direction=direction,
        item=_encode(item),
        answer_id=answer_id,
    )


__all__ = [
    "ConversationPart",
    "KeptResponse",
    "decode_conversation_part",
    "decode_item",
    "decode_messages",
    "decode_response",
    "input_rows",
    "item_row",
    "made_for",
]
