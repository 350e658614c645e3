"""All that is made from the program, by path: what each file should be now, given what it is."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from manual import commands
from manual.machine_svg import as_svg
from manual.marked import redrawn
from manual.tables import config_keys, error_codes, retabled
from trio_agent.statemachine import diagram

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = ROOT / "docs"
REFERENCE: Final = DOCS / "reference"


def layers() -> str:
    """The rooms that `lint-imports` knows, those that import before those that are imported."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    lines = next(each["layers"] for each in settings["contracts"] if each["id"] == "layers")
    return "```text\n" + "\n".join(line.replace(" | ", ", ") for line in lines) + "\n```"


PARTS: Final[Mapping[Path, Mapping[str, Callable[[], str]]]] = {
    DOCS / "architecture.md": {"layers": layers},
    DOCS / "machine.md": {"table": diagram.as_table},
    REFERENCE / "index.md": {"commands": commands.listed, "variables": commands.variables},
}
"""Pages that people write, with parts that are made."""

TABLES: Final = (
    (DOCS / "configuration.md", "| key | type | default | unit | meaning |", config_keys),
    (DOCS / "errors.md", "| code | status | repeat | means | what to do |", error_codes),
)
"""Tables that people write the last columns of: page, heading, what is known."""


def wanted() -> dict[Path, str]:
    """Each file with the text that it should have.

    Raises:
        ValueError: a page lacks a part or a table, or the drawing has no place for what the machine has.
    """
    found = {path: redrawn(path.read_text(encoding="utf-8"), parts) for path, parts in PARTS.items()}
    for path, heading, known in TABLES:
        found[path] = retabled(path.read_text(encoding="utf-8"), heading, known())
    found[DOCS / "machine.svg"] = as_svg()
    found[DOCS / "host_config.schema.json"] = commands.printed("config", "schema")
    return found | {REFERENCE / f"{name}.md": page for name, page in commands.pages().items()}


def left_over(files: Mapping[Path, str]) -> list[Path]:
    """Pages of commands that are no more."""
    return sorted(set(REFERENCE.glob("*.md")) - set(files))


def stale() -> list[Path]:
    """The files that are not what they should be, or should not be."""
    files = wanted()
    changed = [
        path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    return sorted([*changed, *left_over(files)])


def write() -> list[Path]:
    """Make all files what they should be; returns those that were changed."""
    files, changed = wanted(), stale()
    for path in changed:
        if path in files:
            path.write_text(files[path], encoding="utf-8")
        else:
            path.unlink()
    return changed
