"""Tables of the manual whose first columns the program knows, and whose last ones people write.

`make generate` sets the known cells, adds a row for what is new and drops that of what is gone. It writes no
meaning: a row without one fails the test that wants it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile

from trio_agent.config.describe import keys
from trio_agent.errors import FINAL_CODES, STATUS

_CELL = re.compile(r"(?<!\\)\|")


def config_keys() -> dict[str, list[str]]:
    """Type, default and unit of each key of the configuration."""
    return {info.path: [info.type, _default(info.default), info.unit] for info in keys()}


def _default(text: str) -> str:
    return text if text in ("", "required") else f"`{text}`"


def error_codes() -> dict[str, list[str]]:
    """Status of each error code, and whether to repeat helps."""
    return {code: [str(status), "no" if code in FINAL_CODES else "yes"] for code, status in STATUS.items()}


def retabled(page: str, heading: str, known: Mapping[str, Sequence[str]]) -> str:
    """The page with the known cells of its tables as they are now.

    Args:
        page: Markdown.
        heading: the line above the tables, such as `| code | status | means |`. There may be several tables.
        known: by the word in the first column, the cells behind it.

    Raises:
        ValueError: the page has no such table.
    """
    lines, rows = page.splitlines(), {}
    width = len(_cells(heading))
    for start in (number for number, line in enumerate(lines) if line == heading):
        for number in range(start + 2, len(lines)):
            if not lines[number].startswith("|"):
                break
            rows[_cells(lines[number])[0].strip("`")] = number
    if not rows:
        raise ValueError(f"there is no table with the heading {heading!r}")
    added: dict[int, list[str]] = {}
    for name, cells in known.items():
        if name in rows:
            said = _cells(lines[rows[name]])[1 + len(cells) :]
            lines[rows[name]] = _row(name, cells, said)
        else:
            neighbour = max(rows, key=lambda other: _alike(name, other))
            empty = [""] * (width - 1 - len(cells))
            added.setdefault(rows[neighbour], []).append(_row(name, cells, empty))
    gone = {number for name, number in rows.items() if name not in known}
    kept = []
    for number, line in enumerate(lines):
        kept += ([] if number in gone else [line]) + added.get(number, [])
    return "\n".join(kept) + "\n"


def _alike(name: str, other: str) -> int:
    """How many characters two names begin with together."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(name, other, strict=False)))


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in _CELL.split(line)[1:-1]]


def _row(name: str, known: Sequence[str], said: Sequence[str]) -> str:
    cells = "|".join(f" {cell} " if cell else " " for cell in [f"`{name}`", *known, *said])
    return f"|{cells}|"
