"""`SIGHUP`: what `trio-agent serve` does when it is asked to read its configuration again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

from trio_agent.agent import Agent
from trio_agent.auditing import about_config, audit
from trio_agent.cli.claiming import refused, shutdown_limit
from trio_agent.cli.common import read_draft
from trio_agent.cli.telling import tell_refused, tell_reloaded, unforeseen
from trio_agent.cli.wanted import Wanted
from trio_agent.config.binding import key_in_force
from trio_agent.config.problems import ConfigError, ConfigProblem
from trio_agent.reloading import Reload
from trio_agent.server.claim import Claim
from trio_agent.server.options import ServeOptions
from trio_agent.server.service_manager import ServiceManager
from trio_agent.server.state_file import Reloaded, machine_clock

logger = logging.getLogger("trio_agent.serve")

AUDIT_SECONDS: Final = 1.0
"""What an entry in the audit log may take: the end of a server waits for one that is being written."""


async def reload_when_wanted(
    agent: Agent,
    options: ServeOptions,
    claim: Claim | None,
    manager: ServiceManager,
    wanted: Wanted,
    shutdown: trio.Event,
) -> None:
    """Read the configuration again each time it is asked for, until the server is asked to end.

    A reload that is under way then is given up, and nothing has changed.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_reload_for_ever, agent, options, claim, manager, wanted)
        await shutdown.wait()
        nursery.cancel_scope.cancel()


async def _reload_for_ever(
    agent: Agent, options: ServeOptions, claim: Claim | None, manager: ServiceManager, wanted: Wanted
) -> None:
    while True:
        await wanted.wait()
        await _reload_once(agent, options, claim, manager)


async def _reload_once(
    agent: Agent, options: ServeOptions, claim: Claim | None, manager: ServiceManager
) -> None:
    """Read the file and the credentials again, and put them in force: all of it, or nothing.

    What came of it is told on standard error, in the audit log, in the state file and to the service manager.
    """
    manager.reloading()
    began = machine_clock()
    try:
        draft = read_draft(None if options.config is None else Path(options.config), again=True)
        done = await agent.reload(draft)
    except ConfigError as error:
        await note_refused(agent, options, claim, error, began)
        manager.ready("the configuration was not reloaded: the new one has problems, see the log")
    except Exception as error:
        # Whatever a plug-in or a disk has done to it, the server goes on as it was.
        logger.exception("the configuration could not be reloaded")
        await note_refused(agent, options, claim, unforeseen(error), began)
        manager.ready("the configuration was not reloaded: reading it failed, see the log")
    else:
        await note_reloaded(agent, options, claim, done, began)
        manager.ready(f"serves {len(agent.models())} models; the configuration was reloaded")


async def note_reloaded(
    agent: Agent, options: ServeOptions, claim: Claim | None, done: Reload, began: float
) -> None:
    """Tell that the configuration in force is another one. `began` is that of `Reloaded`."""
    tell_reloaded(options.log_format, str(done))
    await audit_reloaded(agent, done)
    config = agent.config
    if claim is not None:
        await claim.update(
            providers=agent.model_counts(),
            models=len(agent.models()),
            api_key=key_in_force(options.api_key, config.server.api_key),
            shutdown_limit=shutdown_limit(config.server, supervised=False),
            reload=Reloaded(at=agent.world.now(), ok=True, began=began),
        )


async def note_refused(
    agent: Agent, options: ServeOptions, claim: Claim | None, error: ConfigError, began: float
) -> None:
    """Tell that the configuration in force stays, and why the other one was refused."""
    tell_refused(options.log_format, error)
    await audit_refused(agent, error.problems)
    if claim is not None:
        await claim.update(reload=refused(error, agent.world.now(), began))


async def audit_reloaded(agent: Agent, done: Reload) -> None:
    """Note in the audit log that the configuration in force is another one."""
    details = {**about_config(agent.config), "changed": list(done.keys)}
    await audit(agent.store, "config.reloaded", details, limit=AUDIT_SECONDS)


async def audit_refused(agent: Agent, problems: Sequence[ConfigProblem]) -> None:
    """Note in the audit log that another configuration was refused, and why."""
    details = {"problems": [{"code": each.code, "path": each.path} for each in problems]}
    await audit(agent.store, "config.refused", details, limit=AUDIT_SECONDS)


__all__ = [
    "audit_refused",
    "audit_reloaded",
    "note_refused",
    "note_reloaded",
    "reload_when_wanted",
]
