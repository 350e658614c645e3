"""The notes of a turn's record: few and short ones, however much of a request there is to remark upon.

A record is kept for ever and shown in lists, and the names in its notes are the client's. Pure.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

MOST_NOTES: Final = 50
"""Notes of one record; a last one says that there were more."""
_MORE: Final = "and more like these"
LONGEST_NOTE: Final = 300
"""Characters; what is cut off is left to `…`."""


def in_bounds(notes: Collection[str]) -> tuple[str, ...]:
    """The notes, each once, cut to what a record holds; notes that have been cut may be among them."""
    told = [note for note in dict.fromkeys(_cut(each) for each in notes) if note != _MORE]
    cut = len(told) > MOST_NOTES or _MORE in notes
    return (*told[:MOST_NOTES], _MORE) if cut else tuple(told)


def _cut(note: str) -> str:
    return note if len(note) <= LONGEST_NOTE else note[: LONGEST_NOTE - 1] + "…"


__all__ = ["LONGEST_NOTE", "MOST_NOTES", "in_bounds"]
