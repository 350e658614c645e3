"""What the other end of a stream can show: colours, a line that is drawn again, so many columns."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Final, TextIO

_DEFAULT_COLUMNS: Final = 80
_NARROWEST: Final = 8  # a last column that is cut further than this says nothing
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody looks at it. A closed stream is none, and so is None, of a process without streams."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def is_live(stream: TextIO | None) -> bool:
    """Whether it is a terminal that can draw a line again (TERM is not `dumb`)."""
    return is_terminal(stream) and os.environ.get("TERM") not in (None, "", "dumb")


def wants_colours() -> bool:
    """Whether the environment lets colours be: no NO_COLOR (https://no-color.org), and TERM is not `dumb`."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def columns_of(stream: TextIO | None) -> int | None:
    """How wide the terminal is, in characters; None where there is none, so no limit. COLUMNS goes first."""
    if stream is None or not is_terminal(stream):
        return None
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told):
        return int(told)
    try:
        return os.get_terminal_size(stream.fileno()).columns or _DEFAULT_COLUMNS
    except (OSError, ValueError):
        return _DEFAULT_COLUMNS


def one_line(text: str, limit: int | None) -> str:
    """Text from outside for a line of a terminal: control characters are marked, what is too long is cut."""
    plain = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
    return plain if limit is None or len(plain) <= limit else f"{plain[: max(0, limit - 1)]}…"


def in_columns(rows: Sequence[Sequence[str]], limit: int | None = None) -> str:
    """Rows below each other, each column as wide as its widest cell.

    Args:
        rows: the heading first; all of one length.
        limit: how wide a line may be: the last column is cut to that. None for no limit.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if limit is not None:
        widths[-1] = min(widths[-1], max(_NARROWEST, limit - sum(widths[:-1]) - 2 * (len(widths) - 1)))
    lines = []
    for row in rows:
        cells = [*row[:-1], one_line(row[-1], widths[-1])]
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    return "\n".join(lines)
