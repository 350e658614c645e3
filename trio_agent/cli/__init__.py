"""The command `trio-agent`: imports the one sub-command that is called, and makes failures exit codes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from itertools import takewhile
from typing import Any, Final

import click

from trio_agent import __version__
from trio_agent.cli.groups import LazyGroup
from trio_agent.cli.standard_streams import open_missing
from trio_agent.cli.terminal import wants_colours

COMMANDS: Final[Mapping[str, str]] = {
    "serve": "Serve turns over HTTP.",
    "run": "Run one turn on the terminal.",
    "models": "List the models that each provider serves.",
    "provider": "Check a provider plug-in.",
    "auth": "Keep, list and remove the keys of providers.",
    "config": "Check a configuration.",
    "doctor": "Look at all that a server needs, and say what to do.",
    "turns": "Look at what turns did.",
    "audit": "List what was done to the server.",
    "replay": "Replay recorded turns, and compare.",
    "machine": "Print the turn's state machine.",
    "completion": "Print a shell's completion script.",
}
"""Each command with its line of help. The command `x` is the object `x` in the module `trio_agent.cli.x`."""


_AS_JSON: Final = f"{__name__}.as_json"


class Program(LazyGroup):
    """The command itself: failures become exit codes here, and are told."""

    path = "trio-agent"
    lines = COMMANDS

    def load(self, name: str) -> click.Command:
        command = getattr(importlib.import_module(f"{__name__}.{name}"), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{__name__}.{name}.{name} is not a command")
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_AS_JSON] = "--json" in takewhile(lambda word: word != "--", args)
        if not wants_colours():
            ctx.color = False
        return super().parse_args(ctx, args)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        open_missing()
        try:
            return super().main(*args, **kwargs)
        except OSError as error:  # help and the version are printed before there is anything to invoke
            from trio_agent.cli.failures import is_unwritten, tell_unwritten

            if not is_unwritten(error):
                raise
            tell_unwritten(error)
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort):
            raise
        except (Exception, KeyboardInterrupt, BaseExceptionGroup) as error:  # noqa: BLE001 - told, or raised
            from trio_agent.cli.failures import exit_code_of

            ctx.exit(exit_code_of(error, as_json=ctx.meta[_AS_JSON]))


_EXAMPLES: Final = """\b
Examples:
  trio-agent serve --config host_config.json
  trio-agent run --config host_config.json "Why is the sky blue?"
  trio-agent COMMAND --help
"""


@click.group(cls=Program, epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="trio-agent", message="%(prog)s %(version)s")
def main() -> None:
    """A self-hosted LLM agent server: every turn is one nursery and one explicit state machine."""
