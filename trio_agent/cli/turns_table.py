"""Turns as a table that fits the terminal. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, NamedTuple, TypeAlias

from trio_agent.cli.text_width import aligned, clipped, width
from trio_agent.observing.formats import dollars, one_line, seconds
from trio_agent.wire.turns import TurnRecord

_Filled: TypeAlias = "tuple[_Column, list[str]]"
_GAP: Final = 2
_ID_SHORT: Final = 14
"""Characters of an id that tell turns apart well enough; `turns show` takes the beginning of an id."""


class _Column(NamedTuple):
    """A column. Those with `least` can be clipped so far; where that is not enough, those go that are most
    `spared`."""

    head: str
    cell: Callable[[TurnRecord], str]
    least: int | None = None
    spared: int = 0
    right: bool = False

    def needs(self, cells: Sequence[str]) -> int:
        widest = max(map(width, cells))
        return widest if self.least is None else min(widest, self.least)


def table(records: Sequence[TurnRecord], columns: int | None) -> list[str]:
    """Lines with a head.

    Args:
        columns: of the terminal; `None` is as wide as it gets, with whole ids, for programs that read it.
    """
    wanted = [(each, [each.head, *map(each.cell, records)]) for each in _COLUMNS]
    if columns is not None:
        wanted = _clipped(_fitting(wanted, columns), columns)
    right = frozenset(at for at, (each, _) in enumerate(wanted) if each.right)
    return aligned(list(zip(*(cells for _, cells in wanted), strict=True)), right=right)


def when(at: float) -> str:
    """A moment in local time, to the second."""
    return f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M:%S}"


def cost(amount: str | None) -> str:
    """A cost as it is pleasant to read; a dash where it is not known."""
    return "-" if amount is None else dollars(amount)


def _duration(record: TurnRecord) -> str:
    return seconds(None if record.ended_at is None else max(0.0, record.ended_at - record.created_at))


def _tokens(record: TurnRecord) -> str:
    return f"{record.usage.input_tokens:,}/{record.usage.output_tokens:,}"


def _result(record: TurnRecord) -> str:
    return record.outcome if record.reason is None else f"{record.outcome}/{one_line(record.reason)}"


_COLUMNS: Final = (
    _Column("id", lambda record: one_line(record.id), least=_ID_SHORT),
    _Column("began", lambda record: when(record.created_at)),
    _Column("face", lambda record: one_line(record.face), spared=4),
    _Column("model", lambda record: one_line(record.model), least=8),
    _Column("outcome", _result, least=10),
    _Column("took", _duration, spared=1, right=True),
    _Column("tokens", _tokens, spared=3, right=True),
    _Column("cost", lambda record: cost(record.cost_usd), spared=2, right=True),
)


def _fitting(wanted: list[_Filled], columns: int) -> list[_Filled]:
    """The columns that the terminal has room for."""
    while sum(each.needs(cells) + _GAP for each, cells in wanted) - _GAP > columns:
        first = max(wanted, key=lambda filled: filled[0].spared)
        if not first[0].spared:
            break
        wanted = [each for each in wanted if each is not first]
    return wanted


def _clipped(wanted: list[_Filled], columns: int) -> list[_Filled]:
    """The columns, those clipped that can be until all fit: the id first, then the widest."""
    widths = [max(map(width, cells)) for _, cells in wanted]
    for at in (0, *sorted(range(1, len(wanted)), key=lambda at: -widths[at])):
        over = sum(widths) + _GAP * (len(wanted) - 1) - columns
        if over > 0 and wanted[at][0].least is not None:
            widths[at] = max(wanted[at][0].needs(wanted[at][1]), widths[at] - over)
    return [
        # The beginning of an id can be used as it is, so no sign says that it goes on.
        (column, [cell[:most] if not at else clipped(cell, most) for cell in cells])
        for at, ((column, cells), most) in enumerate(zip(wanted, widths, strict=True))
    ]


__all__ = ["cost", "table", "when"]
