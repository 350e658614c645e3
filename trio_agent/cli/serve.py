"""`trio-agent serve`: the HTTP faces on one port, until interrupted."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import click
import trio

from trio_agent.agent import open_agent
from trio_agent.cli.common import LEVELS, config_option, log_to_stderr, read_config
from trio_agent.config.problems import ConfigError, ConfigProblem
from trio_agent.config.schema import Config
from trio_agent.nursery import open_plain_nursery
from trio_agent.server.app import check_exposure
from trio_agent.server.app import serve as serve_agent
from trio_agent.server.listen import ListenError


@click.command()
@click.argument("face", required=False, type=click.Choice(["chat-completions"]))
@config_option
@click.option("--bind", default="127.0.0.1", show_default=True, envvar="TRIO_AGENT_BIND", show_envvar=True)
@click.option(
    "--port",
    default=9099,
    show_default=True,
    type=click.IntRange(0, 65535),
    envvar="TRIO_AGENT_PORT",
    show_envvar=True,
    help="0 takes a free one.",
)
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
)
def serve(
    face: str | None, config_path: Path | None, bind: str, port: int, api_key: str | None, log_level: str
) -> None:
    """Serve turns over HTTP until interrupted.

    The first SIGTERM or SIGINT lets running turns finish (server.shutdown_grace); a second one ends them
    at once. `serve chat-completions` is the same as `serve`.
    """
    del face  # a synonym: every face is served on the one port
    if api_key == "":
        raise click.UsageError("--api-key is empty; leave it out to serve this machine without a key")
    log_to_stderr(log_level)
    config = read_config(config_path)
    check_exposure(bind, api_key if api_key is not None else config.server.api_key)
    try:
        trio.run(_serve, config, bind, port, api_key)
    except ListenError as error:
        raise ConfigError([ConfigProblem("address_unusable", "--bind, --port", str(error))]) from None


async def _serve(config: Config, bind: str, port: int, api_key: str | None) -> None:
    serving, shutdown = trio.Event(), trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with open_plain_nursery() as nursery:
            nursery.start_soon(_watch, signals, serving, shutdown, nursery.cancel_scope)
            async with open_agent(config) as agent, open_plain_nursery() as inner:
                bound = await inner.start(
                    partial(serve_agent, agent, host=bind, port=port, api_key=api_key, shutdown=shutdown)
                )
                serving.set()
                for address in bound:
                    _announce(address, len(agent.models()))
            nursery.cancel_scope.cancel()


def _announce(address: tuple[str, int], models: int) -> None:
    host, port = address
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"trio-agent serves {models} models on http://{shown}:{port}", err=True)


async def _watch(
    signals: AsyncIterator[int], serving: trio.Event, shutdown: trio.Event, scope: trio.CancelScope
) -> None:
    """The first signal asks for an orderly end, the second for an end; so does the first one of a boot."""
    async for _ in signals:
        if shutdown.is_set() or not serving.is_set():
            scope.cancel()
            return
        click.echo("trio-agent is shutting down; a second signal ends it at once", err=True)
        shutdown.set()
