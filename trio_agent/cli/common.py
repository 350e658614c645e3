"""What several commands share: finding the configuration, and where logs go."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import click

from trio_agent.cli.terminal import is_terminal, wants_colours
from trio_agent.config.load import Draft, load_draft
from trio_agent.config.problems import ConfigError, ConfigProblem, render_problems
from trio_agent.observing.formats import JsonFormatter, TextFormatter

F = TypeVar("F", bound=Callable[..., Any])

LEVELS = ("debug", "info", "warning", "error")
LogFormat: TypeAlias = Literal["auto", "text", "json"]
FORMATS: tuple[LogFormat, ...] = get_args(LogFormat)
SHUTTING_DOWN = "trio-agent is shutting down; a second signal ends it at once"
NOT_RELOADING = "trio-agent is shutting down; the configuration is not read again"


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


def read_draft(path: Path | None, env: Mapping[str, str] = os.environ) -> Draft:
    """The same with its problems, for a command that goes on to look for more."""
    if path is not None:
        return load_draft(path, env)
    problem = ConfigProblem(
        "config_unreadable",
        "",
        "no configuration was given",
        expected="a JSON file",
        remedy="pass --config PATH or set TRIO_AGENT_CONFIG; the smallest file is "
        '{"providers": {"replay": {}}}',
    )
    return Draft(None, (problem,))


def log_to_stderr(
    level: str, form: LogFormat = "text", *, worker: str | None = None, turns: bool = True
) -> None:
    """Send the program's log to standard error, one line an entry.

    Args:
        form: `text` for people, `json` for programs; `auto` is text on a terminal, else JSON.
        worker: names this process among those that serve together.
        turns: whether turns have their entries; a command that runs one tells of it by itself.
    """
    handler = logging.StreamHandler(sys.stderr)
    if writes_json(form):
        handler.setFormatter(JsonFormatter(worker=worker))
    else:
        handler.setFormatter(TextFormatter(colour=wants_colours() and is_terminal(sys.stderr), worker=worker))
    if not turns:
        handler.addFilter(lambda record: record.name != "trio_agent.turn")
    logging.basicConfig(handlers=[handler], level=level.upper())
    logging.captureWarnings(True)
    # Their chatter repeats what the turn's own line says.
    for noisy in ("httpx", "hypercorn", "quart"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Of a collector that is away it would speak with each batch; `trio_agent.telemetry` says it once.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)


def writes_json(form: LogFormat) -> bool:
    """Whether the log is JSON, in this form and with this standard error."""
    return form == "json" or (form == "auto" and not is_terminal(sys.stderr))


def tell(form: LogFormat, text: str, *, level: int = logging.INFO) -> None:
    """Say on standard error what is said whatever the log's level is, in the form of the log."""
    if not writes_json(form):
        click.echo(text, err=True)
        return
    said = logging.getLogger("trio_agent.serve")
    record = said.makeRecord(said.name, level, "", 0, text, (), None)
    for handler in logging.getLogger().handlers:
        handler.handle(record)


def tell_reloaded(form: LogFormat, changed: str) -> None:
    """Say that the configuration in force is another one."""
    tell(form, f"configuration reloaded: {changed}")


def tell_refused(form: LogFormat, error: ConfigError) -> None:
    """Say that the configuration in force stays, and why the other one was refused."""
    tell(
        form,
        f"configuration not reloaded, the one before stays in force:\n\n{render_problems(error.problems)}",
        level=logging.ERROR,
    )


def unforeseen(error: Exception) -> ConfigError:
    """The refusal of a configuration that could not be tried, whatever a plug-in or a disk has done to it."""
    what = f"trying it failed in a way that nobody has foreseen ({type(error).__name__})"
    remedy = "look into the log; the configuration before is in force"
    return ConfigError([ConfigProblem("reload_failed", "", what, remedy=remedy)])
