"""How `trio-agent serve` claims its home, and what it announces there."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from trio_agent import __version__
from trio_agent.config.home import ensure_home, resolve_home
from trio_agent.config.problems import ConfigError, ConfigProblem, render_problems
from trio_agent.config.schema import ServerConfig
from trio_agent.server.claim import Claim, ClaimError, take_claim
from trio_agent.server.options import ServeOptions
from trio_agent.server.service_manager import VARIABLE, ServiceManager
from trio_agent.server.state_file import Reloaded, ServerState
from trio_agent.server.workers.supervisor import STOP_MARGIN_SECONDS
from trio_agent.world import World

if TYPE_CHECKING:
    from trio_agent.agent import Agent

END_MARGIN: Final = 2.0
"""Seconds that an orderly end takes at most beside what is configured."""


@asynccontextmanager
async def claimed(env: Mapping[str, str], problems: list[ConfigProblem]) -> AsyncIterator[Claim | None]:
    """Hold the claim on the home while the block runs; `None`, and a problem, where it cannot be had.

    A home that cannot be used at all is no problem here: the boot looks at it too, and tells.
    """
    claim: Claim | None = None
    try:
        claim = await take_claim(ensure_home(resolve_home(env)))
    except ClaimError as error:
        problems.append(error.problem)
    except ConfigError:
        pass
    try:
        yield claim
    finally:
        if claim is not None:
            claim.release()


async def announce(claim: Claim, state: ServerState) -> None:
    """Write the state file. Raises ConfigError where it cannot be written: nothing is served then."""
    try:
        await claim.announce(state)
    except ClaimError as error:
        raise ConfigError([error.problem]) from None


async def note_end(claim: Claim | None, shutdown: trio.Event, world: World, manager: ServiceManager) -> None:
    """Tell those who ask from outside that the server is about to end, when it is."""
    await shutdown.wait()
    manager.stopping("lets running turns finish")
    if claim is not None:
        await claim.update(stopping_at=world.now())


def state_of(
    agent: Agent, options: ServeOptions, listeners: Sequence[trio.SocketListener], api_key: str | None
) -> ServerState:
    """What a server of one process announces.

    Args:
        api_key: what callers must bring, from wherever it comes.
    """
    return state_with(
        options,
        listeners,
        api_key,
        server=agent.config.server,
        providers=agent.model_counts(),
        models=len(agent.models()),
        started_at=agent.world.now(),
    )


def state_with(
    options: ServeOptions,
    listeners: Sequence[trio.SocketListener],
    api_key: str | None,
    *,
    server: ServerConfig,
    providers: Mapping[str, int],
    models: int,
    started_at: float,
    workers: Sequence[int] = (),
) -> ServerState:
    """What a server announces whose turns run in other processes, `workers`, or in this one."""
    return ServerState(
        pid=os.getpid(),
        started_at=started_at,
        host=options.bind,
        port=int(listeners[0].socket.getsockname()[1]),
        options=options,
        cwd=str(Path.cwd()),
        version=__version__,
        config=options.config,
        workspace=options.workspace,
        providers=dict(providers),
        models=models,
        api_key=api_key,
        shutdown_limit=shutdown_limit(server, supervised=bool(workers)),
        managed=_is_managed(os.environ),
        workers=tuple(workers),
    )


def _is_managed(env: Mapping[str, str]) -> bool:
    """Whether a service manager started this very process: variables are inherited by all others too."""
    return bool(env.get(VARIABLE)) or env.get("SYSTEMD_EXEC_PID") == str(os.getpid())


def refused(error: ConfigError, at: float, began: float) -> Reloaded:
    """What the state file says of a configuration that was refused. The times are those of `Reloaded`."""
    problems = tuple(render_problems([each]) for each in error.problems)
    return Reloaded(at=at, ok=False, problems=problems, began=began)


def shutdown_limit(server: ServerConfig, *, supervised: bool) -> float:
    """The most seconds from a signal to the end of the process, or of all where workers are `supervised`."""
    margin = STOP_MARGIN_SECONDS if supervised else END_MARGIN
    return server.shutdown_delay + server.shutdown_grace + margin
