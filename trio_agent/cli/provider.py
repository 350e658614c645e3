"""`trio-agent provider`: tools for the authors of provider plug-ins."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import msgspec
import trio

from trio_agent.cli.json_output import json_text
from trio_agent.cli.progress import progress
from trio_agent.cli.terminal import tamed
from trio_agent.cli.waiting import waiting
from trio_agent.config.home import resolve_home
from trio_agent.providers.conformance import Finding, check_provider
from trio_agent.providers.contract import Mount
from trio_agent.providers.credentials import Credentials, CredentialsError
from trio_agent.providers.modules import (
    ProviderModuleError,
    find_mount,
    installed_modules,
    module_at,
    mount_in,
)

_EXAMPLES: Final = """\b
Examples:
  trio-agent provider validate ./house_model.py
  trio-agent provider validate chat-completions --config '{"base_url": "http://127.0.0.1:8000/v1"}'
"""


@click.group(epilog=_EXAMPLES)
def provider() -> None:
    """Work on provider plug-ins."""


@provider.command()
@click.argument("name_or_path")
@click.option("--config", default="{}", metavar="JSON", help="The provider's configuration, a JSON object.")
@click.option("--model", help="The model to call; by default the first that the provider lists.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object: whether all is well, and the findings."
)
@click.pass_context
def validate(
    context: click.Context, name_or_path: str, config: str, model: str | None, as_json: bool
) -> None:
    """Check a provider against the provider contract, in structure and in behaviour.

    NAME_OR_PATH is an installed provider module, an importable package.module[:function], a .py file, or
    a package folder. The checks call the model a dozen times with very short requests; against a real
    upstream that costs a few tokens.

    Exits 0 when every check passes, 1 when one fails, 2 when there is nothing to check.
    """
    settings = _parse_config(config)
    credentials = _open_credentials()
    try:
        with _find(name_or_path) as mount:
            findings = trio.run(_check, name_or_path, mount, settings, model, credentials)
    except ProviderModuleError as error:
        if error.missing:
            raise click.UsageError(f"{error.message}\n{error.remedy}") from None
        findings = [Finding("import", "failed", error.message, error.remedy)]
    click.echo(_as_json(findings) if as_json else tamed(_as_text(findings)))
    context.exit(1 if any(finding.status == "failed" for finding in findings) else 0)


async def _check(
    name: str, mount: Mount, config: Mapping[str, Any], model: str | None, credentials: Credentials
) -> list[Finding]:
    with progress() as line:
        async with waiting(line, f"checking {name}"):
            return await check_provider(mount, config, model=model, credentials=credentials)


def _parse_config(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"this is not JSON: {error}", param_hint="--config") from None
    if not isinstance(value, dict):
        raise click.BadParameter("expected a JSON object", param_hint="--config")
    return value


def _open_credentials() -> Credentials:
    try:
        return Credentials.open(os.environ, resolve_home(os.environ))
    except CredentialsError as error:
        raise click.UsageError(f"{error.message} {error.remedy}") from None


@contextmanager
def _find(name_or_path: str) -> Iterator[Mount]:
    """The mount function, importable for the length of the block. A name wins over a path like it."""
    installed = installed_modules()
    text, separator, function = name_or_path.rpartition(":")
    path = Path(text if separator else name_or_path)
    looks_like_path = os.sep in name_or_path or path.suffix == ".py" or path.exists()
    if name_or_path in installed or not looks_like_path:
        yield find_mount(name_or_path, installed)
        return
    with module_at(path) as module:
        yield mount_in(module, function if separator else "mount")


def _as_text(findings: list[Finding]) -> str:
    words = {"ok": "ok", "failed": "FAILED", "skipped": "skipped"}
    width = max(len(finding.check) for finding in findings)
    return "\n".join(
        f"{words[finding.status]:<7}  {finding.check:<{width}}  {finding}".rstrip() for finding in findings
    )


def _as_json(findings: list[Finding]) -> str:
    rows = [msgspec.to_builtins(finding) for finding in findings]
    failed = any(finding.status == "failed" for finding in findings)
    return json_text({"ok": not failed, "findings": rows})
