"""The manual as a site: `make docs` builds it from the Markdown files as they are.

The root of the sources is the repository, so that links such as `../CONTRIBUTING.md` are pages of the site.
A page needs no syntax of Sphinx's own: the lists of the maps (`MAPS`) are what the navigation is made of.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from pygments.lexers.data import JsonLexer
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent

project = "trio-agent"
author = "trio-agent contributors"
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = ["docs/**", "CHANGELOG.md", "CONTRIBUTING.md"]
# Sphinx walks through every folder that is not named here.
exclude_patterns = [
    ".*",
    "*.egg-info",
    "benchmarks",
    "build",
    "dist",
    "docs/examples/**",
    "fixtures",
    "node_modules",
    "requirements",
    "statemachine",
    "tests",
    "tools",
    "trio_agent",
]

nitpicky = True
myst_heading_anchors = 4  # the names that GitHub gives to headings
# In samples `…` stands for anything, which no language has.
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = f"trio-agent {version}"
html_static_path = ["site/static"]
html_extra_path = ["site/root"]  # leads from the root of the site to the map
html_css_files = ["manual.css"]
html_copy_source = False
html_use_index = False
html_show_copyright = False
html_show_sphinx = False
html_theme_options = {
    # Furo's defaults name no fonts of other hosts; these neither.
    "light_css_variables": {"color-brand-primary": "#1c5d99", "color-brand-content": "#1c5d99"},
    "dark_css_variables": {"color-brand-primary": "#8ec5ff", "color-brand-content": "#8ec5ff"},
    "navigation_with_keys": True,
}

MAPS = ("docs/index", "docs/reference/index")
"""Pages whose lists of links are the navigation: each `## heading` is a part of it."""

_PART = re.compile(r"^## (?P<title>.+)$", re.MULTILINE)
_ENTRY = re.compile(r"^- \[(?P<title>[^\]]+)\]\((?P<path>[^)#]+\.md)\)", re.MULTILINE)


def _navigation(source: str) -> str:
    """The lists of a map as trees of contents, one for each part."""
    trees: list[str] = []
    pieces = _PART.split(source)
    for title, text in zip(["", *pieces[1::2]], pieces[::2], strict=True):
        entries = [
            f"{entry['title'].replace('`', '')} <{entry['path'].removesuffix('.md')}>"
            for entry in _ENTRY.finditer(text)
        ]
        if entries:
            caption = [f":caption: {title}"] if title else []
            trees.append("\n".join(["```{toctree}", ":hidden:", *caption, "", *entries, "```"]))
    return "\n\n".join(trees)


def _add_navigation(app: Sphinx, docname: str, source: list[str]) -> None:
    if docname in MAPS:
        source[0] = f"{source[0]}\n\n{_navigation(source[0])}\n"


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", _add_navigation)
    app.add_lexer("jsonl", JsonLexer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
