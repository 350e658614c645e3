"""What a turn's record says in words of others': little, however much there is to remark upon.

A record is kept for ever and shown in lists. The names in its notes are the client's; ids, and names of tools
and models, are the model's or the upstream's. Pure.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

MOST_NOTES: Final = 50
"""Notes of one record; a last one says that there were more."""
_MORE: Final = "and more like these"
LONGEST_NOTE: Final = 300
"""Characters; what is cut off is left to `…`."""
LONGEST_NAME: Final = 200
"""Characters of a name or an id."""
MOST_TOOLS: Final = 1_000
"""Runs of the server's tools that one record lists."""
MORE_TOOLS: Final = f"more of the server's tools ran than the {MOST_TOOLS:,} that are listed"


def in_bounds(notes: Collection[str]) -> tuple[str, ...]:
    """The notes, each once, cut to what a record holds; notes that have been cut may be among them."""
    told = [note for note in dict.fromkeys(_cut(each, LONGEST_NOTE) for each in notes) if note != _MORE]
    cut = len(told) > MOST_NOTES or _MORE in notes
    return (*told[:MOST_NOTES], _MORE) if cut else tuple(told)


def named(name: str) -> str:
    """A name or an id of others', cut to what a record holds."""
    return _cut(name, LONGEST_NAME)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


__all__ = ["LONGEST_NAME", "LONGEST_NOTE", "MORE_TOOLS", "MOST_NOTES", "MOST_TOOLS", "in_bounds", "named"]
