"""`trio-agent machine` prints the turn machine in each of its forms."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from trio_agent.cli import main
from trio_agent.statemachine import diagram


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], diagram.as_table),
        (["--format", "table"], diagram.as_table),
        (["--format", "mermaid"], diagram.as_mermaid),
        (["--format", "dot"], diagram.as_dot),
        (["--format", "json"], diagram.as_json),
    ],
)
def test_each_format_is_printed_whole(args, expected) -> None:  # type: ignore[no-untyped-def]
    """What is printed is what the table's own module draws, and nothing else."""
    result = CliRunner().invoke(main, ["machine", *args])
    assert result.exit_code == 0
    assert result.stdout == expected()
    assert result.stdout.endswith("\n")
    assert not result.stdout.endswith("\n\n")


def test_the_json_form_is_json() -> None:
    """A program can read the machine's states and transitions."""
    found = json.loads(CliRunner().invoke(main, ["machine", "--format", "json"]).stdout)
    assert {"states", "final", "transitions"} <= set(found)


def test_an_unknown_format_is_wrong_usage() -> None:
    """The possible formats are named."""
    result = CliRunner().invoke(main, ["machine", "--format", "svg"])
    assert result.exit_code == 2
    assert "mermaid" in result.stderr
