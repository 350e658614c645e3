"""The log of a command, and what is told beside it whatever its level is."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import get_args

import click

from trio_agent.cli.terminal import is_terminal, wants_colours
from trio_agent.cli.unhurried_log import UnhurriedHandler, unhurried
from trio_agent.config.problems import ConfigError, ConfigProblem, render_problems
from trio_agent.observing.formats import JsonFormatter, TextFormatter
from trio_agent.server.options import LogFormat

LEVELS = ("debug", "info", "warning", "error")
FORMATS: tuple[LogFormat, ...] = get_args(LogFormat)
SHUTTING_DOWN = "trio-agent is shutting down; a second signal ends it at once"
NOT_RELOADING = "trio-agent is shutting down; the configuration is not read again"


def log_to_stderr(
    level: str, form: LogFormat = "text", *, worker: str | None = None, turns: bool = True
) -> None:
    """Send the program's log to standard error, one line an entry.

    Args:
        form: `text` for people, `json` for programs, or `auto`.
        worker: names this process among those that serve together.
        turns: whether turns have their entries; a command that runs one tells of it by itself.
    """
    handler = unhurried(sys.stderr) or logging.StreamHandler(sys.stderr)
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
    handlers = logging.getLogger().handlers
    unhurried_ones = [each for each in handlers if isinstance(each, UnhurriedHandler)]
    if not writes_json(form):
        if unhurried_ones:
            unhurried_ones[0].say(text)
            return
        # Its reader has gone, its terminal was closed, its disk is full: that ends nothing, as with the log.
        with suppress(OSError):
            click.echo(text, err=True)
        return
    said = logging.getLogger("trio_agent.serve")
    record = said.makeRecord(said.name, level, "", 0, text, (), None)
    for handler in handlers:
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
