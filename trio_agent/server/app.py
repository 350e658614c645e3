"""The application: which path leads to which face."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import trio
from quart import Response, has_websocket_context, request, websocket
from werkzeug.datastructures import Headers as WireHeaders

from trio_agent.admission import STORE_RETRY_SECONDS
from trio_agent.agent import Agent
from trio_agent.auditing import audited
from trio_agent.config.binding import check_binding
from trio_agent.config.problems import ConfigError
from trio_agent.errors import AgentError
from trio_agent.faces import chat, compact, count_tokens, health, messages, models, responses, sessions
from trio_agent.faces.answer import (
    JSON,
    Headers,
    Send,
    body_renderer,
    error_headers,
    send_error,
    turn_headers,
)
from trio_agent.faces.request import Incoming, RawBody, authenticate
from trio_agent.faces.responses_socket import Handshake, converse
from trio_agent.nursery import open_plain_nursery
from trio_agent.server.access import guard_access
from trio_agent.server.address import address_of, open_listeners
from trio_agent.server.asgi import SocketResponse, TurnApp, TurnResponse
from trio_agent.server.bodies import BodyBudget, check_encoding
from trio_agent.server.limits import HttpLimits
from trio_agent.server.listen import serve_asgi
from trio_agent.server.state_routes import add_state_routes
from trio_agent.server.turn_routes import add_turn_routes
from trio_agent.store.contract import StoreError

Respond = Callable[[Agent, Incoming, Send], Awaitable[None]]


def create_app(agent: Agent, *, api_key: str | None = None) -> TurnApp:
    """The ASGI application of an agent.

    Args:
        api_key: the key that every caller must bring, except on `/health`. Without one, only requests that
            were addressed to this machine itself are answered: a web page must not reach a local server by
            a name of its own.
    """
    server = agent.config.server
    app = TurnApp(
        "trio_agent",
        max_request_bytes=server.max_request_bytes,
        body_timeout=server.body_timeout,
        render_error=render_error,
    )

    def caller() -> str:
        return authenticate(_headers(), api_key)

    budget = BodyBudget(
        server.max_body_bytes_in_flight, most_each=server.max_request_bytes, timeout=server.body_timeout
    )

    async def read() -> RawBody:
        check_encoding(_headers())
        return await budget.read(request.body, request.content_length)

    async def turn(respond: Respond) -> TurnResponse:
        owner = caller()
        check_encoding(_headers())
        body = partial(budget.read, request.body, request.content_length)
        return TurnResponse(partial(_run, respond, agent, request.path, _headers(), owner, body))

    @app.post("/v1/chat/completions")
    async def chat_completions() -> TurnResponse:
        return await turn(chat.respond)

    @app.post("/v1/responses")
    async def create_response() -> TurnResponse:
        return await turn(responses.respond)

    @app.post("/v1/responses/compact")
    async def compact_conversation() -> TurnResponse:
        return await turn(compact.respond)

    @app.post("/v1/messages")
    async def create_message() -> TurnResponse:
        return await turn(messages.respond)

    @app.post("/v1/messages/count_tokens")
    async def count_message_tokens() -> TurnResponse:
        return await turn(count_tokens.respond)

    @app.websocket("/v1/responses")
    async def converse_in_responses() -> SocketResponse:
        headers = _lower(websocket.headers)
        owner = authenticate(headers, api_key)
        handshake = Handshake(websocket.path, headers, owner, budget.hold)
        return SocketResponse(partial(converse, agent, handshake))

    @app.get("/v1/models")
    async def list_models() -> Response:
        caller()
        return _json(models.listing(agent, _headers()))

    @app.get("/v1/models/<path:name>")
    async def one_model(name: str) -> Response:
        caller()
        return _json(models.one(agent, name, _headers()))

    @app.get("/v1/sessions/<path:name>")
    async def one_session(name: str) -> Response:
        return _json(await sessions.one(agent, caller(), name, request.args.get("branch")))

    @app.get("/health")
    @app.get("/v1/health")
    async def brief_health() -> Response:
        return _json(health.brief(agent))

    @app.get("/health/detailed")
    async def detailed_health() -> Response:
        caller()
        return _json(await health.detailed(agent))

    @app.errorhandler(AgentError)
    async def refused(error: AgentError) -> Response:
        called = websocket if has_websocket_context() else request
        render = body_renderer(called.path, _lower(called.headers))
        return _json(render(error), error.status, error_headers(error))

    @app.errorhandler(StoreError)
    async def unreachable(error: StoreError) -> Response:
        return await refused(AgentError("store_unavailable", str(error), retry_after=STORE_RETRY_SECONDS))

    add_state_routes(app, agent, caller=caller, read=read)
    add_turn_routes(app, agent, caller=caller)
    guard_access(app, keyless=api_key is None, origins=server.cors_origins)
    return app


async def _run(
    respond: Respond,
    agent: Agent,
    path: str,
    headers: Mapping[str, str],
    owner: str,
    read: Callable[[], Awaitable[RawBody]],
    send: Send,
) -> None:
    """One request of a face's. The body is read in the frame that also lets go of it, whatever happens."""
    try:
        body = await read()
        try:
            context = agent.context()
            if context.listens:
                context.http_request(path, headers, body.peek())
                send = context.http(send)
            await respond(agent, Incoming(path, headers, body, owner, context), send)
        finally:
            body.close()
    except AgentError as error:
        about = [] if error.turn_id is None else turn_headers(error.turn_id, ())
        await send_error(send, error, about, body_renderer(path))


def _headers() -> dict[str, str]:
    return _lower(request.headers)


def _lower(headers: WireHeaders) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _json(body: bytes, status: int = 200, headers: Headers = JSON) -> Response:
    response = Response(body, status, content_type="application/json")
    for name, value in headers:
        response.headers[name.decode()] = value.decode()
    return response


def render_error(status: int, code: str, message: str, request_path: str) -> tuple[bytes, Headers]:
    """The body of an error that no face made, in the envelope of the path's format."""
    error = AgentError(code, message)
    body = body_renderer(request_path)(error)
    return body, [*JSON, *error_headers(error)] if status < 500 else list(JSON)


def http_limits(agent: Agent) -> HttpLimits:
    server = agent.config.server
    return HttpLimits(
        max_connections=server.max_connections,
        max_header_bytes=server.max_header_bytes,
        max_message_bytes=server.max_request_bytes,
        max_held_message_bytes=server.max_body_bytes_in_flight,
        message_timeout=server.body_timeout,
        websocket_idle_timeout=server.websocket_idle_timeout,
        header_timeout=server.header_timeout,
        idle_timeout=server.idle_timeout,
        write_timeout=server.write_timeout,
    )


async def serve(  # noqa: ASYNC128 - `serve_on` says that it has started
    agent: Agent,
    *,
    host: str = "127.0.0.1",
    port: int = 9099,
    api_key: str | None = None,
    shutdown: trio.Event | None = None,
    task_status: trio.TaskStatus[list[tuple[str, int]]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an agent's HTTP faces until `shutdown` is set; usable in any nursery.

    At shutdown no more turns are let in, those that run have `server.shutdown_grace` seconds, and the rest
    end with an event in their own format that says so. Cancelling this call ends everything at once.

    Args:
        port: 0 takes a free one.
        api_key: what callers must bring; by default the configuration's `server.api_key`.
        task_status: started with the addresses, as (host, port), once connections are accepted.

    Raises:
        ConfigError: without a key, or with a weak one, the address is not served.
        ListenError: the address cannot be bound; the message says why and what to do.
    """
    key = api_key if api_key is not None else agent.config.server.api_key
    check_exposure(host, key)
    await serve_on(
        agent,
        await open_listeners(host, port),
        api_key=key,
        shutdown=trio.Event() if shutdown is None else shutdown,
        task_status=task_status,
    )


async def serve_on(
    agent: Agent,
    listeners: list[trio.SocketListener],
    *,
    api_key: str | None,
    shutdown: trio.Event,
    task_status: trio.TaskStatus[list[tuple[str, int]]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """`serve` on sockets that listen already. They are closed when this returns.

    Args:
        api_key: what callers must bring; that it is fit for the address has been seen to.
    """
    addresses = [address_of(listener) for listener in listeners]
    names = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in addresses]
    async with audited(agent.store, agent.config, names), open_plain_nursery() as nursery:
        await nursery.start(
            partial(
                serve_asgi,
                create_app(agent, api_key=api_key),
                listeners,
                limits=http_limits(agent),
                shutdown=shutdown,
                grace=agent.config.server.shutdown_grace,
                on_grace_over=agent.stop_turns,
                on_draining=agent.drain,
                until_idle=agent.idle,
                render_error=render_error,
            )
        )
        task_status.started(addresses)


def check_exposure(host: str, api_key: str | None) -> None:
    """Raises ConfigError when this address must not be served with this key."""
    problems = check_binding(host, api_key)
    if problems:
        raise ConfigError(problems)
