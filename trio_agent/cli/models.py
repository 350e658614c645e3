"""`trio-agent models`: what each provider serves."""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click
import trio

from trio_agent.cli.common import config_option, read_draft
from trio_agent.cli.json_output import json_text
from trio_agent.cli.progress import Progress, progress
from trio_agent.cli.telling import log_to_stderr
from trio_agent.cli.terminal import columns_of
from trio_agent.cli.text_width import aligned, clipped
from trio_agent.cli.waiting import waiting
from trio_agent.config.load import Draft
from trio_agent.observing.formats import one_line

_HEAD = ("model", "provider", "context", "input $/M", "output $/M", "tier", "capabilities")

_EXAMPLES: Final = """\b
Examples:
  trio-agent models --config host_config.json
  trio-agent models --config host_config.json --json
"""


@click.command(epilog=_EXAMPLES)
@click.argument("action", required=False, type=click.Choice(["list"]))
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, for programs.")
def models(action: str | None, config_path: Path | None, as_json: bool) -> None:
    """List the models that each provider serves, with limits, prices and capabilities.

    `models list` is the same as `models`.
    """
    del action  # a synonym
    log_to_stderr("warning")
    with progress() as line:
        entries = trio.run(_entries, read_draft(config_path), line)
    if as_json:
        click.echo(json_text(entries))
        return
    rows = [_HEAD, *(_row(each) for each in entries)]
    columns = columns_of(sys.stdout)
    for shown in aligned([tuple(map(one_line, row)) for row in rows]):
        click.echo(shown if columns is None else clipped(shown, columns))


async def _entries(config: Draft, line: Progress) -> list[dict[str, Any]]:
    from trio_agent.faces.models import entry
    from trio_agent.opening import open_agent  # takes most of the start, and help can do without

    async with waiting(line, "asking the providers for their models"), open_agent(config) as agent:
        return [entry(agent, ref) for ref in agent.models()]


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    context = model["limit"]["context"]
    return (
        model["id"],
        model["_provider"],
        "?" if context is None else f"{context:,}",
        _per_million(model["cost"]["input"]),
        _per_million(model["cost"]["output"]),
        model["cost_tier"] or "?",
        ", ".join(model["capabilities"]) or "?",
    )


def _per_million(price: str | None) -> str:
    return "?" if price is None else f"{Decimal(price) * 1_000_000:f}".rstrip("0").rstrip(".")
