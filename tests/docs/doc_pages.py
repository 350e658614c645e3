"""The manual as data: its pages, their fenced blocks, tables, links and headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FOLDERS = (DOCS, DOCS / "reference")
PAGES = tuple(
    sorted(
        [
            *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
            *(page for folder in FOLDERS for page in folder.glob("*.md")),
        ]
    )
)

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- (file|output of|drawn):? (\S+) -->\s*\Z")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block. `mark` is the comment before it, such as `file: examples/plugin.py`.

    `output` is the text of the `text` block that follows a Python block with nothing in between.
    """

    page: Path
    line: int
    language: str
    text: str
    mark: tuple[str, str] | None = None
    output: str | None = None

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order. A block inside a list is none."""
    source = page.read_text(encoding="utf-8")
    found = list(_FENCE.finditer(source))
    blocks: list[Block] = []
    for index, match in enumerate(found):
        mark = _MARK.search(source[: match.start()])
        output = None
        if match[1] == "python" and index + 1 < len(found):
            following = found[index + 1]
            if following[1] == "text" and not source[match.end() : following.start()].strip():
                output = following[2]
        blocks.append(
            Block(
                page,
                source.count("\n", 0, match.start()) + 1,
                match[1],
                match[2],
                (mark[1], mark[2]) if mark else None,
                output,
            )
        )
    return blocks


def all_blocks(*languages: str) -> list[Block]:
    return [block for page in PAGES for block in blocks_of(page) if block.language in languages]


def prose_of(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def links_of(page: Path) -> Iterator[str]:
    return (match[1] for match in _LINK.finditer(prose_of(page)))


def anchors_of(page: Path) -> set[str]:
    """What a link may name behind `#`, made as GitHub makes it from headings."""
    titles = (re.sub(r"[`*]|\]\([^)]*\)|\[", "", match[1]) for match in _HEADING.finditer(prose_of(page)))
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def table(page: Path, *heading: str) -> list[list[str]]:
    """The rows of the one table whose first columns have these headings.

    Raises:
        LookupError: there is no such table, or there are several.
    """
    wanted = "| " + " | ".join(heading) + " |"
    lines = page.read_text(encoding="utf-8").splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith(wanted)]
    if len(starts) != 1:
        raise LookupError(f"{page.name} has {len(starts)} tables that begin with {wanted!r}")
    rows: list[list[str]] = []
    for line in lines[starts[0] + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split(" |")])
    return rows


def code_words(cell: str) -> list[str]:
    """What stands between back-quotes."""
    return re.findall(r"`([^`]+)`", cell)


def matches(sample: str, output: str) -> bool:
    """Whether output is what the manual shows; `…` stands for anything, blanks at line ends for nothing."""
    pieces = [re.escape(piece) for piece in _even(sample).split("…")]
    return re.fullmatch(".*?".join(pieces), _even(output), re.DOTALL) is not None


def _even(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines()).strip()
