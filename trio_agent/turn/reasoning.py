"""Giving a model its own reasoning back, where the client's wire could not carry it.

Chat clients return an assistant message with its tool calls and without the signed thinking that led to
them. What the model wrote is kept in the store by tool call id; here it is put back, byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trio_agent.statemachine.conversation import (
    REASONING_PARTS,
    Message,
    Part,
    Thinking,
    ToolCall,
)
from trio_agent.store.contract import Store

_decode = msgspec.json.Decoder(Message).decode


async def reattached(messages: Sequence[Message], *, owner: str, store: Store) -> tuple[Message, ...]:
    """The conversation with kept reasoning put back into the assistant messages that lost it.

    Raises:
        StoreError: the store cannot be read.
    """
    wanting = [message for message in messages if _lost_reasoning(message)]
    if not wanting:
        return tuple(messages)
    ids = [call.id for message in wanting for call in message.tool_calls]
    rows = await store.find_reasoning(owner, ids)
    if not rows:
        return tuple(messages)
    kept = {row.tool_call_id: row.message for row in rows}
    return tuple(_restored(message, kept) if _lost_reasoning(message) else message for message in messages)


def _lost_reasoning(message: Message) -> bool:
    return (
        message.role == "assistant"
        and message.origin is None
        and any(isinstance(part, ToolCall) for part in message.parts)
        and not any(
            isinstance(part, REASONING_PARTS) and not (isinstance(part, Thinking) and part.signature is None)
            for part in message.parts
        )
    )


def _restored(message: Message, kept: dict[str, bytes]) -> Message:
    blobs = {kept[call.id] for call in message.tool_calls if call.id in kept}
    if len(blobs) != 1:
        # Nothing is kept, or the client mixed the calls of several answers: no signature fits that.
        return message
    written = _decode(blobs.pop())
    calls = {call.id: call for call in written.tool_calls}
    if any(call.id not in calls for call in message.tool_calls):
        return message
    parts: list[Part] = []
    if written.text == message.text:
        mine = {call.id for call in message.tool_calls}
        parts = [part for part in written.parts if not isinstance(part, ToolCall) or part.id in mine]
    else:
        # The client edited the text; its words stand, behind the reasoning as it was.
        parts = [part for part in written.parts if isinstance(part, REASONING_PARTS)]
        for part in message.parts:
            if isinstance(part, ToolCall):
                parts.append(calls[part.id])
            elif not isinstance(part, REASONING_PARTS):
                parts.append(part)
    return Message("assistant", tuple(parts), message.name, written.origin)
