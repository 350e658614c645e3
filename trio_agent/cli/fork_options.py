"""The options of `trio-agent replay` that fork a turn. Apart from what forks, which takes long to import."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from trio_agent.cli.common import config_option

F = TypeVar("F", bound=Callable[..., Any])


def fork_options(function: F) -> F:
    """The options of a fork. `--config` may come from the environment; it is read for a fork only."""
    for decorate in (
        click.option(
            "--record",
            "record",
            metavar="DIR",
            type=click.Path(file_okay=False, path_type=Path),
            help="With --from or --against: write each forked turn into this folder, as a recording.",
        ),
        click.option(
            "--times",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            help="With --from or --against: fork this often, one after the other.",
        ),
        config_option,
        click.option(
            "--against",
            metavar="MODEL",
            help="Fork: the model that goes on, as the configuration names it. "
            "By default the recorded one, if the configuration has it.",
        ),
        click.option(
            "--from",
            "line",
            metavar="N",
            type=click.IntRange(min=1),
            help="Fork: play up to line N of the file and go on live. Inside a model's answer, that call is "
            "made anew. By default, the first model call.",
        ),
    ):
        function = decorate(function)
    return function


def is_fork(options: Mapping[str, Any]) -> bool:
    """Whether a turn is to be forked. Raises click.UsageError for options that only a fork has."""
    if options["line"] is not None or options["against"] is not None:
        return True
    # The variable may be set for other commands; only the option says that a fork is meant.
    source = click.get_current_context().get_parameter_source("config_path")
    for name, given in (
        ("--times", options["times"] != 1),
        ("--record", options["record"] is not None),
        ("--config", source is ParameterSource.COMMANDLINE),
    ):
        if given:
            raise click.UsageError(f"{name} goes with --from or --against")
    return False
