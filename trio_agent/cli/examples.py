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


def share_examples(group: click.Group, path: str) -> None:
    """Give each command below a group those of the group's examples that use it, unless it has its own.

    Args:
        group: the group; groups below it are looked into as well.
        path: how it is called, such as `trio-agent auth`.
    """
    lines = lines_of(group.epilog)
    for name, command in group.commands.items():
        called = re.compile(rf"\b{re.escape(f'{path} {name}')}(?![\w-])")
        if command.epilog is None:
            command.epilog = _as_epilog(line for line in lines if called.search(line))
        if isinstance(command, click.Group):
            share_examples(command, f"{path} {name}")


def _as_epilog(lines: Iterable[str]) -> str | None:
    shown = "\n".join(f"  {line}" for line in lines)
    return f"\b\n{_HEAD}\n{shown}\n" if shown else None
