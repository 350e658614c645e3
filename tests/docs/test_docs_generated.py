"""What the manual takes from the program is what the program has now."""

from __future__ import annotations

from pathlib import Path

import pytest
from manual import generated, machine_svg
from manual.commands import walk
from manual.marked import redrawn
from manual.site import problems
from manual.tables import retabled


def test_what_is_made_from_the_program_is_as_it_makes_it_now() -> None:
    """The pages on commands, the machine's table and drawing, known columns: `make generate` writes them."""
    stale = [str(path.relative_to(generated.ROOT)) for path in generated.stale()]
    assert stale == [], "run `make generate`, and commit what it writes"


def test_a_page_that_was_changed_by_hand_is_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that differs, one that is missing and one of a command that is gone are all found, and mended."""
    monkeypatch.setattr(generated, "REFERENCE", tmp_path)
    monkeypatch.setattr(generated, "PARTS", {})
    monkeypatch.setattr(generated, "TABLES", ())
    monkeypatch.setattr(generated, "DOCS", tmp_path)
    generated.write()
    assert generated.stale() == []
    changed, missing, gone = (tmp_path / name for name in ("serve.md", "run.md", "walk.md"))
    changed.write_text("# Serve\n")
    missing.unlink()
    gone.write_text("# Walk\n")
    assert generated.stale() == sorted([changed, missing, gone])
    assert sorted(generated.write()) == sorted([changed, missing, gone])
    assert generated.stale() == []


def test_every_command_has_its_place_in_the_reference() -> None:
    """Each command and each one below it is a heading of the page of its first name."""
    for context in list(walk())[1:]:
        name = context.command_path.split()[1]
        page = (generated.REFERENCE / f"{name}.md").read_text(encoding="utf-8")
        assert f"# `{context.command_path}`\n" in page


def test_the_drawing_refuses_a_machine_that_it_has_no_place_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new state or a new way between two would be left out without a word."""
    places = {name: place for name, place in machine_svg.PLACES.items() if name != "ROLE_CHUNK"}
    monkeypatch.setattr(machine_svg, "PLACES", places)
    with pytest.raises(ValueError, match="ROLE_CHUNK"):
        machine_svg.as_svg()
    monkeypatch.undo()
    ways = {pair: way for pair, way in machine_svg.WAYS.items() if pair != ("NEW", "ERROR")}
    monkeypatch.setattr(machine_svg, "WAYS", ways)
    with pytest.raises(ValueError, match="NEW"):
        machine_svg.as_svg()


def test_a_table_follows_what_the_program_knows() -> None:
    """Known cells are set anew; a new row comes beside its like, with no meaning; one that is gone goes."""
    head = "| key | type | meaning |"
    second = f"{head}\n|---|---|---|\n| `b` | int | y |\n"
    before = f"{head}\n|---|---|---|\n| `a.x` | old | said \\| so |\n| `gone` | int | x |\n\n{second}"
    after = f"{head}\n|---|---|---|\n| `a.x` | new | said \\| so |\n| `a.y` | int | |\n\n{second}"
    known = {"a.x": ["new"], "a.y": ["int"], "b": ["int"]}
    assert retabled(before, head, known) == after
    with pytest.raises(ValueError, match="no table"):
        retabled(after, "| code |", known)


def test_a_page_without_its_markers_is_not_taken_for_drawn() -> None:
    """A page that lost its markers would never be redrawn again, so that is an error."""
    with pytest.raises(ValueError, match="exactly one"):
        redrawn("# The machine\n", {"table": lambda: "x"})


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ('<a href="there.html#here">x</a><a href="https://example.org/x">x</a><p id="a"></p>', ""),
        ('<a href="gone.html">x</a>', "no such file"),
        ('<a href="there.html#gone">x</a>', "no such place"),
        ('<a href="#gone">x</a>', "no such place"),
        ('<script src="https://cdn.example.org/x.js"></script>', "another host"),
        ('<link rel="stylesheet" href="//fonts.example.org/x.css">', "another host"),
        ('<img src="gone.svg">', "no such file"),
    ],
)
def test_a_site_that_would_not_work_on_its_own_is_found(body: str, wrong: str, tmp_path: Path) -> None:
    """Dead links, dead anchors and whatever is fetched from elsewhere; links to other sites are fine."""
    (tmp_path / "there.html").write_text('<p id="here"></p>')
    (tmp_path / "page.html").write_text(body)
    found = list(problems(tmp_path))
    assert len(found) == bool(wrong)
    assert all(wrong in each for each in found)
