"""Which path leads to which face, under one configuration."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeAlias

from msgspec import Struct
from quart import Request, Response, Websocket, has_websocket_context, request, websocket
from werkzeug.datastructures import Headers as WireHeaders

from trio_agent.agent import Agent
from trio_agent.errors import AgentError, store_unavailable
from trio_agent.faces import (
    chat,
    compact,
    count_tokens,
    health,
    messages,
    metrics,
    models,
    responses,
    sessions,
)
from trio_agent.faces.answer import (
    JSON,
    Headers,
    Send,
    body_renderer,
    error_headers,
    send_error,
)
from trio_agent.faces.request import Incoming, RawBody, authenticate
from trio_agent.faces.responses_socket import Entry, Handshake, converse
from trio_agent.server.access import guard_access
from trio_agent.server.asgi import SocketResponse, TurnApp, TurnResponse
from trio_agent.server.bodies import BodyBudget, BodyBytes, check_encoding
from trio_agent.server.client_address import TrustedProxies
from trio_agent.server.json_response import json_response
from trio_agent.server.refusals import Refusals
from trio_agent.server.state_routes import add_state_routes
from trio_agent.server.turn_routes import add_turn_routes
from trio_agent.store.contract import StoreError
from trio_agent.wire.traceparent import traceparent_of

Respond: TypeAlias = Callable[[Agent, Incoming, Send], Awaitable[None]]
Enter: TypeAlias = Callable[[Mapping[str, str]], AbstractContextManager[Entry]]


class Caller(Struct, frozen=True):
    """Who asks for turns, as far as their fair share of the server is concerned: a key at an address."""

    owner: str
    address: str


class Routes:
    """The application of an agent under one configuration.

    Args:
        agent: as it is under that configuration.
        api_key: the key that every caller must bring, except for health checks. Without one, only requests
            that were addressed to this machine itself are answered: a web page must not reach a local server
            by a name of its own.
        bytes_held: counts the bodies of the server, those under other configurations included.
        enter: lets in a request of a WebSocket, which may live longer than the configuration does.
        leaving: whether the server was told to stop.
    """

    def __init__(
        self,
        agent: Agent,
        *,
        api_key: str | None,
        bytes_held: BodyBytes,
        enter: Enter,
        leaving: Callable[[], bool],
    ) -> None:
        server = agent.config.server
        self.agent = agent
        self.refusals = Refusals(agent.world.new_id)
        self.app = TurnApp(
            "trio_agent",
            max_request_bytes=server.max_request_bytes,
            body_timeout=server.body_timeout,
            render_error=self.refusals.noting(render_error),
        )
        self.budget = BodyBudget(
            server.max_body_bytes_in_flight,
            most_each=server.max_request_bytes,
            timeout=server.body_timeout,
            bytes_held=bytes_held,
        )
        self._proxies = TrustedProxies(server.trusted_proxies)
        self._api_key = api_key
        self._enter = enter
        self._leaving = leaving
        self._add_turns()
        self._add_reading()
        self._add_failures()
        add_state_routes(self.app, agent, caller=self.caller, read=self.read, refusals=self.refusals)
        add_turn_routes(self.app, agent, caller=self.caller)
        self._check_access = guard_access(self.app, keyless=api_key is None, origins=server.cors_origins)

    def check_socket(self, headers: Mapping[str, str]) -> None:
        """Refuse a WebSocket that would not be opened under this configuration. Raises AgentError.

        Args:
            headers: that it was opened with, names in lower case.
        """
        self._check_access(WireHeaders(dict(headers)))
        authenticate(headers, self._api_key)

    def caller(self) -> str:
        """Whose key the running request brings. Raises AgentError."""
        return authenticate(_headers(), self._api_key)

    async def read(self) -> RawBody:
        """The body of the running request. Raises AgentError."""
        check_encoding(_headers())
        return await self.budget.read(request.body, request.content_length)

    async def _turn(self, respond: Respond) -> TurnResponse:
        owner = self.caller()
        check_encoding(_headers())
        body = partial(self.budget.read, request.body, request.content_length)
        incoming = (request.path, _headers(), self._who(request, owner), body)
        return TurnResponse(partial(_run, respond, self.agent, self.refusals, *incoming))

    def _who(self, called: Request | Websocket, owner: str) -> Caller:
        peer = called.scope.get("client")
        address = self._proxies.client(peer and peer[0], called.headers.getlist("x-forwarded-for"))
        return Caller(owner, address)

    def _add_turns(self) -> None:
        posted: dict[str, Respond] = {
            "/v1/chat/completions": chat.respond,
            "/v1/responses": responses.respond,
            "/v1/responses/compact": compact.respond,
            "/v1/messages": messages.respond,
            "/v1/messages/count_tokens": count_tokens.respond,
        }
        for path, respond in posted.items():
            self.app.add_url_rule(path, path, partial(self._turn, respond), methods=["POST"])

        @self.app.websocket("/v1/responses")
        async def converse_in_responses() -> SocketResponse:
            headers = joined(websocket.headers)
            owner = authenticate(headers, self._api_key)
            enter, who = partial(self._enter, headers), self._who(websocket, owner)
            handshake = Handshake(websocket.path, headers, owner, enter, who)
            return SocketResponse(partial(converse, handshake))

    def _add_reading(self) -> None:
        app, agent = self.app, self.agent

        @app.get("/v1/models")
        async def list_models() -> Response:
            self.caller()
            return json_response(models.listing(agent, _headers()))

        @app.get("/v1/models/<path:name>")
        async def one_model(name: str) -> Response:
            self.caller()
            return json_response(models.one(agent, name, _headers()))

        @app.get("/v1/sessions/<path:name>")
        async def one_session(name: str) -> Response:
            return json_response(await sessions.one(agent, self.caller(), name, request.args.get("branch")))

        @app.get("/health")
        @app.get("/v1/health")
        async def brief_health() -> Response:
            return json_response(health.brief(agent))

        @app.get("/health/ready")
        async def ready_health() -> Response:
            return json_response(*health.ready(agent, leaving=self._leaving()))

        @app.get("/health/live")
        async def live_health() -> Response:
            return json_response(health.live())

        @app.get("/health/detailed")
        async def detailed_health() -> Response:
            self.caller()
            return json_response(await health.detailed(agent))

        @app.get("/metrics")
        async def show_metrics() -> Response:
            self.caller()
            body, content_type = await metrics.page(agent, request.headers.get("accept", ""))
            return Response(body, content_type=content_type)

    def _add_failures(self) -> None:
        @self.app.errorhandler(AgentError)
        async def refused(error: AgentError) -> Response:
            called = websocket if has_websocket_context() else request
            render = body_renderer(called.path, joined(called.headers))
            method = "GET" if has_websocket_context() else request.method
            about = self.refusals.about(error, method, called.path)
            return json_response(render(error), error.status, [*error_headers(error), *about])

        @self.app.errorhandler(StoreError)
        async def unreachable(error: StoreError) -> Response:
            return await refused(store_unavailable(error))


async def _run(
    respond: Respond,
    agent: Agent,
    refusals: Refusals,
    path: str,
    headers: Mapping[str, str],
    who: Caller,
    read: Callable[[], Awaitable[RawBody]],
    send: Send,
) -> None:
    """One request of a face's. The body is read in the frame that also lets go of it, whatever happens."""
    labels: Headers = []
    heard = False
    try:
        body = await read()
        del read  # and what the body came through: the turn may take minutes
        try:
            context = agent.context(traceparent_of(headers))
            if context.listens:
                context.http_request(path, headers, body.peek())
                # A request's own id is no part of what is heard: another run would have another one.
                send, heard = context.http(_labelled(send, labels)), True
            with agent.slots.slot(who) as slot:
                await respond(agent, Incoming(path, headers, body, who.owner, context, slot), send)
        finally:
            body.close()
    except AgentError as error:
        about = refusals.about(error, "POST", path)
        if heard and error.turn_id is None:
            labels += about
            about = []
        await send_error(send, error, about, body_renderer(path))


def _labelled(send: Send, labels: Headers) -> Send:
    """`send`, which adds to the headers of an answer what is in `labels` by then."""

    async def send_labelled(message: dict[str, Any]) -> None:
        if labels and message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *labels]}
        await send(message)

    return send_labelled


def _headers() -> dict[str, str]:
    return joined(request.headers)


def joined(headers: WireHeaders) -> dict[str, str]:
    """The headers by their names in lower case.

    One that came several times with different values is one list (RFC 9110, 5.3). What is no list cannot be
    read then: a proxy in front may have believed the first of two keys, and we must not believe the last.
    """
    found: dict[str, dict[str, None]] = {}
    for name, value in headers.items():
        found.setdefault(name.lower(), {})[value] = None
    return {name: ", ".join(values) for name, values in found.items()}


def render_error(status: int, code: str, message: str, request_path: str) -> tuple[bytes, Headers]:
    """The body of an error that no face made, in the envelope of the path's format."""
    error = AgentError(code, message)
    body = body_renderer(request_path)(error)
    return body, [*JSON, *error_headers(error)] if status < 500 else list(JSON)


__all__ = ["Routes", "render_error"]
