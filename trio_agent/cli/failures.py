"""How a command fails: what is told, to whom, and the exit code.

Exit codes: 0 fine, 1 the thing asked for failed, 2 wrong usage or wrong configuration, 130 interrupted.
People read why on standard error. With `--json` a program finds it on standard output, under `error`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click

from trio_agent.cli.terminal import tamed
from trio_agent.config.problems import ConfigError, ConfigProblem, render_problems
from trio_agent.errors import AgentError

_TAKES_NO_MORE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def exit_code_of(error: BaseException, *, as_json: bool = False) -> int:
    """Tell a failure and return the exit code. What it does not know, it raises.

    A nursery wraps what fails inside it in exception groups, and several tasks may fail at once: an
    interrupt then counts before all else, and every configuration problem is told.

    Args:
        error: what came out of the command.
        as_json: tell programs, too.
    """
    leaves = list(_leaves(error))
    if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
        click.echo(err=True)
        return 130
    for leaf in leaves:
        if isinstance(leaf, (click.exceptions.Exit, click.ClickException, click.Abort)):
            if as_json and isinstance(leaf, click.ClickException):
                _tell_programs(_refused(leaf))
            raise leaf
        if not isinstance(leaf, (ConfigError, AgentError, BrokenPipeError)) and not is_unwritten(leaf):
            raise error
    problems = [problem for leaf in leaves if isinstance(leaf, ConfigError) for problem in leaf.problems]
    failures = [leaf for leaf in leaves if isinstance(leaf, AgentError)]
    if problems:
        click.echo(render_problems(problems), err=True)
    else:
        for failure in failures:
            click.echo(tamed(f"{failure.message} [{failure.shown_code}]"), err=True)
    unwritten = [leaf for leaf in leaves if is_unwritten(leaf)]
    if unwritten:
        tell_unwritten(unwritten[0])
    elif any(isinstance(leaf, BrokenPipeError) for leaf in leaves):
        _drop_output()
    elif as_json:
        _tell_programs(_misconfigured(problems) if problems else _failed(failures[0]))
    return 2 if problems else 1


def is_unwritten(error: BaseException) -> bool:
    """Whether this is an output that takes no more. An error about a file would name it."""
    return isinstance(error, OSError) and error.errno in _TAKES_NO_MORE and error.filename is None


def tell_unwritten(error: BaseException) -> None:
    """Tell that the output could not be written; what is left of it is dropped."""
    why = error.strerror if isinstance(error, OSError) else None
    click.echo(f"Error: the output could not be written: {why or error}", err=True)
    _drop_output()


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _refused(error: click.ClickException) -> dict[str, Any]:
    code = "wrong_usage" if isinstance(error, click.UsageError) else "failed"
    return {"code": code, "message": error.format_message()}


def _misconfigured(problems: Sequence[ConfigProblem]) -> dict[str, Any]:
    """As `config check --json` lists them."""
    import msgspec

    text = "The configuration has a problem." if len(problems) == 1 else "The configuration has problems."
    return {"code": "wrong_configuration", "message": text, "problems": msgspec.to_builtins(problems)}


def _failed(failure: AgentError) -> dict[str, Any]:
    return {"code": failure.shown_code, "message": failure.message}


def _tell_programs(error: dict[str, Any]) -> None:
    from trio_agent.cli.json_output import json_text

    try:
        click.echo(json_text({"error": error}))
    except BrokenPipeError:
        _drop_output()


def _drop_output() -> None:
    """Nobody reads standard output any more; without this the interpreter's last flush would complain."""
    with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("w") as devnull:
        os.dup2(devnull.fileno(), sys.stdout.fileno())
