"""The command `trio-agent`: imports the one sub-command that is called and turns failures into exit codes.

Exit codes: 0 fine, 1 the thing asked for failed, 2 wrong usage or wrong configuration, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click

from trio_agent import __version__
from trio_agent.config.problems import ConfigError, render_problems
from trio_agent.errors import AgentError

COMMANDS: Final[Mapping[str, str]] = {
    "serve": "Serve turns over HTTP.",
    "run": "Run one turn on the terminal.",
    "models": "List the models that each provider serves.",
    "provider": "Check a provider plug-in.",
    "auth": "Keep, list and remove the keys of providers.",
    "config": "Check a configuration.",
    "replay": "Replay recorded turns, and compare.",
    "machine": "Print the turn's state machine.",
}
"""Each command with its line of help. The command `x` is the object `x` in the module `trio_agent.cli.x`."""


class LazyGroup(click.Group):
    """A group that imports a command when it is called, and none to list them: start-up time is felt."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(f"{__name__}.{cmd_name}"), cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{__name__}.{cmd_name}.{cmd_name} is not a command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            ctx.fail(f"there is no command {name!r}{_near(name)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (ConfigError, AgentError, BrokenPipeError, KeyboardInterrupt, BaseExceptionGroup) as error:
            ctx.exit(exit_code_of(error))


def exit_code_of(error: BaseException) -> int:
    """Tell a failure on standard error and return the exit code. What it does not know, it raises.

    A nursery wraps what fails inside it in exception groups, and several tasks may fail at once: an
    interrupt then counts before all else, and every configuration problem is told.
    """
    leaves = list(_leaves(error))
    if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
        click.echo(err=True)
        return 130
    for leaf in leaves:
        if isinstance(leaf, (click.exceptions.Exit, click.ClickException, click.Abort)):
            raise leaf
        if not isinstance(leaf, (ConfigError, AgentError, BrokenPipeError)):
            raise error
    problems = [problem for leaf in leaves if isinstance(leaf, ConfigError) for problem in leaf.problems]
    if problems:
        click.echo(render_problems(problems), err=True)
        return 2
    for leaf in leaves:
        if isinstance(leaf, AgentError):
            click.echo(f"{leaf.message} [{leaf.shown_code}]", err=True)
    if any(isinstance(leaf, BrokenPipeError) for leaf in leaves):
        _drop_output()
    return 1


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _drop_output() -> None:
    """Nobody reads standard output any more; without this the interpreter's last flush would complain."""
    with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("w") as devnull:
        os.dup2(devnull.fileno(), sys.stdout.fileno())


def _near(name: str) -> str:
    import difflib

    found = difflib.get_close_matches(name, COMMANDS, n=1)
    return f"; did you mean {found[0]!r}?" if found else f"; there are {', '.join(COMMANDS)}"


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="trio-agent", message="%(prog)s %(version)s")
def main() -> None:
    """A self-hosted LLM agent server: every turn is one nursery and one explicit state machine."""
