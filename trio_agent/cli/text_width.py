"""How wide texts are on a terminal, and columns of them. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def width(text: str) -> int:
    """How many columns a text takes that has nothing in it but printable characters."""
    return sum(_columns(char) for char in text)


def clipped(text: str, most: int) -> str:
    """The text in `most` columns; `…` stands for what does not fit."""
    if width(text) <= most:
        return text
    kept, room = [], most - 1
    for char in text:
        room -= _columns(char)
        if room < 0:
            break
        kept.append(char)
    return "".join(kept) + "…" if most > 0 else ""


def padded(text: str, columns: int, *, right: bool = False) -> str:
    """The text filled up with blanks; `right` puts them before it, as for numbers."""
    blanks = " " * (columns - width(text))
    return blanks + text if right else text + blanks


def aligned(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> list[str]:
    """Rows of printable cells as lines, in columns.

    Args:
        right: the columns whose cells stand at their right.
    """
    if not rows:
        return []
    columns = range(len(rows[0]))
    widths = [max(width(row[column]) for row in rows) for column in columns]
    return [
        "  ".join(padded(row[at], widths[at], right=at in right) for at in columns).rstrip() for row in rows
    ]


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


__all__ = ["aligned", "clipped", "padded", "width"]
