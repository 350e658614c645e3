"""Giving a model its own reasoning back, where the client's wire could not carry it.

Chat clients return an assistant message with its tool calls and without the signed thinking that led to
them. What the model wrote is kept in the store by tool call id; here it is put back, byte for byte. Some
models number their calls afresh in every conversation, so an id alone proves nothing: what is kept counts
only where the calls are the same, and where it answered the same words of the user's. An id that is
random names one call in the world, so there the user's words may have been edited, as agents do with
reminders. The calls themselves are always the client's.

Where several providers may answer, reasoning that a client brought is looked up in the same way, for it bears
no name of who made it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from trio_agent.statemachine.conversation import (
    REASONING_PARTS,
    Message,
    Part,
    ProviderReasoning,
    ToolCall,
)
from trio_agent.store.contract import ReasoningRow, TurnStore
from trio_agent.turn.history import digest, same_calls
from trio_agent.turn.signed_reasoning import is_bound

_LONG_RUN = re.compile(r"[A-Za-z0-9]{12,}")
_decode = msgspec.json.Decoder(Message).decode


def answered(messages: Iterable[Message], before: Message | None = None) -> list[tuple[Message, str]]:
    """Each assistant message, with a digest of the user's words that it is an answer to.

    Args:
        before: the last message of the user's in what came before `messages`.
    """
    found: list[tuple[Message, str]] = []
    user = before
    for message in messages:
        if message.role == "user":
            user = message
        elif message.role == "assistant":
            found.append((message, digest([user]) if user is not None else ""))
    return found


async def reattached(
    messages: Sequence[Message], *, owner: str, store: TurnStore, traced: bool = False
) -> tuple[Message, ...]:
    """The conversation with kept reasoning put back into the assistant messages that lost it.

    Args:
        traced: whether to look up, too, who made the reasoning that the client brought.

    Raises:
        StoreError: the store cannot be read.
    """
    wanting = [(message, asked) for message, asked in answered(messages) if _wants(message, traced)]
    if not wanting:
        return tuple(messages)
    rows = await store.find_reasoning(
        owner, [call.id for message, _ in wanting for call in message.tool_calls]
    )
    if not rows:
        return tuple(messages)
    restored = {id(message): _restored(message, asked, rows) for message, asked in wanting}
    return tuple(restored.get(id(message), message) for message in messages)


def _wants(message: Message, traced: bool) -> bool:
    if message.role != "assistant" or not message.tool_calls:
        return False
    if message.origin is None:
        return traced or not any(map(is_bound, message.parts))
    # A client can bring reasoning back, in a text of ours, but has no place for what belongs to a call.
    return any(isinstance(part, ProviderReasoning) for part in message.parts) and any(
        call.provider_data is None for call in message.tool_calls
    )


def _restored(message: Message, asked: str, rows: Sequence[ReasoningRow]) -> Message:
    mine = {call.id: call for call in message.tool_calls}
    blobs = {
        row.message
        for row in rows
        if row.tool_call_id in mine and (row.asked == asked or is_random(row.tool_call_id))
    }
    if len(blobs) != 1:
        # Nothing is kept, or the client mixed the calls of several answers: no signature fits that.
        return message
    written = _decode(blobs.pop())
    kept = {call.id: call for call in written.tool_calls if call.id in mine}
    if not same_calls(tuple(kept.values()), message.tool_calls):
        return message
    brought = [part for part in message.parts if is_bound(part)] if message.origin is None else []
    if brought:
        whole = all(part in written.parts for part in brought)
        return msgspec.structs.replace(message, origin=written.origin) if whole else message
    parts: list[Part] = []
    if written.text == message.text:
        parts = [part for part in written.parts if not isinstance(part, ToolCall) or part.id in mine]
    else:
        # The client edited the text; its words stand, behind the reasoning as it was.
        parts = [part for part in written.parts if isinstance(part, REASONING_PARTS)]
        parts += [part for part in message.parts if not isinstance(part, REASONING_PARTS)]
    return Message(
        "assistant",
        tuple(_theirs(part, mine, kept) if isinstance(part, ToolCall) else part for part in parts),
        message.name,
        written.origin,
    )


def is_random(call_id: str) -> bool:
    """Whether an id holds enough letters and digits in a row to be no counter and no name."""
    return any(any(char.isdigit() for char in run) for run in _LONG_RUN.findall(call_id))


def _theirs(part: ToolCall, mine: dict[str, ToolCall], kept: dict[str, ToolCall]) -> ToolCall:
    """The client's call, with what only the provider knows of it."""
    return msgspec.structs.replace(mine[part.id], provider_data=kept[part.id].provider_data)
