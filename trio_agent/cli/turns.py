"""`trio-agent turns`: what turns did, read from the database. No server is asked, none has to run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import click

from trio_agent.cli.database import database_options, reading
from trio_agent.cli.json_output import json_text
from trio_agent.cli.terminal import columns_of
from trio_agent.cli.turn_timeline import timeline
from trio_agent.cli.turns_table import table
from trio_agent.errors import AgentError
from trio_agent.faces.turn_records import by_turn, cut, list_of, record_of
from trio_agent.observing.formats import one_line
from trio_agent.store.contract import TURN_OUTCOMES
from trio_agent.store.reading import Records
from trio_agent.store.rows import can_be_id

MOST_TURNS: Final = 1000
_SHOWN_AMBIGUOUS: Final = 5

_EXAMPLES: Final = """\b
Examples:
  trio-agent turns list
  trio-agent turns list --outcome failed --limit 50
  trio-agent turns list --session 4f9d --json
  trio-agent turns show turn_8Jq3k
  trio-agent turns show turn_8Jq3k --json
"""


@click.group(epilog=_EXAMPLES)
def turns() -> None:
    """Look at what turns did.

    Reads the database itself: while a server runs, after a crash, or without one.
    """


@turns.command("list")
@database_options
@click.option("--session", "session_id", metavar="ID", help="Only turns of this session.")
@click.option("--outcome", type=click.Choice(TURN_OUTCOMES), help="Only turns that ended so.")
@click.option("--model", metavar="NAME", help="Only turns of this model, by the name that callers used.")
@click.option("--after", metavar="TURN", help="Only turns older than this one, the newest of them first.")
@click.option("--before", metavar="TURN", help="Only turns newer than this one, those just after it.")
@click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(1, MOST_TURNS), help="So many at most."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, as GET /v1/turns does.")
def list_turns(
    config_path: Path | None,
    workspace: str | None,
    session_id: str | None,
    outcome: str | None,
    model: str | None,
    after: str | None,
    before: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List turns, the newest first.

    TURN is an id or the beginning of one. On a terminal the table is made to fit; in a pipe it has whole ids.
    """
    if after is not None and before is not None:
        raise click.UsageError("give --after or --before, not both")
    with reading(config_path, workspace) as records:
        rows = records.list_turns(
            limit=limit + 1,
            session_id=session_id,
            outcome=outcome,
            model=model,
            after=None if after is None else _resolved(records, after),
            before=None if before is None else _resolved(records, before),
        )
        shown = cut(rows, limit, forwards=before is not None)
        calls = by_turn(records.list_calls([row.id for row in shown]))
    page = list_of(shown, calls, has_more=len(rows) > limit)
    if as_json:
        _print(page)
        return
    for line in table(page.data, columns_of(sys.stdout)):
        click.echo(line)
    if not page.data:
        click.echo("no turns" + (" like that" if session_id or outcome or model else ""), err=True)
    elif page.has_more:
        way = f"--after {page.last_id}" if before is None else f"--before {page.first_id}"
        click.echo(f"there are more: {way}", err=True)


@turns.command("show")
@click.argument("turn")
@database_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON, as GET /v1/turns/{id} does.")
def show_turn(turn: str, config_path: Path | None, workspace: str | None, as_json: bool) -> None:
    """Show what one turn did, step by step.

    TURN is its id, which answers carry in X-Turn-Id, or the beginning of it.
    """
    with reading(config_path, workspace) as records:
        turn_id = _resolved(records, turn)
        row = records.get_turn(turn_id)
        calls = records.list_calls([turn_id])
    if row is None:
        raise _unknown(turn)
    record = record_of(row, calls)
    if as_json:
        _print(record)
        return
    for line in timeline(record):
        click.echo(line)


def _resolved(records: Records, text: str) -> str:
    """The id that a text means: all of it, or its beginning, with `turn_` or without.

    Raises:
        AgentError: it means none, or several.
    """
    if not text or not can_be_id(text):
        raise _unknown(text)
    if records.get_turn(text) is not None:
        return text
    for prefix in (text, f"turn_{text}"):
        found = records.find_turn_ids(prefix, limit=_SHOWN_AMBIGUOUS + 1)
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(one_line(each) for each in found[:_SHOWN_AMBIGUOUS])
            more = ", …" if len(found) > _SHOWN_AMBIGUOUS else ""
            raise AgentError(
                "invalid_request", f"Several turns begin with {prefix!r}: {names}{more}. Give more of the id."
            )
    raise _unknown(text)


def _unknown(text: str) -> AgentError:
    return AgentError(
        "not_found", f"No turn in this database begins with {text!r:.100}. `trio-agent turns list` has them."
    )


def _print(value: Any) -> None:
    click.echo(json_text(value))


__all__ = ["turns"]
