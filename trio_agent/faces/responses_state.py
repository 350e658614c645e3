"""Responses that are kept: read again, streamed again, cancelled, forgotten.

A response that has ended is shown as its client was given it. One that is being made is shown from its log,
as far as it has come.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import trio
from msgspec import Struct

from trio_agent.agent import Agent
from trio_agent.errors import AgentError
from trio_agent.event_log import BROKEN, PAGE_ENTRIES, LiveLog, LogReader, batches_of
from trio_agent.faces.answer import Headers, Send, send_json, turn_headers
from trio_agent.faces.paging import Page, listed
from trio_agent.faces.responses_kept import KeptResponse, decode_response
from trio_agent.faces.responses_output import Output
from trio_agent.faces.responses_sinks import ResumedStream, decode_style
from trio_agent.statemachine import effects as fx
from trio_agent.store.kept import ENDED_STATUSES, AnswerRow
from trio_agent.wire.responses_events import encode

ENCRYPTED = "reasoning.encrypted_content"
_PAGE = 1000
POLL_SECONDS = 0.1
"""How often it is looked whether a response has ended that another worker makes."""
ENDING_SECONDS = 15.0
"""How long it may take to end: longer than a write to the store may take."""
RETRY_SECONDS = 5.0


class Reading(Struct, frozen=True, kw_only=True):
    """How a response is to be read: whole, or as a stream of the events after number `after`."""

    stream: bool = False
    after: int = -1
    include: tuple[str, ...] = ()


async def read(agent: Agent, owner: str, response_id: str, reading: Reading, send: Send) -> None:
    """`GET /v1/responses/{id}`.

    Raises:
        AgentError: nothing has been sent; it is the answer.
        StoreError: the store is out of reach. A stream that has begun has no end then.
    """
    answer = await _answer(agent, owner, response_id)
    if not reading.stream:
        shown = await _shown(agent, answer, full=ENCRYPTED in reading.include)
        await send_json(send, 200, shown, turn_headers(answer.turn_id, ()))
        return
    reader = await agent.logs.reader(owner, response_id)
    if reader is None:
        raise AgentError(
            "not_found",
            f"The events of the response {response_id!r} are not kept any more; read it without `stream`.",
        )
    style = decode_style(reader.head)
    with reader:
        if ENCRYPTED in reading.include and not style.head.encrypted:
            raise AgentError(
                "unsupported_parameter",
                "`include` cannot be honoured: a stream is the same again, and its request did not ask for "
                f"{ENCRYPTED}. Read the response without `stream`.",
                param="include",
            )
        await ResumedStream(send, style, after=reading.after).copy(reader)


async def cancel(agent: Agent, owner: str, response_id: str) -> tuple[bytes, Headers]:
    """`POST /v1/responses/{id}/cancel`: end a response in the background; one that has ended is shown.

    Returns:
        The response, and the headers that say which turn it is of.

    Raises:
        AgentError: it is not there, or cannot be cancelled.
        StoreError: the store is out of reach.
    """
    answer = await _answer(agent, owner, response_id)
    if not answer.background:
        raise AgentError(
            "invalid_request",
            "Cannot cancel a synchronous response: only one with `background: true` can be cancelled. "
            "A client that closes its connection ends any other one.",
        )
    if not _is_over(agent, answer):
        answer = await _ended(agent, answer, "cancelled")
    return await _shown(agent, answer), turn_headers(answer.turn_id, ())


async def delete(agent: Agent, owner: str, response_id: str) -> bytes:
    """`DELETE /v1/responses/{id}`. One that is being made in the background is cancelled before.

    Raises:
        AgentError: it is not there, or is being made for a client that waits for it.
        StoreError: the store is out of reach.
    """
    answer = await _answer(agent, owner, response_id)
    if not _is_over(agent, answer):
        if not answer.background:
            raise AgentError(
                "invalid_request",
                f"The response {response_id!r} is still being made. Delete it when it has ended.",
            )
        await _ended(agent, answer, "deleted")
    if not await agent.store.delete_answer(owner, response_id):
        raise unknown(response_id)
    return encode({"id": response_id, "object": "response", "deleted": True})


async def input_items(agent: Agent, owner: str, response_id: str, page: Page) -> bytes:
    """`GET /v1/responses/{id}/input_items`: what came in with the request itself.

    Raises:
        AgentError: the response is not there.
        StoreError: the store is out of reach.
    """
    await _answer(agent, owner, response_id)
    most = agent.config.server.max_request_bytes
    rows = await agent.store.list_items(
        owner,
        answer_id=response_id,
        direction="input",
        after=page.after,
        limit=page.limit + 1,
        order=page.order,
        most_bytes=most,
    )
    return listed(rows, page.limit, most)


def unknown(response_id: str) -> AgentError:
    """The error for a response that is not there."""
    return AgentError("not_found", f"The response {response_id[:80]!r} is not there.")


async def _answer(agent: Agent, owner: str, response_id: str) -> AnswerRow:
    answer = await agent.store.get_answer(owner, response_id)
    if answer is None or answer.face != "responses":
        raise unknown(response_id)
    return answer


def _is_over(agent: Agent, answer: AnswerRow) -> bool:
    """Whether nobody makes it any more: it has ended, or its end could not be written."""
    return answer.status in ENDED_STATUSES or agent.logs.is_given_up(answer.id)


async def _ended(agent: Agent, answer: AnswerRow, what: str) -> AnswerRow:
    """End a response that is being made; its row then."""
    found = await agent.cancel(answer.owner, answer.id)
    deadline = trio.current_time() + ENDING_SECONDS
    while not _is_over(agent, answer := await _answer(agent, answer.owner, answer.id)):
        if not found:
            raise AgentError(
                "invalid_request",
                f"The response {answer.id!r} is being made by another server on the same store, so it cannot "
                f"be {what} here.",
            )
        if trio.current_time() > deadline:
            raise AgentError(
                "server_busy",
                f"The response {answer.id!r} has been told to end, and has not ended yet.",
                retry_after=RETRY_SECONDS,
            )
        await trio.sleep(POLL_SECONDS)
    return answer


# --- one response as it is ----------------------------------------------------------------------------


async def _shown(agent: Agent, answer: AnswerRow, *, full: bool = False) -> bytes:
    """The response object.

    Args:
        full: with what the models of its reasoning want back, though its client did not ask for it.
    """
    kept = decode_response(answer.body)
    live = agent.logs.live(answer.owner, answer.id)
    if not kept.ended and (live is None or live.sealed):
        # It may have ended since.
        answer = await _answer(agent, answer.owner, answer.id)
        kept = decode_response(answer.body)
    if kept.ended:
        return bytes(kept.response) if not full else await _with_encrypted(agent, answer, kept.response)
    output = await _so_far(agent, answer, kept, live)
    body = output.body()
    body["output"] = output.items(full=full)
    return encode(body)


async def _with_encrypted(agent: Agent, answer: AnswerRow, response: msgspec.Raw) -> bytes:
    items: list[msgspec.Raw] = []
    after: str | None = None
    while True:
        rows = await agent.store.list_items(
            answer.owner, answer_id=answer.id, direction="output", after=after, limit=_PAGE
        )
        items += [msgspec.Raw(row.item) for row in rows]
        if len(rows) < _PAGE:
            break
        after = rows[-1].id
    body: dict[str, Any] = msgspec.json.decode(response, type=dict[str, msgspec.Raw])
    return encode({**body, "output": items})


async def _so_far(agent: Agent, answer: AnswerRow, kept: KeptResponse, live: LiveLog | None) -> Output:
    if kept.head is None:
        raise AssertionError("a response is kept whole, or with its head")
    output = Output(kept.head, streamed=False)
    output.open()
    for batch in await _batches(agent, answer, live):
        output.write(batch, at=0)
    if output.state.status in ("queued", "in_progress") and answer.status in ENDED_STATUSES:
        # Its server died.
        output.write([fx.SendError(BROKEN)])
    return output


async def _batches(agent: Agent, answer: AnswerRow, live: LiveLog | None) -> list[Sequence[fx.Output]]:
    """What there is of a response now."""
    if live is not None:
        return list(live.batches)
    row = await agent.store.find_log(answer.owner, answer.id)
    if row is not None and agent.logs.is_broken(row):
        batches: list[Sequence[fx.Output]] = []
        with LogReader(agent.logs, row, 0) as reader:
            while (news := await reader.next()) is not None:
                batches += news
        return batches
    found: list[Sequence[fx.Output]] = []
    while True:
        entries = await agent.store.read_log(answer.id, len(found), limit=PAGE_ENTRIES)
        news = batches_of(entries, len(found))
        if not news:
            return found
        found += news


__all__ = ["Reading", "cancel", "delete", "input_items", "read", "unknown"]
