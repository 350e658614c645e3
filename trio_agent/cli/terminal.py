"""What the other end of a stream can show: colours, a line that is drawn again, so many columns.

And what it is not to obey: texts of models and of their servers may hold what a terminal takes for orders.
"""

from __future__ import annotations

import os
import re
from typing import Final, TextIO

_DEFAULT_COLUMNS: Final = 80
_ORDERS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # but for line ends and tabs


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


def tamed(text: str) -> str:
    """A text of several lines with its control characters spelled out, so that a terminal only shows it.

    Line ends and tabs stay. Carriage returns go: before a line end they say nothing, and elsewhere they would
    have a line written over.
    """
    return _ORDERS.sub(_spelled, text)


def said_to(stream: TextIO | None, text: str) -> str:
    """What to write of a model's words: all of them as they are, but to a terminal what it only shows."""
    return tamed(text) if is_terminal(stream) else text


def _spelled(found: re.Match[str]) -> str:
    return "" if found[0] == "\r" else found[0].encode("unicode_escape").decode("ascii")
