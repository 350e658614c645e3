"""Parts of a page that a program makes: between `<!-- drawn: NAME -->` and `<!-- end of NAME -->`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping


def redrawn(page: str, parts: Mapping[str, Callable[[], str]]) -> str:
    """The page with its marked parts made anew.

    Raises:
        ValueError: the markers of a part are not there, or not once.
    """
    for name, draw in parts.items():
        begin, end = f"<!-- drawn: {name} -->\n", f"<!-- end of {name} -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        text = f"{begin}\n{draw().rstrip()}\n\n{end}"
        page, count = pattern.subn(lambda _, text=text: text, page)  # type: ignore[misc]
        if count != 1:
            raise ValueError(f"the page must have exactly one part `{name}` between its markers, not {count}")
    return page
