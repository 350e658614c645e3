"""Looks through the built site: `python -m manual.site FOLDER` fails where a page would not work on its own.

Sphinx checks the links that people wrote. This checks what came out, the theme's part included: every link
and every anchor inside the site leads somewhere, and no page loads anything from another host.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

LOADED: Final = frozenset(
    {("script", "src"), ("img", "src"), ("iframe", "src"), ("object", "data"), ("link", "href")}
)
"""What a browser fetches without being asked."""

_NOT_FETCHED: Final = frozenset({"canonical", "next", "prev", "search", "index", "top", "author"})


class _Page(HTMLParser):
    """The ids of a page, and its references: tag and address."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.references: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        for name in ("href", "src", "data"):
            if name in given:
                fetched = (tag, name) in LOADED and given.get("rel", "") not in _NOT_FETCHED
                self.references.append(("loads" if fetched else "links to", given[name]))


@cache
def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def problems(site: Path) -> Iterator[str]:
    """What is wrong with the pages of a site, in words."""
    for path in sorted(site.rglob("*.html")):
        for how, address in _read(path).references:
            if wrong := _wrong(path, how, address):
                yield f"{path.relative_to(site)} {how} {address}: {wrong}"


def _wrong(page: Path, how: str, address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme == "data" or (parts.scheme in ("https", "http", "mailto") and how == "links to"):
        return ""
    if parts.scheme or parts.netloc:
        return "that is on another host"
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not target.is_file():
        return "there is no such file"
    anchor = unquote(parts.fragment)
    if anchor and target.suffix == ".html" and anchor not in _read(target).ids:
        return "the page has no such place"
    return ""


def main() -> None:
    """Print what is wrong, and fail if anything is."""
    site = Path(sys.argv[1])
    found = list(problems(site))
    pages = len(list(site.rglob("*.html")))
    if found or not pages:
        sys.exit("\n".join([*found, f"{pages} pages, {len(found)} problems"]))
    print(f"{pages} pages, every link leads somewhere")


if __name__ == "__main__":
    main()
