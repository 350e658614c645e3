"""`POST /v1/messages`: the request decoded into a turn request, the turn's outputs encoded back."""

from __future__ import annotations

from msgspec.json import encode

from trio_agent.admission import Admitted
from trio_agent.agent import Agent
from trio_agent.errors import AgentError
from trio_agent.faces.answer import Send, turn_headers
from trio_agent.faces.idempotency import Begun, Key, Once, key_of, through
from trio_agent.faces.messages_request import FACE, Decoded, in_own_words
from trio_agent.faces.messages_sinks import Style, make_sink, sink_of
from trio_agent.faces.messages_threads import ThreadKeeper, taken_in
from trio_agent.faces.request import Incoming
from trio_agent.turn.context import TurnContext

PREFIX = "msg_"


async def respond(agent: Agent, incoming: Incoming, send: Send) -> None:
    """Answer one request, from its first byte to its last, in the caller's task.

    Raises:
        AgentError: nothing has been sent; it is the answer.
    """
    key = key_of(incoming, max_depth=agent.config.server.max_depth)
    asked = await taken_in(agent, incoming)
    if key is not None:
        await _respond_once(agent, incoming, asked, key, send)
        return
    # What names something that only the server has could not be replayed as it came over HTTP.
    own = asked.previous_message_id is not None
    context = agent.context(incoming.context.traceparent) if own else incoming.context
    if own:
        context.embedded_request(asked.request, parks=True)
    admitted = await _admitted(agent, asked, incoming, context)
    style = _style(agent, asked, admitted, incoming, context.world.new_id(PREFIX))
    sink = make_sink(style, send)
    keeper = _keeper(asked, style.response_id, context)
    await agent.run(admitted, context.sink(sink) if own else sink, keeper)


async def _respond_once(agent: Agent, incoming: Incoming, asked: Decoded, key: Key, send: Send) -> None:
    response_id = incoming.context.world.new_id(PREFIX)

    async def begin(context: TurnContext) -> Begun:
        context.embedded_request(asked.request, parks=True)
        admitted = await _admitted(agent, asked, incoming, context)
        head = encode(_style(agent, asked, admitted, incoming, response_id))
        return Begun(admitted, head, _keeper(asked, response_id, context))

    once = Once(
        agent=agent,
        incoming=incoming,
        key=key,
        face=FACE,
        answer_id=response_id,
        begin=begin,
        write=through(sink_of),
    )
    await once.respond(send)


async def _admitted(agent: Agent, asked: Decoded, incoming: Incoming, context: TurnContext) -> Admitted:
    try:
        return await agent.admit(asked.request, context=context, slot=incoming.slot)
    except AgentError as error:
        raise in_own_words(error, asked) from None


def _style(agent: Agent, asked: Decoded, admitted: Admitted, incoming: Incoming, response_id: str) -> Style:
    return Style(
        response_id=response_id,
        model=admitted.model,
        headers=turn_headers(admitted.turn_id, [*asked.ignored, *admitted.ignored, *admitted.hidden]),
        stream=asked.request.stream,
        progress=incoming.headers.get("x-tool-progress", "").lower() == "true",
        errors=agent.config.server.in_stream_errors,
    )


def _keeper(asked: Decoded, response_id: str, context: TurnContext) -> ThreadKeeper | None:
    """What keeps the answer, where it is one of a thread."""
    return None if asked.definitions is None else ThreadKeeper(asked, response_id, context.started_at)
