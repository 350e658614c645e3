"""`trio-agent serve status | stop | restart | reload`: looks after the server that runs under the home."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import click
import msgspec
import trio

from trio_agent.cli.json_output import json_text
from trio_agent.cli.progress import progress
from trio_agent.cli.server_status import ServerStatus, find_status
from trio_agent.cli.signalling import NotEndedError, ask_to_reload, end_server
from trio_agent.config.home import resolve_home
from trio_agent.server.claim import Held
from trio_agent.server.state_file import explain

T = TypeVar("T")

STATUS_TIMEOUT: Final = 5.0
STOP_TIMEOUT: Final = 5.0
RELOAD_TIMEOUT: Final = 60.0
_SECONDS: Final = click.FloatRange(min=0, max=86_400)


def _examples(*lines: str) -> str:
    shown = "\n".join(f"  trio-agent serve {line}" for line in lines)
    return f"\b\nExamples:\n{shown}\n"


def _home() -> Path:
    return resolve_home(os.environ)


def _run(work: Callable[[], Awaitable[T]]) -> T:
    """Run it; a home that cannot be looked into is the command's failure."""
    try:
        return trio.run(work)
    except OSError as error:
        raise click.ClickException(explain(error, _home())) from None


@click.command("status", epilog=_examples("status", "status --json"))
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option(
    "--timeout",
    type=_SECONDS,
    default=STATUS_TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="For the server to answer.",
)
def status_server(as_json: bool, timeout: float) -> None:
    """Tell whether the server of this home runs, and answers. Exits with 0 only if it does.

    It asks for the models, with the server's own key. What a killed server has left behind is removed.
    """
    found = _run(partial(find_status, _home(), within=timeout, now=time.time()))
    click.echo(_json(found) if as_json else _shown(found))
    if not found.healthy:
        sys.exit(1)


def _json(found: ServerStatus) -> str:
    # It names the home, whose name need not be text.
    message = found.message.encode(errors="backslashreplace").decode()
    return json_text(msgspec.structs.replace(found, message=message), indent=-1)


def _shown(found: ServerStatus) -> str:
    lines = [found.message]
    if found.uptime_seconds is not None:
        lines.append(f"  up for: {_duration(found.uptime_seconds)}")
        providers = ", ".join(f"{name} {count}" for name, count in (found.providers or {}).items())
        lines.append(f"  models: {found.models} ({providers})")
        lines.append(f"  configuration: {found.config}")
        lines.append(f"  version: {found.version}")
    if found.workspace is not None:
        lines.append(f"  workspace: {found.workspace}")
    if found.workers:
        lines.append(f"  workers: {', '.join(map(str, found.workers))}")
    if found.reload is not None:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found.reload.at))
        lines.append(f"  last reload: {when}, " + ("in force" if found.reload.ok else "refused:"))
        lines += [f"    {line}" for block in found.reload.problems for line in block.splitlines()]
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((index for index, (number, _) in enumerate(parts) if number), len(parts) - 1)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2])


@click.command("stop", epilog=_examples("stop", "stop --timeout 30 --force"))
@click.option(
    "--timeout",
    type=_SECONDS,
    default=STOP_TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for its orderly end.",
)
@click.option("--force", is_flag=True, help="Kill it when that time is over.")
def stop_server(timeout: float, force: bool) -> None:
    """End the server of this home, and wait until it has ended.

    It lets running turns finish first, for up to `server.shutdown_grace` seconds. If none runs, all is well.
    """
    home = _home()
    try:
        with progress() as line:
            found = _run(partial(end_server, home, within=timeout, force=force, say=line.say))
    except NotEndedError as error:
        raise click.ClickException(_still_there(error.held, timeout)) from None
    if isinstance(found, Held):
        click.echo(f"the server{_process(found)} has ended", err=True)
    else:
        click.echo(f"no server runs under {home}", err=True)


def _process(found: Held) -> str:
    return "" if found.holder is None else f", process {found.holder.pid},"


def _still_there(held: Held, timeout: float) -> str:
    limit = "" if held.state is None else f", which may take {held.state.shutdown_limit:g} s"
    return (
        f"the server{_process(held)} still lets running turns finish after {timeout:g} s{limit}; wait with a "
        "longer --timeout, or end it at once with --force"
    )


@click.command("restart", epilog=_examples("restart", "restart --timeout 120"))
@click.option(
    "--timeout",
    type=_SECONDS,
    metavar="SECONDS",
    help="For the old one to end, and again for the new one to answer. Without it: as long as running turns "
    "may take, and 60.",
)
def restart_server(timeout: float | None) -> None:
    """End the server of this home, and start it again in the background with the same options.

    What it would serve is tried first, with this shell's variables: with a problem, nothing is ended. The new
    server writes its log to `state/serve.log` in the home. A server that was killed is started again too.
    """
    from trio_agent.cli.restarting import restart_server as restart

    home = _home()
    with progress() as line:
        done = _run(partial(restart, home, within=timeout, env=os.environ, say=line.say))
    before = "" if done.ended is None else f"; process {done.ended} has ended"
    click.echo(f"the server, process {done.pid}, serves on {done.url}{before}", err=True)


@click.command("reload", epilog=_examples("reload"))
@click.option(
    "--timeout",
    type=_SECONDS,
    default=RELOAD_TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="For the server to read it, and to try its providers.",
)
def reload_server(timeout: float) -> None:
    """Have the server of this home read its configuration again, all or nothing.

    A configuration with problems changes nothing: they are printed, and the server goes on as before.
    """
    home = _home()
    with progress() as line:
        line.say("waiting for the server to read its configuration")
        result = _run(partial(ask_to_reload, home, within=timeout))
    if result is None:
        raise click.ClickException(f"no server runs under {home}")
    if not result.ok:
        click.echo("\n\n".join(result.problems), err=True)
        raise click.ClickException(
            "the configuration was refused; the server goes on with the one that it had"
        )
    click.echo("the configuration has been read again", err=True)
