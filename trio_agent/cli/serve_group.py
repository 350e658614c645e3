"""`serve` is a command and a group: alone it serves, with a word behind it it looks after the server."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Final

import click
from click.core import ParameterSource

from trio_agent.cli.groups import LazyGroup

SYNONYM: Final = "chat-completions"
"""`serve chat-completions` is `serve`: every face is served on the one port."""
BELOW: Final[Mapping[str, str]] = {
    "status": "Tell whether the server runs, and answers.",
    "stop": "End the server in order, or by force.",
    "restart": "End the server, and start it again in the background.",
    "reload": "Have the server read its configuration again.",
}
"""Each command below `serve` with its line of help: `x` is `x_server` in `trio_agent.cli.lifecycle`."""


class ServeGroup(LazyGroup):
    """Serves if no command is named. What the commands need is imported when one of them is called."""

    path = "trio-agent serve"
    lines = BELOW

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        _, rest, _ = self.make_parser(ctx).parse_args(list(args))
        if rest and rest[0] == SYNONYM:
            # What stands behind it are the options of `serve`.
            args = [*args[: len(args) - len(rest)], *rest[1:]]
        return super().parse_args(ctx, args)

    def load(self, name: str) -> click.Command:
        command = getattr(importlib.import_module("trio_agent.cli.lifecycle"), f"{name}_server")
        if not isinstance(command, click.Command):
            raise TypeError(f"trio_agent.cli.lifecycle.{name}_server is not a command")
        return command


def refuse_options(ctx: click.Context) -> None:
    """Options of `serve` before one of its commands would be read and ignored.

    Raises:
        click.UsageError: there is one.
    """
    for parameter in ctx.command.params:
        if parameter.name and ctx.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"{parameter.opts[0]} is for `serve` alone; `serve {ctx.invoked_subcommand}` looks after the "
                "server that runs already"
            )


__all__ = ["ServeGroup", "refuse_options"]
