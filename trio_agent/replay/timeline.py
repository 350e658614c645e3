"""A replay as a timeline: when what came in, what the machine made of it, and what went out."""

from __future__ import annotations

from typing import Final

from trio_agent.replay.result import Moment, Replayed
from trio_agent.replay.shown import brief, value_in_brief

_WIDEST: Final = 150  # characters of one line
_MARKS: Final = {"in": "→", "event": "  ·", "effect": "    ", "out": "←"}


def render_timeline(replayed: Replayed) -> str:
    """One line for each thing that happened: time in seconds, state, and `→` for what came in, `·` for what
    the machine took, below it what it asked for, `←` for what went out."""
    return "".join(f"{_line(moment)}\n" for moment in replayed.timeline)


def _line(moment: Moment) -> str:
    text = brief(moment.value) if moment.what in ("in", "out") else value_in_brief(moment.value)
    if moment.what in ("in", "out"):
        text = text.removeprefix(f"{moment.what} ")
    line = f"{moment.t:10.3f}  {moment.state:<14}  {_MARKS[moment.what]} {text}"
    return line if len(line) <= _WIDEST else line[: _WIDEST - 1] + "…"
