"""What a Responses request goes on from: answers and conversations that the server keeps, and their items.

A chain of answers can be gone on from anywhere and by several requests at once. A conversation has one writer
at a time: who comes second waits for a while.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio
from msgspec import Struct

from trio_agent.agent import Agent
from trio_agent.errors import AgentError
from trio_agent.event_log import POLL_SECONDS
from trio_agent.faces.responses_kept import (
    decode_conversation_part,
    decode_item,
    decode_messages,
    decode_response,
    made_for,
)
from trio_agent.faces.responses_request import FACE, History, Parsed, resolved, unknown_response
from trio_agent.statemachine.conversation import Message
from trio_agent.store.contract import StoreError
from trio_agent.store.kept import AnswerRow, HistoryTooLarge, MissingAnswer, check_size
from trio_agent.turn.too_large import history_too_large
from trio_agent.wire.responses_item_types import Item
from trio_agent.wire.responses_tools import Definition, once

logger = logging.getLogger("trio_agent.log")

RELEASE_SECONDS: Final = 5.0
"""What giving a conversation back may take when its request is left."""
_BUSY_RETRY_SECONDS: Final = 1.0
_WHOLE: Final = frozenset({"completed", "incomplete"})


class Before(Struct, frozen=True):
    """The items of a request's input, references looked up, and what was said before it."""

    items: tuple[Item, ...]
    history: History | None = None


async def look_up(agent: Agent, request: Parsed, owner: str) -> Before:
    """Find what a request names. A conversation is the request's already.

    Raises:
        AgentError: something is not there, or cannot be gone on from.
        StoreError: the store is out of reach.
    """
    history = None
    there: frozenset[str] = frozenset()
    size = 0
    if request.previous_response_id is not None:
        answers = await _chain(agent, owner, request.previous_response_id)
        history = _said_in(answers)
        size = sum(len(answer.messages) for answer in answers)
        own = {answer.id for answer in answers}
        there = frozenset(name for name in request.references.values() if made_for(name) in own)
    elif request.conversation is not None:
        entries = await _entries(agent, owner, request.conversation)
        history = _said_in_conversation(entries)
        size = sum(map(len, entries))
        there = frozenset(await _named(agent, owner, request, among=request.conversation))
    if not request.references:
        return Before(request.items, history)
    for index, name in request.references.items():
        if name in there:
            raise AgentError(
                "invalid_request",
                f"Duplicate item found with id {name[:80]}: it is part of what the request goes on from. "
                "Leave the reference out.",
                param=f"input[{index}].id",
            )
    rows = await _named(agent, owner, request, beside=size)
    found = {name: decode_item.decode(item) for name, item in rows.items()}
    return Before(resolved(request, found), history)


async def _named(
    agent: Agent, owner: str, request: Parsed, *, among: str | None = None, beside: int = 0
) -> dict[str, bytes]:
    """The kept items that the input refers to, by id.

    Args:
        among: the only conversation to look into.
        beside: bytes of what else the request goes on from.
    """
    names = list(request.references.values())
    if not names:
        return {}
    most = agent.config.server.max_history_bytes
    try:
        rows = await agent.store.find_items(owner, names, conversation_id=among, most_bytes=most)
        found = {row.id: row.item for row in rows}
        # One that is named again and again is sent again and again.
        check_size([beside, *(len(found.get(name, b"")) for name in names)], most)
    except HistoryTooLarge as large:
        raise history_too_large(
            large,
            "What the request goes on from, with the items that its references stand for,",
            "Refer to fewer items at once",
            param="input",
        ) from None
    return found


async def _chain(agent: Agent, owner: str, last: str) -> list[AnswerRow]:
    try:
        chain = await agent.store.get_chain(owner, last, most_bytes=agent.config.server.max_history_bytes)
    except MissingAnswer as missing:
        raise unknown_response(missing.id) from None
    except HistoryTooLarge as found:
        raise history_too_large(
            found,
            f"What was said up to the response {last[:80]!r}",
            "Begin anew, go on from an earlier response or a summary of it (POST /v1/responses/compact)",
            param="previous_response_id",
        ) from None
    for answer in chain:
        if answer.face != FACE:
            raise unknown_response(answer.id)
        if answer.status not in _WHOLE:
            raise AgentError(
                "invalid_request",
                f"The response {answer.id!r} is {answer.status}: only one that is completed or incomplete "
                "can be gone on from.",
                param="previous_response_id",
            )
    return chain


def _said_in(chain: list[AnswerRow]) -> History:
    messages: list[Message] = []
    for answer in chain:
        messages += decode_messages(answer.messages)
    return History(tuple(messages), decode_response(chain[-1].body).later_tools)


async def _entries(agent: Agent, owner: str, name: str) -> list[bytes]:
    most = agent.config.server.max_history_bytes
    try:
        return await agent.store.conversation_messages(owner, name, most_bytes=most)
    except HistoryTooLarge as found:
        raise history_too_large(
            found,
            f"What was said in the conversation {name[:80]!r}",
            "Begin another conversation, with a summary (POST /v1/responses/compact) of what is to be known",
            param="conversation",
        ) from None


def _said_in_conversation(entries: list[bytes]) -> History:
    messages: list[Message] = []
    tools: list[Definition] = []
    for entry in entries:
        part = decode_conversation_part(entry)
        messages += part.messages
        tools += part.tools
    return History(tuple(messages), once(tools), place="conversation")


# --- one writer -------------------------------------------------------------------------------------------


@asynccontextmanager
async def writing_to(agent: Agent, conversation: str | None, owner: str, writer: str) -> AsyncIterator[None]:
    """Become the conversation's writer. It is given back if the block fails, else by the answer's end.

    Args:
        conversation: its id; without one nothing happens.
        writer: the id of the answer.

    Raises:
        AgentError: `not_found`, or `session_busy` after `server.session_wait` seconds.
        StoreError: the store is out of reach.
    """
    if conversation is None:
        yield
        return
    try:
        await _claim(agent, conversation, owner, writer)
        yield
    except BaseException:
        await _give_back(agent, conversation, writer)  # noqa: ASYNC102, ASYNC120 - it shields itself
        raise


async def _give_back(agent: Agent, conversation: str, writer: str) -> None:
    with trio.move_on_after(RELEASE_SECONDS, shield=True):
        try:
            await agent.store.release_conversation(conversation, writer)
        except StoreError as error:
            logger.warning("the conversation %s could not be given back: %s", conversation, error)
        else:
            return
    # Whoever comes next gives it back.
    agent.logs.give_up(writer)


async def _claim(agent: Agent, conversation: str, owner: str, writer: str) -> None:
    wait = agent.config.server.session_wait
    deadline = trio.current_time() + wait
    while True:
        claim = await agent.store.claim_conversation(owner, conversation, writer)
        if claim is None:
            raise unknown_conversation(conversation)
        if claim.busy is None:
            return
        if await _is_lost(agent, owner, claim.busy):
            await agent.store.release_conversation(conversation, claim.busy)
            continue
        if trio.current_time() >= deadline:
            raise AgentError(
                "session_busy",
                f"Another response is being written to the conversation {conversation[:80]!r}, for longer "
                f"than {wait:g} seconds (server.session_wait). Wait for it, or begin another conversation.",
                param="conversation",
                retry_after=_BUSY_RETRY_SECONDS,
                extra={} if claim.busy_turn is None else {"turn_id": claim.busy_turn},
            )
        with trio.move_on_at(deadline):
            await _changed(agent, owner, claim.busy)


async def _is_lost(agent: Agent, owner: str, writer: str) -> bool:
    """Whether the answer of a writer will never end: its server could not write down that it did, or failed
    before there was an answer."""
    if agent.logs.live(owner, writer) is not None:
        return False
    if agent.logs.is_given_up(writer):
        return True
    log = await agent.store.find_log(owner, writer)
    return log is not None and agent.logs.is_broken(log)


async def _changed(agent: Agent, owner: str, writer: str) -> None:
    """Wait until a writer may have ended."""
    live = agent.logs.live(owner, writer)
    if live is None:
        await trio.sleep(POLL_SECONDS)
    else:
        await live.settled.wait()


def unknown_conversation(name: str, param: str | None = "conversation") -> AgentError:
    """The error for a conversation that is not there."""
    return AgentError("not_found", f"The conversation {name[:80]!r} is not there.", param=param)


__all__ = ["Before", "look_up", "unknown_conversation", "writing_to"]
