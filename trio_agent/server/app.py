"""The application of an agent, and serving it on a port."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import trio

from trio_agent.agent import Agent
from trio_agent.auditing import audited
from trio_agent.config.binding import check_binding, key_in_force
from trio_agent.config.load import Draft
from trio_agent.config.problems import ConfigError, ConfigProblem
from trio_agent.config.schema import ServerConfig
from trio_agent.faces.responses_socket import Entry
from trio_agent.generations import Generation
from trio_agent.nursery import open_plain_nursery
from trio_agent.server.address import address_of, authority, open_listeners
from trio_agent.server.bodies import BodyBytes
from trio_agent.server.limits import HttpLimits
from trio_agent.server.listen import serve_asgi
from trio_agent.server.refusals import Refusals
from trio_agent.server.routes import Routes, render_error


class Application:
    """The ASGI application of an agent: each request goes by the configuration that is in force as it comes.

    Args:
        agent: answers.
        api_key: the key that every caller must bring; by default the configuration's `server.api_key`.
        leaving: whether the server was told to stop; `/health/ready` says so before turns are refused.
    """

    def __init__(
        self, agent: Agent, *, api_key: str | None = None, leaving: Callable[[], bool] = lambda: False
    ) -> None:
        self._agent = agent
        self._leaving = leaving
        self._api_key = api_key
        self._bytes_held = BodyBytes()
        self._newest: tuple[Generation, Routes] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        generation = self._agent.generation
        if scope["type"] == "http":
            with generation.uses:
                await self._routes(generation).app(scope, receive, send)
        else:
            # A WebSocket may last an hour: each of its requests looks for the newest configuration.
            await self._routes(generation).app(scope, receive, send)

    def _routes(self, generation: Generation) -> Routes:
        if self._newest is None or self._newest[0] is not generation:
            routes = Routes(
                self._agent.under(generation),
                api_key=key_in_force(self._api_key, generation.config.server.api_key),
                bytes_held=self._bytes_held,
                enter=self._enter,
                leaving=self._leaving,
            )
            self._newest = generation, routes
        return self._newest[1]

    @contextmanager
    def _enter(self, headers: Mapping[str, str]) -> Iterator[Entry]:
        """Let in one more request of a WebSocket that was opened with these headers, if it still may."""
        generation = self._agent.generation
        with generation.uses:
            routes = self._routes(generation)
            routes.check_socket(headers)
            yield Entry(routes.agent, routes.budget.hold)


def create_app(
    agent: Agent, *, api_key: str | None = None, leaving: Callable[[], bool] = lambda: False
) -> Application:
    """The ASGI application of an agent; see `Application`."""
    return Application(agent, api_key=api_key, leaving=leaving)


def http_limits(server: ServerConfig) -> HttpLimits:
    """What a connection is granted that comes now."""
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

    At shutdown `/health/ready` turns to 503; `server.shutdown_delay` seconds later no more turns are let in,
    those that run have `server.shutdown_grace` seconds, and the rest end with an event in their own format
    that says so. Cancelling this call ends everything at once.

    Args:
        port: 0 takes a free one.
        api_key: what callers must bring; by default the configuration's `server.api_key`.
        task_status: started with the addresses, as (host, port), once connections are accepted.

    Raises:
        ConfigError: without a key, or with a weak one, the address is not served.
        ListenError: the address cannot be bound; the message says why and what to do.
    """
    problems = check_binding(host, key_in_force(api_key, agent.config.server.api_key))
    if problems:
        raise ConfigError(problems)
    await serve_on(
        agent,
        await open_listeners(host, port),
        api_key=api_key,
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
        api_key: what callers must bring; by default what the configuration says, which may change. That the
            first is fit for the address has been seen to; a configuration with one that is not is refused.
    """
    addresses = [address_of(listener) for listener in listeners]
    names = [authority(host, port) for host, port in addresses]
    exposure = partial(_exposure, [host for host, _ in addresses], api_key)
    with agent.checked_by(exposure):
        async with audited(agent.store, agent.config, names), open_plain_nursery() as nursery:
            await nursery.start(
                partial(
                    serve_asgi,
                    create_app(agent, api_key=api_key, leaving=shutdown.is_set),
                    listeners,
                    limits=lambda: http_limits(agent.config.server),
                    shutdown=shutdown,
                    grace=lambda: agent.config.server.shutdown_grace,
                    delay=lambda: agent.config.server.shutdown_delay,
                    on_grace_over=agent.stop_turns,
                    on_draining=agent.drain,
                    until_idle=agent.idle,
                    render_error=Refusals(agent.world.new_id).noting(render_error),
                    watch_connections=partial(
                        agent.metrics.watch, "trio_agent_connections_open", "Connections of clients."
                    ),
                )
            )
            task_status.started(addresses)


def _exposure(hosts: Sequence[str], api_key: str | None, draft: Draft) -> list[ConfigProblem]:
    """What forbids to serve these hosts with the key of another configuration."""
    if draft.config is None or (api_key is None and draft.lacks("server", "api_key")):
        return []
    key = key_in_force(api_key, draft.config.server.api_key)
    return list(dict.fromkeys(problem for host in hosts for problem in check_binding(host, key)))
