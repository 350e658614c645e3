"""What several commands share: options that mean the same everywhere, and reading the configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from trio_agent.config.load import Draft, load_draft
from trio_agent.config.problems import ConfigProblem

F = TypeVar("F", bound=Callable[..., Any])


def config_option(function: F) -> F:
    """`--config PATH`, or the variable; there is no implicit file."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        envvar="TRIO_AGENT_CONFIG",
        show_envvar=True,
        help="The configuration (host_config.json).",
    )(function)


def bind_option(text: str) -> Callable[[F], F]:
    """`--bind HOST`, or the variable, with this line of help."""
    return click.option(
        "--bind",
        metavar="HOST",
        default="127.0.0.1",
        show_default=True,
        envvar="TRIO_AGENT_BIND",
        show_envvar=True,
        help=text,
    )


def port_option(text: str, *, least: int = 1) -> Callable[[F], F]:
    """`--port`, or the variable, with this line of help; `least` is 0 where any free one may be taken."""
    return click.option(
        "--port",
        default=9099,
        show_default=True,
        type=click.IntRange(least, 65535),
        envvar="TRIO_AGENT_PORT",
        show_envvar=True,
        help=text,
    )


def record_option(function: F) -> F:
    """`--record DIR`, or the variable."""
    return click.option(
        "--record",
        "record",
        metavar="DIR",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="TRIO_AGENT_RECORD",
        show_envvar=True,
        help="Record every turn to a file in this folder. The files hold prompts and answers, no keys.",
    )(function)


def workspace_option(function: F) -> F:
    """`--workspace SLUG`, or the variable; `database_path` says what may be one."""
    return click.option(
        "--workspace",
        "workspace",
        metavar="SLUG",
        envvar="TRIO_AGENT_WORKSPACE",
        show_envvar=True,
        help="A database of its own in the home, by this name.",
    )(function)


def read_draft(path: Path | None, env: Mapping[str, str] = os.environ, *, again: bool = False) -> Draft:
    """The same with its problems, for a command that goes on to look for more.

    Args:
        again: whether a server that runs reads it anew.
    """
    if path is not None:
        return load_draft(path, env, again=again)
    problem = ConfigProblem(
        "config_unreadable",
        "",
        "no configuration was given",
        expected="a JSON file",
        remedy="pass --config PATH or set TRIO_AGENT_CONFIG; the smallest file is "
        '{"providers": {"replay": {}}}',
    )
    return Draft(None, (problem,))
