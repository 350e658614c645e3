"""The drawings of the table are drawn from the table, in the manual too."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from trio_agent.statemachine import TRANSITIONS, State, diagram
from trio_agent.statemachine.table import FINAL, NEW

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "machine.md"


def test_json_holds_the_whole_table() -> None:
    """Another program can rebuild the table from what is printed for it."""
    drawn = json.loads(diagram.as_json())
    table: dict[str, dict[str, list[str]]] = {state: {} for state in drawn["states"]}
    for move in drawn["transitions"]:
        table[move["state"]][move["event"]] = move["targets"]
    assert table == {
        state.name: {event.__name__: [target.name for target in targets] for event, targets in row.items()}
        for state, row in TRANSITIONS.items()
    }
    assert drawn["initial"] == NEW.name
    assert drawn["final"] == [state.name for state in TRANSITIONS if state in FINAL]


@pytest.mark.parametrize(
    "draw", [diagram.as_mermaid, diagram.as_dot, diagram.as_table], ids=lambda f: f.__name__
)
def test_a_drawing_shows_every_state_and_every_way_between_two(draw: object) -> None:
    """No state is missing, and every arrow of the table is there once."""
    assert callable(draw)
    text = draw()
    for state in State:
        assert state.name in text
    if draw is diagram.as_table:
        return
    arrow = "-->" if draw is diagram.as_mermaid else "->"
    for source, target in diagram.edges():
        assert text.count(f"{source.name} {arrow} {target.name}") == 1


def test_the_table_has_a_row_for_every_pair() -> None:
    """As many rows as legal pairs, and one for each final state."""
    rows = diagram.as_table().splitlines()[2:]
    assert len(rows) == sum(map(len, TRANSITIONS.values())) + len(FINAL)
    assert len({len(row) for row in rows}) == 1


def test_the_example_of_the_manual_runs() -> None:
    """What the page shows as code is true."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), {})
