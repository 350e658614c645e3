"""`trio-agent serve`: the HTTP faces on one port, until interrupted."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import trio
from click.core import ParameterSource

from trio_agent.cli.common import bind_option, config_option, port_option, record_option, workspace_option
from trio_agent.cli.own_command import begin_without_key
from trio_agent.cli.serve_group import ServeGroup, refuse_options
from trio_agent.cli.telling import (
    FORMATS,
    LEVELS,
    NOT_RELOADING,
    SHUTTING_DOWN,
    log_to_stderr,
    tell,
)
from trio_agent.cli.unhurried_log import keep_flushing
from trio_agent.cli.wanted import Wanted
from trio_agent.nursery import open_plain_nursery
from trio_agent.server.options import LogFormat, ServeOptions

if TYPE_CHECKING:
    from trio_agent.agent import Agent

_EXAMPLES: Final = """\b
Examples:
  trio-agent serve --config host_config.json
  trio-agent serve --config host_config.json --port 8080 --record recordings
  trio-agent serve --config host_config.json --workers 4
  trio-agent serve status --json
  trio-agent serve stop --timeout 30
  trio-agent serve reload
"""


@click.group(cls=ServeGroup, invoke_without_command=True, epilog=_EXAMPLES)
@config_option
@bind_option("The address to listen on. One that other machines reach needs a key.")
@port_option("0 takes a free one.", least=0)
@click.option(
    "--api-key",
    envvar="TRIO_AGENT_API_KEY",
    show_envvar=True,
    help="The key that callers must bring. Prefer the variable: command lines can be read by others.",
)
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(LEVELS),
    envvar="TRIO_AGENT_LOG_LEVEL",
    show_envvar=True,
    help="How much is said; a turn's own line is info, or warning where it failed.",
)
@click.option(
    "--log-format",
    default="auto",
    show_default=True,
    type=click.Choice(FORMATS),
    envvar="TRIO_AGENT_LOG_FORMAT",
    show_envvar=True,
    help="auto is text on a terminal, and one JSON object a line elsewhere.",
)
@record_option
@workspace_option
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    envvar="TRIO_AGENT_WORKERS",
    show_envvar=True,
    help="How many processes serve the one address.",
)
@click.pass_context
def serve(
    context: click.Context,
    config_path: Path | None,
    bind: str,
    port: int,
    api_key: str | None,
    log_level: str,
    log_format: LogFormat,
    record: Path | None,
    workspace: str | None,
    workers: int,
) -> None:
    """Serve turns over HTTP until interrupted.

    The first SIGTERM or SIGINT lets running turns finish (server.shutdown_grace); a second one ends them
    at once. SIGHUP reads the configuration again: all of it, or nothing. `serve chat-completions` is the
    same as `serve`.

    The commands below look after the server that runs under this home (TRIO_AGENT_HOME).
    """
    if context.invoked_subcommand is not None:
        refuse_options(context)
        return
    if api_key == "":
        raise click.UsageError("--api-key is empty; leave it out to serve this machine without a key")
    if api_key is not None and context.get_parameter_source("api_key") is ParameterSource.COMMANDLINE:
        begin_without_key(api_key)
    log_to_stderr(log_level, log_format)
    _noted("the folder that this was started in", Path())
    options = ServeOptions(
        config=None if config_path is None else _noted("--config", config_path),
        bind=bind,
        port=port,
        api_key=api_key,
        log_level=log_level,
        log_format=log_format,
        record=None if record is None else _noted("--record", record),
        workspace=workspace,
        workers=workers,
    )
    trio.run(_serve, options)


def _noted(what: str, path: Path) -> str:
    """A path as the state file has it, which is JSON, and from which `serve restart` starts it again."""
    try:
        text = str(path.absolute())
        text.encode()
    except UnicodeEncodeError:
        raise click.UsageError(f"{what} has a name that is not UTF-8 text: rename it") from None
    except FileNotFoundError:
        raise click.UsageError("the folder that this was started in is not there any more") from None
    return text


class _Asked:
    """What signals have asked for; before there is an `agent`, nothing has begun."""

    def __init__(self, wanted: Wanted) -> None:
        self.shutdown = trio.Event()
        self.wanted = wanted
        self.agent: Agent | None = None

    def begin(self, agent: Agent) -> None:
        self.agent = agent


async def _serve(options: ServeOptions) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with open_plain_nursery() as nursery:
            nursery.start_soon(keep_flushing)
            if options.workers > 1:
                from trio_agent.cli.supervising import supervise

                await supervise(options, signals)
            else:
                await _serve_here(options, signals)
            nursery.cancel_scope.cancel()


async def _serve_here(options: ServeOptions, signals: AsyncIterator[int]) -> None:
    # Importing the server takes most of the start. A signal must find the receiver all that time.
    from trio_agent.cli.serving import serve_config

    asked = _Asked(Wanted())
    async with open_plain_nursery() as nursery:
        nursery.start_soon(_watch, options, signals, asked, nursery.cancel_scope)
        await serve_config(options, shutdown=asked.shutdown, wanted=asked.wanted, on_serving=asked.begin)
        nursery.cancel_scope.cancel()


async def _watch(
    options: ServeOptions, signals: AsyncIterator[int], asked: _Asked, scope: trio.CancelScope
) -> None:
    """The first signal asks for an orderly end, the second for an end; so does the first one of a boot.

    SIGHUP asks for the configuration to be read again, and ends nothing, at no time.
    """
    async for number in signals:
        if number == signal.SIGHUP:
            if asked.shutdown.is_set():
                tell(options.log_format, NOT_RELOADING)
            else:
                asked.wanted.ask()
            continue
        if asked.agent is None or asked.shutdown.is_set():
            if asked.agent is not None:
                asked.agent.end_as("shutdown")
            scope.cancel()
            return
        tell(options.log_format, SHUTTING_DOWN)
        asked.shutdown.set()
