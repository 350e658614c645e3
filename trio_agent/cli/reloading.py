"""`SIGHUP`: what `trio-agent serve` does when it is asked to read its configuration again."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import trio

from trio_agent.agent import Agent
from trio_agent.auditing import about_config, audit
from trio_agent.cli.claiming import shutdown_limit
from trio_agent.cli.common import read_draft, tell
from trio_agent.config.problems import ConfigError, render_problems
from trio_agent.reloading import Reload
from trio_agent.server.claim import Claim
from trio_agent.server.options import ServeOptions
from trio_agent.server.service_manager import ServiceManager
from trio_agent.server.state_file import Reloaded

AUDIT_SECONDS: Final = 1.0
"""What an entry in the audit log may take: the end of a server waits for one that is being written."""


class Wanted:
    """Whether somebody wants the configuration read again. Asking twice before it is read is asking once."""

    def __init__(self) -> None:
        self._asked = trio.Event()

    def ask(self) -> None:
        self._asked.set()

    async def wait(self) -> None:
        """Wait until it is asked for; what is asked for from now on is another time."""
        await self._asked.wait()
        self._asked = trio.Event()


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
    try:
        draft = read_draft(None if options.config is None else Path(options.config))
        done = await agent.reload(draft)
    except ConfigError as error:
        await note_refused(agent, options, claim, error)
        manager.ready("the configuration was not reloaded: the new one has problems, see the log")
    else:
        await note_reloaded(agent, options, claim, done)
        manager.ready(f"serves {len(agent.models())} models; the configuration was reloaded")


async def note_reloaded(agent: Agent, options: ServeOptions, claim: Claim | None, done: Reload) -> None:
    """Tell that the configuration in force is another one."""
    tell(options.log_format, f"configuration reloaded: {done}")
    config = agent.config
    details = {**about_config(config), "changed": list(done.keys)}
    await audit(agent.store, "config.reloaded", details, limit=AUDIT_SECONDS)
    if claim is not None:
        await claim.update(
            providers={mounted.id: len(mounted.models) for mounted in agent.providers.values()},
            models=len(agent.models()),
            api_key=config.server.api_key if options.api_key is None else options.api_key,
            shutdown_limit=shutdown_limit(config.server),
            reload=Reloaded(at=agent.world.now(), ok=True),
        )


async def note_refused(agent: Agent, options: ServeOptions, claim: Claim | None, error: ConfigError) -> None:
    """Tell that the configuration in force stays, and why the other one was refused."""
    problems = error.problems
    tell(
        options.log_format,
        f"configuration not reloaded, the one before stays in force:\n\n{render_problems(problems)}",
    )
    details = {"problems": [{"code": each.code, "path": each.path} for each in problems]}
    await audit(agent.store, "config.refused", details, limit=AUDIT_SECONDS)
    if claim is not None:
        told = tuple(render_problems([each]) for each in problems)
        await claim.update(reload=Reloaded(at=agent.world.now(), ok=False, problems=told))


__all__ = ["Wanted", "note_refused", "note_reloaded", "reload_when_wanted"]
