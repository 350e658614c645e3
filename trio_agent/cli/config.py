"""`trio-agent config check`: is this configuration right, and what does it come to?"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

import click
import msgspec

from trio_agent.cli.unbooted import unbooted_problems
from trio_agent.config.json_schema import config_schema
from trio_agent.config.load import load_draft
from trio_agent.config.mask import masked
from trio_agent.config.problems import ConfigError
from trio_agent.providers.module_settings import MEANINGS, SETTINGS

_EXAMPLES: Final = """\b
Examples:
  trio-agent config check --config host_config.json
  trio-agent config check --config host_config.json --json
  trio-agent config schema > host_config.schema.json
"""


@click.group(epilog=_EXAMPLES)
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

    Finds what can be known without starting anything, the settings of the modules that ship included:
    `serve` also tries the providers, tools, store and address. Exits with 2 if anything is wrong.
    """
    draft = load_draft(path, os.environ)
    try:
        found = draft.with_problems(unbooted_problems(draft)).whole()
    except ConfigError as error:
        if not as_json:
            raise
        _print({"valid": False, "problems": msgspec.to_builtins(error.problems), "config": None})
        ctx.exit(2)
    shown = masked(found)
    _print({"valid": True, "problems": [], "config": shown} if as_json else shown)
    click.echo(f"{path}: all is well", err=True)


@config.command()
def schema() -> None:
    """Print the JSON Schema of a configuration, for editors that complete and check with it.

    It is of the draft 2020-12, and has every key with its type, range, default, unit and meaning, those of
    the modules that ship included. It refuses nothing that `config check` accepts.
    """
    click.echo(json.dumps(config_schema(SETTINGS, MEANINGS), indent=2, ensure_ascii=False))


def _print(value: object) -> None:
    click.echo(json.dumps(value, indent=2))
