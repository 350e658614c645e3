"""Groups of commands that import one when it is called, and none to list them: start-up time is felt."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import click

from trio_agent.cli.examples import share_examples

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class LazyGroup(click.Group):
    """A group whose commands are known by name before they are imported.

    Attributes:
        path: how the group is called, such as `trio-agent serve`.
        lines: each command with its line of help.
    """

    path: ClassVar[str]
    lines: ClassVar[Mapping[str, str]]

    @abstractmethod
    def load(self, name: str) -> click.Command:
        """Import the command of this name, one of `lines`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.lines)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lines:
            return None
        command = self.load(cmd_name)
        share_examples(self.epilog, command, f"{self.path} {cmd_name}")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self.lines and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"there is no command {name!r}{self._near(name)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self.lines.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What may follow. Click's own would import every command for its line of help."""
        from click.shell_completion import CompletionItem

        names = [name for name in self.lines if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [*(CompletionItem(name, help=self.lines[name]) for name in names), *options]

    def _near(self, name: str) -> str:
        import difflib

        found = difflib.get_close_matches(name, self.lines, n=1)
        return f"; did you mean {found[0]!r}?" if found else f"; there are {', '.join(self.lines)}"
