"""The transition table as text, for people and for other programs. All of it is drawn from the table."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from .table import FINAL, NEW, TRANSITIONS, State


def moves() -> Iterator[tuple[State, str, tuple[State, ...]]]:
    """Every legal (state, event) pair with its possible targets, in the table's order."""
    for state, row in TRANSITIONS.items():
        for event, targets in row.items():
            yield state, event.__name__, targets


def edges() -> dict[tuple[State, State], list[str]]:
    """The events that can lead from one state to another, self-loops left out."""
    found: dict[tuple[State, State], list[str]] = {}
    for state, event, targets in moves():
        for target in targets:
            if target is not state:
                found.setdefault((state, target), []).append(event)
    return found


def as_table() -> str:
    """A Markdown table, one row for each legal pair."""
    rows = [
        (state.name, event, " or ".join(each.name for each in targets)) for state, event, targets in moves()
    ]
    rows += [(state.name, "nothing", "final") for state in TRANSITIONS if state in FINAL]
    head = ("state", "event", "leads to")
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(3)]

    def line(cells: tuple[str, str, str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(head), rule, *(line(row) for row in rows)]) + "\n"


def as_mermaid() -> str:
    """A Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {NEW.name}"]
    for (source, target), events in edges().items():
        lines.append(f"    {source.name} --> {target.name}: {', '.join(events)}")
    lines += [f"    {state.name} --> [*]" for state in TRANSITIONS if state in FINAL]
    return "\n".join(lines) + "\n"


def as_dot() -> str:
    """A Graphviz digraph."""
    lines = ["digraph turn {", "    rankdir=LR;", '    node [shape=box, style="rounded"];']
    lines += [f"    {state.name} [peripheries=2];" for state in TRANSITIONS if state in FINAL]
    for (source, target), events in edges().items():
        label = "\\n".join(events)
        lines.append(f'    {source.name} -> {target.name} [label="{label}"];')
    return "\n".join([*lines, "}"]) + "\n"


def as_json() -> str:
    """The table as JSON: states, which of them are final, and each pair with its targets."""
    table = {
        "initial": NEW.name,
        "states": [state.name for state in TRANSITIONS],
        "final": [state.name for state in TRANSITIONS if state in FINAL],
        "transitions": [
            {"state": state.name, "event": event, "targets": [target.name for target in targets]}
            for state, event, targets in moves()
        ],
    }
    return msgspec.json.format(msgspec.json.encode(table), indent=2).decode() + "\n"
