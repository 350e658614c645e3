"""`trio-agent machine`: the turn's state machine, drawn from its own table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import click

from trio_agent.statemachine.diagram import as_dot, as_json, as_mermaid, as_table

FORMATS: Final[Mapping[str, Callable[[], str]]] = {
    "table": as_table,
    "mermaid": as_mermaid,
    "dot": as_dot,
    "json": as_json,
}

_EXAMPLES: Final = """\b
Examples:
  trio-agent machine
  trio-agent machine --format mermaid > turn.mmd
"""


@click.command(epilog=_EXAMPLES)
@click.option(
    "--format",
    "format_",
    type=click.Choice(list(FORMATS)),
    default="table",
    show_default=True,
    help="A Markdown table, a Mermaid or Graphviz diagram, or JSON.",
)
def machine(format_: str) -> None:
    """Print the states of a turn, and what leads from one to the next."""
    click.echo(FORMATS[format_](), nl=False)
