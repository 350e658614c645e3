"""The command `trio-agent`: imports the one sub-command that is called, and makes failures exit codes."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

import click

from trio_agent import __version__
from trio_agent.cli.examples import share_examples
from trio_agent.cli.terminal import wants_colours

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS: Final[Mapping[str, str]] = {
    "serve": "Serve turns over HTTP.",
    "run": "Run one turn on the terminal.",
    "models": "List the models that each provider serves.",
    "provider": "Check a provider plug-in.",
    "auth": "Keep, list and remove the keys of providers.",
    "config": "Check a configuration.",
    "turns": "Look at what turns did.",
    "audit": "List what was done to the server.",
    "replay": "Replay recorded turns, and compare.",
    "machine": "Print the turn's state machine.",
    "completion": "Print a shell's completion script.",
}
"""Each command with its line of help. The command `x` is the object `x` in the module `trio_agent.cli.x`."""


_AS_JSON: Final = f"{__name__}.as_json"


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
        if isinstance(command, click.Group):
            share_examples(command, f"trio-agent {cmd_name}")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"there is no command {name!r}{_near(name)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What may follow. Click's own would import every command for its line of help."""
        from click.shell_completion import CompletionItem

        names = [name for name in COMMANDS if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [*(CompletionItem(name, help=COMMANDS[name]) for name in names), *options]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_AS_JSON] = "--json" in takewhile(lambda word: word != "--", args)
        if not wants_colours():
            ctx.color = False
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort):
            raise
        except (Exception, KeyboardInterrupt, BaseExceptionGroup) as error:  # noqa: BLE001 - told, or raised
            from trio_agent.cli.failures import exit_code_of

            ctx.exit(exit_code_of(error, as_json=ctx.meta[_AS_JSON]))


def _near(name: str) -> str:
    import difflib

    found = difflib.get_close_matches(name, COMMANDS, n=1)
    return f"; did you mean {found[0]!r}?" if found else f"; there are {', '.join(COMMANDS)}"


_EXAMPLES: Final = """\b
Examples:
  trio-agent serve --config host_config.json
  trio-agent run --config host_config.json "Why is the sky blue?"
  trio-agent COMMAND --help
"""


@click.group(cls=LazyGroup, epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="trio-agent", message="%(prog)s %(version)s")
def main() -> None:
    """A self-hosted LLM agent server: every turn is one nursery and one explicit state machine."""
