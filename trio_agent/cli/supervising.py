"""What `trio-agent serve --workers N` does: takes the address, and keeps N workers that serve it."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import click
import trio

from trio_agent.cli.address import Place, key_of, taken, tell_address
from trio_agent.cli.claiming import announce, refused, shutdown_limit, state_with
from trio_agent.cli.common import read_draft
from trio_agent.cli.telling import NOT_RELOADING, SHUTTING_DOWN, tell, tell_refused, tell_reloaded, unforeseen
from trio_agent.cli.wanted import Wanted
from trio_agent.config.load import Draft, parse_draft
from trio_agent.config.problems import ConfigError
from trio_agent.config.schema import Config
from trio_agent.config.source import read_bytes
from trio_agent.nursery import open_plain_nursery
from trio_agent.server.address import address_of, close_all
from trio_agent.server.options import ServeOptions
from trio_agent.server.service_manager import ServiceManager
from trio_agent.server.state_file import Reloaded, machine_clock
from trio_agent.server.workers.messages import Serves, Start
from trio_agent.server.workers.supervisor import Supervisor, WorkerEnded
from trio_agent.world import RealWorld

logger = logging.getLogger("trio_agent.workers")

WORKER: Final = ("-m", "trio_agent.cli.worker")
"""How Python is told to be a worker."""


async def supervise(options: ServeOptions, signals: AsyncIterator[int]) -> None:
    """Serve with `options.workers` processes until a signal ends them.

    Raises:
        ConfigError: with every problem that was found, each once.
        click.ClickException: the first workers could not be started, or some had to be killed.
    """
    source, draft = _read(options)
    async with taken(options, draft) as place:
        if draft.config is None:
            raise ConfigError(draft.with_problems(place.problems).problems)
        # One that looks for the problems of the boot is enough to have them all in one report.
        count = 1 if place.problems or draft.problems else options.workers
        start = Start(
            number=0,
            count=count,
            options=options,
            config=source,
            version=1,
            listeners=tuple(listener.socket.fileno() for listener in place.listeners),
            problems=tuple(place.problems),
        )
        house = _House(options, draft.config, place)
        supervisor = Supervisor(start, WORKER, on_ready=house.open, on_changed=house.note_workers)
        async with open_plain_nursery() as nursery:
            nursery.start_soon(house.watch, signals, supervisor, nursery)
            await _run(supervisor)
            nursery.cancel_scope.cancel()
    if supervisor.failed:
        raise click.ClickException(f"{len(supervisor.failed)} of {count} workers did not end in order")


class _House:
    """The supervisor's side of what is not in its workers: signals, the state file, what is told."""

    def __init__(self, options: ServeOptions, config: Config, place: Place) -> None:
        self._options = options
        self._config = config
        self._place = place
        self._now = RealWorld().now
        self._wanted = Wanted()
        self._reloading = trio.CancelScope()
        self._ending = False
        self._manager = ServiceManager.of(os.environ)
        self._status = ""

    async def open(self, serves: Serves, workers: list[int]) -> None:
        """All is ready for connections. Raises ConfigError where the state cannot be written."""
        if self._place.claim is not None:
            state = state_with(
                self._options,
                self._place.listeners,
                key_of(self._options, Draft(self._config)),
                server=self._config.server,
                providers=serves.providers,
                models=serves.models,
                started_at=self._now(),
                workers=workers,
            )
            await announce(self._place.claim, state)
        for listener in self._place.listeners:
            self._status = tell_address(
                self._options, address_of(listener), serves.models, workers=len(workers)
            )
        self._manager.ready(self._status)

    async def note_workers(self, workers: list[int]) -> None:
        """A worker has died, or another process has taken its place."""
        await self._note(workers=tuple(workers))

    async def watch(self, signals: AsyncIterator[int], supervisor: Supervisor, nursery: trio.Nursery) -> None:
        """The first signal asks for an orderly end, the second for an end; so does the first one of a boot.

        SIGHUP asks for the configuration to be read again, and ends nothing, at no time.
        """
        nursery.start_soon(self._reload_for_ever, supervisor)
        async for number in signals:
            if number == signal.SIGHUP:
                if self._ending:
                    tell(self._options.log_format, NOT_RELOADING)
                else:
                    self._wanted.ask()
                continue
            self._reloading.cancel()
            close_all(self._place.listeners)  # the workers have their own, while they accept connections
            in_order = supervisor.serving and not self._ending
            supervisor.stop(at_once=not in_order)
            self._ending = True
            if in_order:
                tell(self._options.log_format, SHUTTING_DOWN)
                self._manager.stopping("lets running turns finish")
                await self._note(stopping_at=self._now())

    async def _reload_for_ever(self, supervisor: Supervisor) -> None:
        with self._reloading:
            await supervisor.until_serving()
            while True:
                await self._wanted.wait()
                self._manager.reloading()
                result = await self._reload(supervisor)
                self._manager.ready(f"{self._status}; the configuration was {result}")

    async def _reload(self, supervisor: Supervisor) -> str:
        """Read the file again, and put it in force in all workers, or in none; what came of it."""
        began = machine_clock()
        try:
            source, draft = _read(self._options, again=True)
            if draft.config is None:
                supervisor.note_refused(draft.problems)
                raise ConfigError(draft.problems)
            done = await supervisor.reload(source)
        except ConfigError as error:
            return await self._refuse(error, began)
        except Exception as error:
            # Whatever has happened to it, the server goes on as it was.
            logger.exception("the configuration could not be reloaded")
            return await self._refuse(unforeseen(error), began)
        self._config = draft.config
        if done is not None:
            tell_reloaded(self._options.log_format, done.said)
            await self._note(providers=done.serves.providers, models=done.serves.models)
        await self._note(
            api_key=key_of(self._options, draft),
            shutdown_limit=shutdown_limit(draft.config.server, supervised=True),
            reload=Reloaded(at=self._now(), ok=True, began=began),
        )
        return "reloaded"

    async def _refuse(self, error: ConfigError, began: float) -> str:
        tell_refused(self._options.log_format, error)
        await self._note(reload=refused(error, self._now(), began))
        return "not reloaded, for it has problems"

    async def _note(self, **changes: object) -> None:
        if self._place.claim is not None:
            await self._place.claim.update(**changes)


def _read(options: ServeOptions, *, again: bool = False) -> tuple[bytes, Draft]:
    if options.config is None:
        return b"", read_draft(None)
    try:
        source = read_bytes(Path(options.config), again=again)
    except ConfigError as error:
        return b"", Draft(None, tuple(error.problems))
    return source, parse_draft(source, os.environ)


async def _run(supervisor: Supervisor) -> None:
    try:
        await supervisor.run()
    except WorkerEnded as ended:
        if ended.problems:
            raise ConfigError(ended.problems) from None
        raise click.ClickException(str(ended)) from None
    except OSError as error:
        raise click.ClickException(f"a worker could not be started: {error.strerror or error}") from None
