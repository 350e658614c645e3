"""`trio-agent doctor`: whether all that a server needs is there and works, and what to do where not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import click
import msgspec
import trio

from trio_agent.cli.common import bind_option, config_option, port_option, workspace_option
from trio_agent.cli.json_output import json_text
from trio_agent.cli.progress import Progress, progress
from trio_agent.cli.waiting import waiting
from trio_agent.observing.formats import one_line
from trio_agent.world import RealWorld

from .doctoring.finding import Finding, problem

_WORDS: Final = {"ok": "ok", "warning": "WARNING", "problem": "PROBLEM", "skipped": "skipped"}
_COLOURS: Final = {"ok": "green", "warning": "yellow", "problem": "red", "skipped": None}

_EXAMPLES: Final = """\b
Examples:
  trio-agent doctor --config host_config.json
  trio-agent doctor --config host_config.json --json
"""


@click.command(epilog=_EXAMPLES)
@config_option
@workspace_option
@bind_option("The address that a server is to listen on.")
@port_option("The port that a server is to take.")
@click.option(
    "--timeout",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0.1, 300),
    help="Seconds that a provider, or the store, may take.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
@click.pass_context
def doctor(
    ctx: click.Context,
    config_path: Path | None,
    workspace: str | None,
    bind: str,
    port: int,
    timeout: float,
    as_json: bool,
) -> None:
    """Look at all that a server needs, and say what to do where something is wrong.

    Looks at the configuration, keys, providers (each is asked for its models), home, store, server, port,
    limits, clock and environment. A server that runs is not disturbed. Without --config the configuration is
    that of the server which runs under the home.

    Exits with 0 if there is no problem, and with 1 if there is one. Warnings are no problems.
    """
    with progress() as line:
        findings = trio.run(_examine, line, config_path, workspace, bind, port, timeout)
    problems = sum(each.status == "problem" for each in findings)
    if as_json:
        found = {"ok": not problems, "findings": msgspec.to_builtins(findings)}
        click.echo(json_text(found))
    else:
        for text in _lines(findings):
            click.echo(text)
        click.echo(_summary(findings), err=True)
    ctx.exit(1 if problems else 0)


async def _examine(
    line: Progress, config_path: Path | None, workspace: str | None, bind: str, port: int, limit: float
) -> list[Finding]:
    from .doctoring.examine import examine  # it imports nearly all there is
    from .doctoring.premises import find_premises

    look = partial(
        find_premises,
        os.environ,
        config_path=config_path,
        bind=bind,
        port=port,
        workspace=workspace,
        limit=limit,
        now=RealWorld().now(),
    )
    async with waiting(line, "looking at providers, store and machine"):
        with trio.move_on_after(limit) as looking:
            premises, findings = await trio.to_thread.run_sync(look, abandon_on_cancel=True)
        if looking.cancelled_caught:
            found = f"neither it nor the configuration could be read within {limit:g} s"
            return [problem("home", found, "look at the disk that they are on")]
        return [*findings, *await examine(premises, _known_variables())]


def _known_variables() -> set[str]:
    """The environment variables that commands read, by their options, and the home's."""
    from trio_agent.cli import COMMANDS, main

    found = {"TRIO_AGENT_HOME"}
    context = click.Context(main)
    for name in COMMANDS:
        command = main.get_command(context, name)
        for parameter in [] if command is None else command.params:
            named = parameter.envvar
            found |= {named} if isinstance(named, str) else set(named or ())
    return found


def _lines(findings: list[Finding]) -> Iterator[str]:
    width = max(len(each.check) for each in findings)
    for each in findings:
        status = click.style(_WORDS[each.status].ljust(7), fg=_COLOURS[each.status])
        took = "" if each.seconds is None else f" ({each.seconds:.2f} s)"
        yield f"{status}  {each.check.ljust(width)}  {one_line(each.found)}{took}"
        if each.remedy:
            yield f"{'':7}  {'':{width}}  {one_line(each.remedy)}"


def _summary(findings: list[Finding]) -> str:
    counts = {status: sum(each.status == status for each in findings) for status in _WORDS}
    parts = [
        f"{count} {word}{'' if count == 1 else 's'}"
        for word in ("problem", "warning")
        if (count := counts[word])
    ]
    return f"{', '.join(parts) or 'no problems'}; {counts['ok']} of {len(findings)} checks are well"
