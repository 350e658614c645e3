"""Rewrite the drawn parts of docs/machine.md from the table: `python tools/draw_machine.py`.

The parts stand between `<!-- drawn: NAME -->` and `<!-- end of NAME -->`. A test fails while they differ
from what `trio-agent machine` prints.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from trio_agent.statemachine import diagram  # noqa: E402  (needs the path above)

PAGE = ROOT / "docs" / "machine.md"

PARTS: Mapping[str, Callable[[], str]] = {
    "diagram": lambda: f"```mermaid\n{diagram.as_mermaid()}```\n",
    "table": diagram.as_table,
}


def redrawn(page: str) -> str:
    """The page with its drawn parts drawn anew.

    Raises:
        ValueError: the markers of a part are not there, or not once.
    """
    for name, draw in PARTS.items():
        begin, end = f"<!-- drawn: {name} -->\n", f"<!-- end of {name} -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        text = f"{begin}\n{draw()}\n{end}"
        page, count = pattern.subn(lambda _, text=text: text, page)  # type: ignore[misc]
        if count != 1:
            raise ValueError(f"the page must have exactly one part `{name}` between its markers, not {count}")
    return page


def main() -> None:
    """Rewrite the page, if it is not as it should be."""
    page = PAGE.read_text(encoding="utf-8")
    new = redrawn(page)
    if new != page:
        PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
