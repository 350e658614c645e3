"""`trio-agent config check`: is this configuration right, and what does it come to?"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from trio_agent.config.json_schema import config_schema
from trio_agent.config.load import Draft, load_draft
from trio_agent.config.mask import masked
from trio_agent.config.problems import ConfigError, ConfigProblem, KeyPath, render_path
from trio_agent.config.schema import Config
from trio_agent.providers.module_settings import MEANINGS, SETTINGS, settings_problem
from trio_agent.providers.modules import ProviderModuleError, find_mount, installed_modules

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
        found = draft.with_problems([*_unknown_modules(draft), *_wrong_settings(draft)]).whole()
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


def _declared(config: Config | None) -> list[tuple[KeyPath, str, Mapping[str, Any]]]:
    """Each provider's place, module and settings."""
    if config is None:
        return []
    declared: list[tuple[KeyPath, str, Mapping[str, Any]]] = [
        (("providers", name), each.module, each.config) for name, each in config.providers.items()
    ]
    if config.provider is not None:
        declared.append((("provider",), config.provider.module, config.provider.config))
    return declared


def _wrong_settings(draft: Draft) -> list[ConfigProblem]:
    """What is wrong with settings of modules that ship, with the code that `serve` would give it."""
    return [
        ConfigProblem(
            "provider_unusable", f"{render_path(path)}.{error.path}", error.message, remedy=error.remedy
        )
        for path, module, settings in _declared(draft.config)
        if (error := settings_problem(module, settings))
    ]


def _unknown_modules(draft: Draft) -> list[ConfigProblem]:
    """The modules that no distribution declares and that cannot be imported either. Imports none that can."""
    installed = installed_modules()
    problems: list[ConfigProblem] = []
    for path, name, _ in _declared(draft.config):
        if name in installed or _is_importable(name):
            continue
        try:
            find_mount(name, installed)
        except ProviderModuleError as error:
            where = render_path((*path, "module"))
            problems.append(
                ConfigProblem("config_invalid_provider_module", where, error.message, remedy=error.remedy)
            )
    return problems


def _is_importable(name: str) -> bool:
    """Whether there is a package that could hold the module; to look further would run its code."""
    package = re.split("[.:]", name, maxsplit=1)[0]
    try:
        return package.isidentifier() and importlib.util.find_spec(package) is not None
    except ValueError:  # a module without a specification, such as `__main__`
        return True


def _print(value: object) -> None:
    click.echo(json.dumps(value, indent=2))
