"""The examples at the end of a command's help. A group has them for the commands below it, too."""

from __future__ import annotations

import re
from collections.abc import Iterable
from inspect import cleandoc

import click

_HEAD = "Examples:"


def lines_of(epilog: str | None) -> list[str]:
    """The examples in an epilog, a line each."""
    lines = (line.strip() for line in cleandoc((epilog or "").replace("\b", "")).splitlines())
    return [line for line in lines if line and line != _HEAD]


def share_examples(epilog: str | None, command: click.Command, path: str) -> None:
    """Give a command those of its group's examples that call it, unless it has its own; so on below it.

    Args:
        epilog: the group's.
        command: the one below it.
        path: how the command is called, such as `trio-agent auth set`.
    """
    if command.epilog is None:
        called = re.compile(rf"\b{re.escape(path)}(?![\w-])")
        command.epilog = _as_epilog(line for line in lines_of(epilog) if called.search(line))
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            share_examples(command.epilog, below, f"{path} {name}")


def _as_epilog(lines: Iterable[str]) -> str | None:
    shown = "\n".join(f"  {line}" for line in lines)
    return f"\b\n{_HEAD}\n{shown}\n" if shown else None
