"""What several commands share: finding the configuration, and where logs go."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from trio_agent.config.load import Draft, load_draft
from trio_agent.config.problems import ConfigProblem

F = TypeVar("F", bound=Callable[..., Any])

LEVELS = ("debug", "info", "warning", "error")


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


def read_draft(path: Path | None) -> Draft:
    """The same with its problems, for a command that goes on to look for more."""
    if path is not None:
        return load_draft(path, os.environ)
    problem = ConfigProblem(
        "config_unreadable",
        "",
        "no configuration was given",
        expected="a JSON file",
        remedy="pass --config PATH or set TRIO_AGENT_CONFIG; the smallest file is "
        '{"providers": {"replay": {}}}',
    )
    return Draft(None, (problem,))


def log_to_stderr(level: str) -> None:
    """Send the program's log to standard error, one line an entry."""
    logging.basicConfig(
        stream=sys.stderr, level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # Their chatter repeats what the turn's own line says.
    for noisy in ("httpx", "hypercorn", "quart"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
