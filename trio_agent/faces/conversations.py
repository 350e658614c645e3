"""`/v1/conversations`: histories that the server holds, for requests that name one."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from trio_agent.agent import Agent
from trio_agent.errors import AgentError
from trio_agent.faces.paging import Page, list_of, listed
from trio_agent.faces.request import Incoming
from trio_agent.faces.responses_history import unknown_conversation
from trio_agent.faces.responses_kept import ConversationPart, input_rows
from trio_agent.faces.responses_options import check_metadata
from trio_agent.store.kept import ConversationEntry, ConversationRow
from trio_agent.wire.body import decode, without_mark
from trio_agent.wire.responses_input import conversation, later_tools
from trio_agent.wire.responses_request import items_of, reference_of
from trio_agent.wire.responses_tools import once, tools_of

PREFIX: Final = "conv_"
MOST_ADDED: Final = 20
"""Items that one request may add, which is OpenAI's limit."""
_encode = msgspec.json.Encoder().encode


class _Create(Struct):
    items: list[Raw] | None = None
    metadata: dict[str, str] | None = None


class _Update(Struct):
    metadata: dict[str, str] | None


class _Add(Struct):
    items: list[Raw]


_CREATE: Final = msgspec.json.Decoder(_Create)
_UPDATE: Final = msgspec.json.Decoder(_Update)
_ADD: Final = msgspec.json.Decoder(_Add)


async def create(agent: Agent, incoming: Incoming) -> bytes:
    """`POST /v1/conversations`.

    Raises:
        AgentError: what is wrong with the request.
        StoreError: the store is out of reach.
    """
    body = _Create()
    with incoming.body.opened() as raw:
        if raw.strip():
            body = decode(without_mark(raw), _CREATE, max_depth=agent.config.server.max_depth)
    check_metadata(body.metadata or {})
    world = incoming.context.world
    row = ConversationRow(
        id=world.new_id(PREFIX),
        owner=incoming.owner,
        created_at=world.now(),
        metadata=_encode(body.metadata or {}),
    )
    entry = _entry(agent, incoming, row.id, body.items) if body.items else None
    await agent.store.put_conversation(row)
    if entry is not None and not await agent.store.add_to_conversation(entry):
        raise AgentError(
            "store_unavailable",
            "The conversation was forgotten before its items were there, for others were made meanwhile "
            "(store.max_conversations). Try again.",
            retry_after=1.0,
        )
    return _shown(row)


async def show(agent: Agent, owner: str, name: str) -> bytes:
    """`GET /v1/conversations/{id}`. Raises as `create` does."""
    return _shown(await _found(agent, owner, name))


async def update(agent: Agent, incoming: Incoming, name: str) -> bytes:
    """`POST /v1/conversations/{id}`: other metadata. Raises as `create` does."""
    with incoming.body.opened() as raw:
        body = decode(without_mark(raw), _UPDATE, max_depth=agent.config.server.max_depth)
    check_metadata(body.metadata or {})
    row = await _found(agent, incoming.owner, name)
    row = msgspec.structs.replace(row, metadata=_encode(body.metadata or {}))
    await agent.store.put_conversation(row)
    return _shown(row)


async def delete(agent: Agent, owner: str, name: str) -> bytes:
    """`DELETE /v1/conversations/{id}`; responses that were written to it stay. Raises as `create` does."""
    if not await agent.store.delete_conversation(owner, name):
        raise unknown_conversation(name, None)
    return _encode({"id": name, "object": "conversation.deleted", "deleted": True})


async def add_items(agent: Agent, incoming: Incoming, name: str) -> bytes:
    """`POST /v1/conversations/{id}/items`.

    Raises:
        AgentError: what is wrong with the request; `session_busy` while a response is written there.
        StoreError: the store is out of reach.
    """
    with incoming.body.opened() as raw:
        body = decode(without_mark(raw), _ADD, max_depth=agent.config.server.max_depth)
    await _found(agent, incoming.owner, name)
    entry = _entry(agent, incoming, name, body.items)
    if not await agent.store.add_to_conversation(entry):
        await _found(agent, incoming.owner, name)
        raise AgentError(
            "session_busy",
            f"A response is being written to the conversation {name[:80]!r}. Add to it afterwards.",
            retry_after=1.0,
        )
    return list_of(entry.items)


async def list_items(agent: Agent, owner: str, name: str, page: Page) -> bytes:
    """`GET /v1/conversations/{id}/items`. Raises as `create` does."""
    await _found(agent, owner, name)
    most = agent.config.server.max_request_bytes
    rows = await agent.store.list_items(
        owner,
        conversation_id=name,
        after=page.after,
        limit=page.limit + 1,
        order=page.order,
        most_bytes=most,
    )
    return listed(rows, page.limit, most)


async def one_item(agent: Agent, owner: str, name: str, item_id: str) -> bytes:
    """`GET /v1/conversations/{id}/items/{item}`. Raises as `create` does."""
    await _found(agent, owner, name)
    for row in await agent.store.find_items(owner, [item_id], conversation_id=name):
        return row.item
    raise AgentError("not_found", f"The item {item_id[:80]!r} is not in the conversation {name[:80]!r}.")


async def _found(agent: Agent, owner: str, name: str) -> ConversationRow:
    row = await agent.store.get_conversation(owner, name)
    if row is None:
        raise unknown_conversation(name, None)
    return row


def _entry(agent: Agent, incoming: Incoming, name: str, raw: list[Raw]) -> ConversationEntry:
    if len(raw) > MOST_ADDED:
        raise AgentError(
            "invalid_request",
            f"One request adds at most {MOST_ADDED} items; add the rest after it.",
            param="items",
        )
    server = agent.config.server
    items = items_of(raw, place="items")
    for index, item in enumerate(items):
        if reference_of(item, f"items[{index}]") is not None:
            raise AgentError(
                "invalid_request",
                f"items[{index}]: a reference cannot be added; send the item itself.",
                param=f"items[{index}]",
            )
    tools = later_tools(items, place="items")
    said = conversation(items, tools_of((), tools), max_depth=server.max_depth, place="items")
    part = ConversationPart(
        messages=tuple(each.message for each in said.said), tools=once(tool for tool, _ in tools)
    )
    rows = input_rows(items, owner=incoming.owner, made_from=incoming.context.world.new_id("item_"))
    return ConversationEntry(conversation_id=name, owner=incoming.owner, messages=_encode(part), items=rows)


def _shown(row: ConversationRow) -> bytes:
    shown: dict[str, Any] = {
        "id": row.id,
        "object": "conversation",
        "created_at": int(row.created_at),
        "metadata": Raw(row.metadata),
    }
    return _encode(shown)
