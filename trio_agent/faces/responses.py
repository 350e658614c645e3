"""`POST /v1/responses`: the request decoded into a turn request, the turn's outputs encoded back."""

from __future__ import annotations

from trio_agent.agent import Agent
from trio_agent.errors import AgentError
from trio_agent.faces.answer import Send, turn_headers
from trio_agent.faces.places import in_the_clients_words
from trio_agent.faces.request import Incoming
from trio_agent.faces.responses_head import head_of
from trio_agent.faces.responses_request import decoded_request
from trio_agent.faces.responses_sinks import CollectSink, StreamSink


async def respond(agent: Agent, incoming: Incoming, send: Send) -> None:
    """Answer one request, from its first byte to its last, in the caller's task.

    Raises:
        AgentError: nothing has been sent; it is the answer.
    """
    server = agent.config.server
    decoded = decoded_request(incoming, server)
    context = incoming.context
    try:
        admitted = await agent.admit(decoded.request, context=context)
    except AgentError as error:
        raise in_the_clients_words(error, decoded.places, whole="input") from None
    headers = turn_headers(admitted.turn_id, [*decoded.ignored, *admitted.ignored, *admitted.hidden])
    head = head_of(decoded.asked, admitted.model, incoming, server)
    make = StreamSink if decoded.request.stream else CollectSink
    await agent.run(admitted, make(send, head, headers, context.ended_at))
