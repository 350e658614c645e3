"""`trio-agent audit`: what was done to the server, read from the database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import click

from trio_agent.cli.database import database_options, reading
from trio_agent.cli.json_output import json_text
from trio_agent.cli.text_width import aligned
from trio_agent.cli.turns_table import when
from trio_agent.observing.formats import one_line
from trio_agent.store.audit import AUDIT_KINDS, AuditEntry

MOST_ENTRIES: Final = 1000

_EXAMPLES: Final = """\b
Examples:
  trio-agent audit
  trio-agent audit --kind config.reloaded --json
"""


@click.command(epilog=_EXAMPLES)
@click.argument("action", required=False, type=click.Choice(["list"]))
@database_options
@click.option("--kind", type=click.Choice(AUDIT_KINDS), help="Only entries of this kind.")
@click.option(
    "--after", metavar="NUMBER", type=click.IntRange(1, 2**53), help="Only entries before this one in time."
)
@click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(1, MOST_ENTRIES), help="So many at most."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
def audit(
    action: str | None,
    config_path: Path | None,
    workspace: str | None,
    kind: str | None,
    after: int | None,
    limit: int,
    as_json: bool,
) -> None:
    """List what was done to the server, the newest first: starts, ends, configurations, credentials.

    Reads the database itself: while a server runs, after a crash, or without one. `audit list` is the same as
    `audit`.
    """
    del action  # a synonym
    with reading(config_path, workspace) as records:
        found = records.list_audit(kind=kind, after=after, limit=limit + 1)
    shown, has_more = found[:limit], len(found) > limit
    if as_json:
        page = {"object": "list", "data": shown, "has_more": has_more}
        click.echo(json_text(page))
        return
    for line in aligned([("number", "at", "kind", "actor", "details"), *map(_row, shown)]):
        click.echo(line)
    if not shown:
        click.echo("no entries" + (" of this kind" if kind else ""), err=True)
    elif has_more:
        click.echo(f"there are more: --after {shown[-1].number}", err=True)


def _row(entry: AuditEntry) -> tuple[str, ...]:
    details = ", ".join(f"{name}: {_text(value)}" for name, value in entry.details.items())
    return str(entry.number), when(entry.at), one_line(entry.kind), one_line(entry.actor), one_line(details)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
