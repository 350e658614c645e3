"""`POST /v1/messages/count_tokens`: how many tokens a Messages request's prompt is. No turn comes of it."""

from __future__ import annotations

import msgspec

from trio_agent.agent import Agent
from trio_agent.errors import AgentError
from trio_agent.faces.answer import Send, ignored_header, send_json
from trio_agent.faces.messages_request import in_own_words
from trio_agent.faces.messages_threads import taken_in
from trio_agent.faces.request import Incoming


async def respond(agent: Agent, incoming: Incoming, send: Send) -> None:
    """Answer one request. The header `X-Usage-Source` says whose figure it is.

    Raises:
        AgentError: nothing has been sent; it is the answer.
    """
    decoded = await taken_in(agent, incoming, counting=True)
    try:
        count = await agent.count_tokens(decoded.request)
    except AgentError as error:
        raise in_own_words(error, decoded) from None
    body = msgspec.json.encode({"input_tokens": count.input_tokens})
    headers = [(b"x-usage-source", count.source.encode()), *ignored_header(decoded.ignored)]
    await send_json(send, 200, body, headers)
