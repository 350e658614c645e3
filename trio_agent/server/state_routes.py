"""The routes to what is kept: responses and conversations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import trio
from quart import Response, request

from trio_agent.agent import Agent
from trio_agent.errors import AgentError, store_unavailable
from trio_agent.faces import conversations, responses_state
from trio_agent.faces.answer import NotedSend, send_error
from trio_agent.faces.paging import flag_of, number_of, page_of
from trio_agent.faces.request import Incoming, RawBody
from trio_agent.faces.responses_options import checked_include
from trio_agent.server.asgi import ASGISend, TurnApp, TurnResponse
from trio_agent.server.json_response import json_response
from trio_agent.server.refusals import Refusals
from trio_agent.store.contract import StoreError

_RESPONSES: Final = "/v1/responses"
_RESPONSE: Final = f"{_RESPONSES}/<response_id>"
_CONVERSATIONS: Final = "/v1/conversations"
_CONVERSATION: Final = "/v1/conversations/<name>"
_LAST_NUMBER: Final = 2**53


def add_state_routes(
    app: TurnApp,
    agent: Agent,
    *,
    caller: Callable[[], str],
    read: Callable[[], Awaitable[RawBody]],
    refusals: Refusals,
) -> None:
    """Add them to the application.

    Args:
        caller: the owner that the running request's key stands for; raises AgentError.
        read: reads its body; raises AgentError.
        refusals: gives ids to what is refused.
    """
    _add_responses(app, agent, caller, refusals)
    _add_conversations(app, agent, caller, read)


def _add_responses(app: TurnApp, agent: Agent, caller: Callable[[], str], refusals: Refusals) -> None:
    @app.get(_RESPONSE)
    async def read_response(response_id: str) -> TurnResponse:
        owner = caller()
        after = number_of(request.args, "starting_after", least=0, most=_LAST_NUMBER)
        reading = responses_state.Reading(
            stream=flag_of(request.args, "stream"), after=-1 if after is None else after, include=_include()
        )
        run = partial(_read, agent, refusals, owner, response_id, reading)
        # What a stream would say is not waited for where only its headers are wanted.
        return TurnResponse(partial(_head_of, run) if request.method == "HEAD" else run)

    @app.delete(_RESPONSE)
    async def delete_response(response_id: str) -> Response:
        return json_response(await responses_state.delete(agent, caller(), response_id))

    @app.post(f"{_RESPONSE}/cancel")
    async def cancel_response(response_id: str) -> Response:
        body, headers = await responses_state.cancel(agent, caller(), response_id)
        return json_response(body, headers=headers)

    @app.get(f"{_RESPONSE}/input_items")
    async def list_input_items(response_id: str) -> Response:
        owner = caller()
        _include()
        return json_response(
            await responses_state.input_items(agent, owner, response_id, page_of(request.args))
        )


def _add_conversations(
    app: TurnApp, agent: Agent, caller: Callable[[], str], read: Callable[[], Awaitable[RawBody]]
) -> None:
    async def with_body(answer: Callable[[Incoming], Awaitable[bytes]]) -> Response:
        owner = caller()
        body = await read()
        try:
            slot = agent.slots.slot(owner)  # which it never takes
            return json_response(await answer(Incoming(request.path, {}, body, owner, agent.context(), slot)))
        finally:
            body.close()

    @app.post(_CONVERSATIONS)
    async def create_conversation() -> Response:
        return await with_body(partial(conversations.create, agent))

    @app.get(_CONVERSATION)
    async def show_conversation(name: str) -> Response:
        return json_response(await conversations.show(agent, caller(), name))

    @app.post(_CONVERSATION)
    async def update_conversation(name: str) -> Response:
        return await with_body(lambda incoming: conversations.update(agent, incoming, name))

    @app.delete(_CONVERSATION)
    async def delete_conversation(name: str) -> Response:
        return json_response(await conversations.delete(agent, caller(), name))

    @app.post(f"{_CONVERSATION}/items")
    async def add_conversation_items(name: str) -> Response:
        _include()
        return await with_body(lambda incoming: conversations.add_items(agent, incoming, name))

    @app.get(f"{_CONVERSATION}/items")
    async def list_conversation_items(name: str) -> Response:
        owner = caller()
        _include()
        return json_response(await conversations.list_items(agent, owner, name, page_of(request.args)))

    @app.get(f"{_CONVERSATION}/items/<item_id>")
    async def show_conversation_item(name: str, item_id: str) -> Response:
        owner = caller()
        _include()
        return json_response(await conversations.one_item(agent, owner, name, item_id))


async def _head_of(run: Callable[[ASGISend], Awaitable[None]], send: ASGISend) -> None:
    """Answer with the headers of what `run` sends, and end it there."""
    with trio.CancelScope() as scope:

        async def send_head(message: dict[str, Any]) -> None:
            if not scope.cancel_called:
                await send(message)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                scope.cancel()
            await trio.lowlevel.checkpoint()

        await run(send_head)


async def _read(
    agent: Agent,
    refusals: Refusals,
    owner: str,
    response_id: str,
    reading: responses_state.Reading,
    send: ASGISend,
) -> None:
    noted = NotedSend(send)
    path = f"{_RESPONSES}/{response_id}"
    try:
        await responses_state.read(agent, owner, response_id, reading, noted)
    except AgentError as error:
        await send_error(send, error, refusals.about(error, "GET", path))
    except StoreError as error:
        if noted.began:
            raise  # without its end, nobody takes the stream for whole
        unavailable = store_unavailable(error)
        await send_error(send, unavailable, refusals.about(unavailable, "GET", path))


def _include() -> tuple[str, ...]:
    """What of an item is asked for beside what is shown in any case; SDKs spell a list in two ways."""
    return checked_include([*request.args.getlist("include"), *request.args.getlist("include[]")])
