"""What `trio-agent serve --workers N` does: takes the address, and keeps N workers that serve it."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import click
import trio

from trio_agent.cli.address import taken, tell_address
from trio_agent.cli.common import read_draft, tell
from trio_agent.config.load import Draft, parse_draft
from trio_agent.config.problems import ConfigError
from trio_agent.config.source import read_bytes
from trio_agent.nursery import open_plain_nursery
from trio_agent.server.address import address_of, close_all
from trio_agent.server.options import ServeOptions
from trio_agent.server.workers.messages import Start
from trio_agent.server.workers.supervisor import Booted, Supervisor, WorkerEnded

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
        addresses = [address_of(listener) for listener in place.listeners]

        def on_serving(booted: Booted) -> None:
            for address in addresses:
                tell_address(options, address, booted.models, workers=count)

        supervisor = Supervisor(start, WORKER, on_serving=on_serving)
        async with open_plain_nursery() as nursery:
            nursery.start_soon(_watch, options, signals, supervisor, place.listeners)
            await _run(supervisor)
            nursery.cancel_scope.cancel()
    if supervisor.killed:
        raise click.ClickException(f"{len(supervisor.killed)} of {count} workers did not end in time")


def _read(options: ServeOptions) -> tuple[bytes, Draft]:
    if options.config is None:
        return b"", read_draft(None)
    try:
        source = read_bytes(Path(options.config))
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


async def _watch(
    options: ServeOptions,
    signals: AsyncIterator[int],
    supervisor: Supervisor,
    listeners: list[trio.SocketListener],
) -> None:
    """The first signal asks for an orderly end, the second for an end; so does the first one of a boot."""
    asked = False
    async for number in signals:
        if number == signal.SIGHUP:
            tell(
                options.log_format, "several workers do not read the configuration again; restart the server"
            )
            continue
        close_all(listeners)  # the workers have their own, for as long as they accept connections
        if supervisor.serving and not asked:
            tell(options.log_format, "trio-agent is shutting down; a second signal ends it at once")
        supervisor.stop(at_once=asked or not supervisor.serving)
        asked = True
