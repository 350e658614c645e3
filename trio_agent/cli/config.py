"""`trio-agent config check`: is this configuration right, and what does it come to?"""

from __future__ import annotations

import json
import os
from pathlib import Path

import click
import msgspec

from trio_agent.config.load import load_config
from trio_agent.config.mask import masked
from trio_agent.config.problems import ConfigError


@click.group()
def config() -> None:
    """Work with a configuration file."""


@config.command()
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    envvar="TRIO_AGENT_CONFIG",
    show_envvar=True,
    required=True,
    help="The file to check.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
@click.pass_context
def check(ctx: click.Context, path: Path, as_json: bool) -> None:
    """Check a configuration and print it with every default filled in and secrets masked.

    Finds everything that can be known without starting a provider. Exits with 2 if anything is wrong.
    """
    try:
        found = load_config(path, os.environ)
    except ConfigError as error:
        if not as_json:
            raise
        _print({"valid": False, "problems": msgspec.to_builtins(error.problems), "config": None})
        ctx.exit(2)
    shown = masked(found)
    _print({"valid": True, "problems": [], "config": shown} if as_json else shown)
    click.echo(f"{path}: all is well", err=True)


def _print(value: object) -> None:
    click.echo(json.dumps(value, indent=2))
