"""`trio-agent auth`: the keys that providers need, kept where nobody else can read them."""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click

from trio_agent.cli.auth_secret import read_secret
from trio_agent.cli.auth_tables import names_table, names_to_json, sources_table, sources_to_json
from trio_agent.cli.common import config_option, read_draft
from trio_agent.cli.credential_file import CredentialFile
from trio_agent.cli.terminal import is_terminal
from trio_agent.config.home import ensure_home, resolve_home
from trio_agent.config.load import Draft
from trio_agent.config.problems import ConfigError
from trio_agent.config.schema import Config
from trio_agent.providers.credential_source import CredentialSource, source_of
from trio_agent.providers.credentials import Credentials, CredentialsError
from trio_agent.providers.key_names import KEY_USES, modules_reading
from trio_agent.providers.strict_config import nearest

if TYPE_CHECKING:
    from trio_agent.store.audit import AuditKind

F = TypeVar("F", bound=Callable[..., None])

_VARIABLE: Final = re.compile(r"(?=.*(?:_|KEY|TOKEN|SECRET))[A-Z_][A-Z0-9_]{0,63}")
"""Some vendors' keys are capitals and digits as well, but none has such a word in it."""
_AFTER_A_CHANGE: Final = "A server that runs already takes it up with: trio-agent serve reload"

_EXAMPLES: Final = """\b
Examples:
  trio-agent auth set OPENAI_API_KEY
  pass show openai | trio-agent auth set openai
  trio-agent auth list
  trio-agent auth status --config host_config.json
  trio-agent auth remove OPENAI_API_KEY
  trio-agent auth clear --yes
"""


def told(function: F) -> F:
    """A credentials file that cannot be used is told on standard error, with exit code 1."""

    @functools.wraps(function)
    def wrapped(*args: object, **named: object) -> None:
        try:
            function(*args, **named)
        except CredentialsError as error:
            raise click.ClickException(f"{error.message}\n{error.remedy}") from None

    return cast("F", wrapped)


@click.group(epilog=_EXAMPLES)
def auth() -> None:
    """Keep, list and remove the keys of providers.

    A key in the environment goes before one that is kept here, and `config.api_key` before both. The file is
    credentials.json in the home, which only its owner can read. No command shows a key, or a part of one.
    """


@auth.command("set")
@click.argument("name", nargs=-1, metavar="NAME")
@config_option
@told
def set_(name: tuple[str, ...], config_path: Path | None) -> None:
    """Keep a key. It is asked for on a terminal, or read from standard input.

    NAME is the variable that a provider looks for, such as OPENAI_API_KEY, or a provider: the module's name,
    or its id in the configuration. Then the first variable of that module is meant.
    """
    variable = _variable_of(name, config_path)
    file = CredentialFile(ensure_home(resolve_home(os.environ)))
    file.read()  # nobody should type a key for a file that cannot be used
    secret = read_secret(variable)
    replaced = False

    def edit(secrets: dict[str, str]) -> None:
        nonlocal replaced
        replaced = variable in secrets
        secrets[variable] = secret

    file.change(edit)
    click.echo(f"{variable} is {'replaced' if replaced else 'kept'} in {file.path}.", err=True)
    _audit("credential.set", {"name": variable, "replaced": replaced}, config_path)
    for word in _remarks(variable):
        click.echo(word, err=True)
    click.echo(_AFTER_A_CHANGE, err=True)


@auth.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@told
def list_(as_json: bool) -> None:
    """List the keys that are there, by name: where each comes from, and which modules look for it.

    Shown are the keys of the file, and those of the environment that a shipped module looks for.
    """
    stored = CredentialFile(resolve_home(os.environ)).read()
    rows = names_table(os.environ, stored)
    if as_json:
        click.echo(json.dumps(names_to_json(os.environ, stored), indent=2))
    elif rows:
        click.echo("\n".join(rows))
    else:
        click.echo("There are no keys. Keep one with: trio-agent auth set NAME", err=True)


@auth.command()
@click.argument("provider", required=False)
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
@told
def status(ctx: click.Context, provider: str | None, config_path: Path | None, as_json: bool) -> None:
    """Show for each provider whether it has a key, and where that comes from.

    With a configuration these are its providers, else the modules that ship. Exits with 1 if a provider of
    the configuration, or the PROVIDER that was named, lacks a key that it needs.
    """
    config = None if config_path is None else read_draft(config_path).whole()
    credentials = Credentials.open(os.environ, resolve_home(os.environ))
    sources = _sources(config, credentials)
    if provider is not None:
        sources = [each for each in sources if each.provider == provider]
        if not sources:
            known = tuple(_modules(config))
            raise click.UsageError(f"there is no provider of this name. {nearest(provider, known, 'Known')}")
    demanded = config is not None or provider is not None
    lacking = [each for each in sources if each.lacking] if demanded else []
    click.echo(sources_to_json(sources) if as_json else sources_table(sources, lacking))
    for each in lacking:
        click.echo(
            f"{each.provider} has no key; keep one with: trio-agent auth set {each.variables[0]}", err=True
        )
    ctx.exit(1 if lacking else 0)


@auth.command()
@click.argument("name", nargs=-1, metavar="NAME")
@config_option
@told
def remove(name: tuple[str, ...], config_path: Path | None) -> None:
    """Remove a key from the file. NAME is as in `auth set`, or any name that `auth list` shows.

    Exits with 1 if the file has no such key.
    """
    file = CredentialFile(resolve_home(os.environ))
    known = file.read()
    variable = name[0] if len(name) == 1 and name[0] in known else _variable_of(name, config_path)
    if variable not in known:
        raise click.ClickException(
            f"{file.path} holds no {variable}; `trio-agent auth list` shows what it holds"
        )

    def edit(secrets: dict[str, str]) -> None:
        secrets.pop(variable, None)

    file.change(edit)
    click.echo(f"{variable} is removed from {file.path}.", err=True)
    _audit("credential.removed", {"name": variable}, config_path)
    if os.environ.get(variable, "").strip():
        click.echo(f"{variable} is still set in this environment.", err=True)
    click.echo(_AFTER_A_CHANGE, err=True)


@auth.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
@told
def clear(yes: bool, config_path: Path | None) -> None:
    """Delete the credentials file with all its keys, also one that cannot be read.

    Asks first; without a terminal it wants --yes, and exits with 2 if that is missing.
    """
    file = CredentialFile(resolve_home(os.environ))
    if not os.path.lexists(file.path):
        click.echo("There are no keys in the home.", err=True)
        return
    if not yes:
        if not is_terminal(sys.stdin):
            raise click.UsageError("this deletes all keys in the home: repeat it with --yes")
        if not click.confirm(f"Delete {file.path} with all its keys?", err=True):
            raise click.Abort
    file.delete()
    click.echo(f"{file.path} is deleted.", err=True)
    _audit("credential.cleared", {}, config_path)
    click.echo(_AFTER_A_CHANGE, err=True)


def _variable_of(given: tuple[str, ...], config_path: Path | None) -> str:
    """The variable that a command line means. Never repeats what was written: it may be the key."""
    if len(given) != 1:
        raise click.UsageError(
            "give one NAME. The key itself is asked for, or read from standard input: other users can read "
            "command lines, and shells keep them. If a key stood there, replace it."
        )
    (name,) = given
    draft = Draft(None) if config_path is None else read_draft(config_path)
    modules = _modules(draft.config)
    if name not in modules:
        if not _VARIABLE.fullmatch(name):
            raise click.UsageError(
                "NAME is neither a variable, such as OPENAI_API_KEY, nor a known provider. "
                + nearest(name, tuple(modules), "Known providers")
            )
        if name.startswith("TRIO_AGENT_"):
            raise click.UsageError(f"{name} is read from the environment alone: set it there")
        return name
    use = KEY_USES.get(modules[name])
    if use is None:
        raise click.UsageError(
            f"{name} is served by a module that does not ship with trio-agent: give the variable that its "
            "documentation names"
        )
    if not use.variables:
        where = "takes its key, if it needs one, from `config.api_key` alone"
        raise click.UsageError(f"the module {modules[name]} {where}")
    click.echo(f"The variable of {name} is {use.variables[0]}.", err=True)
    return use.variables[0]


def _audit(kind: AuditKind, details: Mapping[str, Any], config_path: Path | None) -> None:
    """Note a change in the audit log of the store that the configuration names, or of the home's own."""
    from trio_agent.cli.database import find_database  # what reads a store takes long to import

    try:
        database = find_database(config_path, os.environ.get("TRIO_AGENT_WORKSPACE") or None)
    except ConfigError as error:
        click.echo(f"The audit log lacks this change: {error.problems[0].message}", err=True)
        return
    if not database.exists():
        return
    from trio_agent.cli.auth_audit import write_entry

    if why := write_entry(database, kind, details):
        click.echo(f"The audit log lacks this change: {why}", err=True)


def _modules(config: Config | None) -> dict[str, str]:
    """What may stand for a provider: each name with its module. Ids of the configuration go first."""
    shipped = {module: module for module in KEY_USES}
    if config is None:
        return shipped
    return shipped | {name: each.module for name, each in config.providers.items()}


def _remarks(variable: str) -> list[str]:
    """What whoever keeps a key under this name should know."""
    remarks = []
    if modules := modules_reading(variable):
        remarks.append(f"Modules that look for it: {', '.join(modules)}.")
    else:
        remarks.append(f"No module that ships with trio-agent looks for {variable}; a plug-in may.")
    if os.environ.get(variable, "").strip():
        remarks.append(f"Warning: {variable} is set in this environment too, and that one is used here.")
    return remarks


def _sources(config: Config | None, credentials: Credentials) -> list[CredentialSource]:
    if config is None:
        return [source_of(module, module, {}, credentials) for module in KEY_USES]
    found = [
        source_of(name, each.module, each.config, credentials) for name, each in config.providers.items()
    ]
    if config.provider is not None:
        found.append(source_of("provider", config.provider.module, config.provider.config, credentials))
    return found
