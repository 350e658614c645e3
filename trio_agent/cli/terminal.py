"""What the other end of a stream can show: colours, a line that is drawn again, so many columns."""

from __future__ import annotations

import os
from typing import Final, TextIO

_DEFAULT_COLUMNS: Final = 80


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
