"""`POST /v1/responses`: the request decoded into a turn request, the turn's outputs encoded back.

There are three ways to a response. One that is not stored is a turn like any other. One that is stored is
the same, with a log beside it. One in the background, and one whose request has an `Idempotency-Key`, runs on
its own, and whoever asks for it reads its log.
"""

from __future__ import annotations

from functools import partial

import msgspec
from msgspec import Struct

from trio_agent.admission import Admitted
from trio_agent.agent import Agent
from trio_agent.errors import AgentError, error_of, store_unavailable
from trio_agent.event_log import LiveLog, LogReader
from trio_agent.faces import idempotency
from trio_agent.faces.answer import Send, send_json, turn_headers
from trio_agent.faces.request import Incoming
from trio_agent.faces.responses_head import PREFIX, head_of
from trio_agent.faces.responses_history import look_up, writing_to
from trio_agent.faces.responses_keeper import ResponseKeeper
from trio_agent.faces.responses_options import FIELDS
from trio_agent.faces.responses_output import Output
from trio_agent.faces.responses_request import FACE, Decoded, History, Parsed, decoded, parsed
from trio_agent.faces.responses_sinks import ResumedStream, Style, decode_style, make_sink
from trio_agent.statemachine import effects as fx
from trio_agent.store.contract import StoreError
from trio_agent.turn.context import TurnContext
from trio_agent.turn.history import instructions
from trio_agent.turn.places import in_the_clients_words
from trio_agent.wire.responses_events import encode

_FAILED = (fx.Reject, fx.SendError)


class Begun(Struct, frozen=True):
    """A request that was let in."""

    admitted: Admitted
    decoded: Decoded
    style: Style


async def respond(agent: Agent, incoming: Incoming, send: Send) -> None:
    """Answer one request, from its first byte to its last, in the caller's task.

    Raises:
        AgentError: nothing has been sent; it is the answer.
    """
    server = agent.config.server
    key = idempotency.key_of(incoming, max_depth=server.max_depth)
    request = parsed(incoming, server)
    if key is not None:
        await _respond_once(agent, incoming, request, key, send)
        return
    own = _is_our_own(request)
    if own:
        incoming = msgspec.structs.replace(incoming, context=agent.context(incoming.context.traceparent))
    context = incoming.context
    response_id = context.world.new_id(PREFIX) if request.conversation is not None else None
    begun = await begin(agent, incoming, request, response_id, own=own)
    style = begun.style
    if not begun.decoded.asked.store:
        sink = make_sink(style, send, context.ended_at)
        await agent.run(begun.admitted, context.sink(sink) if own else sink)
        return
    log = agent.logs.open(style.head.response_id, owner=incoming.owner, face=FACE)
    log.begin(msgspec.json.encode(style), context.started_at)
    keeper = ResponseKeeper(style.head, begun.decoded, log)
    if begun.decoded.asked.background:
        agent.start(begun.admitted, log, keeper, context=context)
        with LogReader(agent.logs, log, 0) as reader:
            await _tell_of_background(style, log, reader, send)
        return
    sink = make_sink(style, send, partial(ended, log, context))
    await agent.run(begun.admitted, context.sink(sink) if own else sink, keeper, log=log, context=context)


async def _respond_once(
    agent: Agent, incoming: Incoming, request: Parsed, key: idempotency.Key, send: Send
) -> None:
    owner, response_id = incoming.owner, incoming.context.world.new_id(PREFIX)

    async def begin_with(context: TurnContext) -> idempotency.Begun:
        mine = msgspec.structs.replace(incoming, context=context)
        begun = await begin(agent, mine, request, response_id, own=True)
        log = agent.logs.live(owner, response_id)
        if log is None:
            raise AssertionError("the log of a request with a key is there before its turn")
        keeper = ResponseKeeper(begun.style.head, begun.decoded, log) if begun.decoded.asked.store else None
        return idempotency.Begun(begun.admitted, msgspec.json.encode(begun.style), keeper)

    async def write(reader: LogReader, send: Send) -> None:
        style = decode_style(reader.head)
        if style.head.echo.background:
            log = agent.logs.live(owner, style.head.response_id)
            await _tell_of_background(style, log, reader, send)
        else:
            await reader.copy_to(make_sink(style, send, lambda: reader.ended_at))

    once = idempotency.Once(
        agent=agent,
        incoming=incoming,
        key=key,
        face=FACE,
        answer_id=response_id,
        begin=begin_with,
        write=write,
        outlives=request.body.background is True,
    )
    await once.respond(send)


async def _tell_of_background(style: Style, log: LiveLog | None, reader: LogReader, send: Send) -> None:
    """Answer a request whose response is made in the background: as soon as it is sure to be kept.

    Args:
        log: while the response is being made here.

    Raises:
        AgentError: it could not be kept.
    """
    if log is not None and not await log.stored():
        raise next(error_of(last.problem) for *_, last in reversed(log.batches) if isinstance(last, _FAILED))
    if style.stream:
        await ResumedStream(send, style).copy(reader)
        return
    output = Output(style.head, streamed=False)
    output.open()
    await send_json(send, 200, encode(output.body()), style.headers)


def ended(log: LiveLog, context: TurnContext) -> float:
    """When a stored response ended, in seconds since the epoch: the same whoever is told, and whenever."""
    return context.ended_at() if log.ended_at is None else log.ended_at


def _is_our_own(request: Parsed) -> bool:
    """Whether the turn is asked for by the server itself, as far as a recording is concerned.

    What came over HTTP names something that only the server has, so it could not be replayed: a session's is
    the call to which an output of the input belongs. Or its client may go while it runs.
    """
    named = request.previous_response_id, request.conversation, request.references or None
    return named != (None, None, None) or request.continues or request.body.background is True


async def begin(
    agent: Agent,
    incoming: Incoming,
    request: Parsed,
    response_id: str | None,
    *,
    own: bool,
    before: History | None = None,
    over_socket: bool = False,
) -> Begun:
    """Let a request in.

    Args:
        response_id: where it must be known before; a request that names a conversation needs it.
        own: whether the server itself asks for the turn.
        before: what the request goes on from, where its connection keeps that instead of the store.
        over_socket: whether it came over a WebSocket: it is streamed then, whatever it says.

    Raises:
        AgentError: why not. A conversation is free again then.
    """
    try:
        async with writing_to(agent, request.conversation, incoming.owner, response_id or ""):
            return await _begin(
                agent, incoming, request, response_id, before, own=own, over_socket=over_socket
            )
    except StoreError as error:
        raise store_unavailable(error) from None


async def _begin(
    agent: Agent,
    incoming: Incoming,
    request: Parsed,
    response_id: str | None,
    before: History | None,
    *,
    own: bool,
    over_socket: bool,
) -> Begun:
    server, context = agent.config.server, incoming.context
    asked = await taken_in(agent, incoming, request, before)
    # Who comes later may want to see how far it is, whatever its first client asked for.
    stream = asked.request.stream or asked.asked.background or over_socket
    turn = msgspec.structs.replace(asked.request, stream=stream)
    if own:
        context.embedded_request(turn, parks=True)
    try:
        admitted = await agent.admit(turn, context=context, slot=incoming.slot)
    except AgentError as error:
        raise in_the_clients_words(error, asked.places, whole="input", names=FIELDS) from None
    # What the session had said is part of what a later request goes on from; its instructions never are.
    said = admitted.before[instructions(admitted.before) :]
    asked = msgspec.structs.replace(asked, own_messages=(*said, *asked.own_messages))
    ignored = [*asked.ignored, *admitted.ignored, *admitted.hidden]
    headers = turn_headers(admitted.turn_id, ignored, truncated=admitted.truncated)
    head = head_of(asked.asked, admitted.model, incoming, server, response_id=response_id)
    return Begun(admitted, asked, Style(head, headers, asked.request.stream or over_socket))


async def taken_in(agent: Agent, incoming: Incoming, request: Parsed, before: History | None) -> Decoded:
    """The request with all that it names.

    Args:
        before: what it goes on from, where the store is not to be asked for that.

    Raises:
        AgentError: what is wrong with it; or it names something that is not kept.
        StoreError: the store is out of reach.
    """
    if before is None:
        found = await look_up(agent, request, incoming.owner)
        history = found.history
    else:
        alone = msgspec.structs.replace(request.body, previous_response_id=None)
        found = await look_up(agent, msgspec.structs.replace(request, body=alone), incoming.owner)
        history = before
    return decoded(request, incoming, agent.config.server, items=found.items, history=history)
