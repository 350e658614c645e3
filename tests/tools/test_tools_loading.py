"""The server's own tools, found by the names that a configuration gives them."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_agent.tools import box
from trio_agent.tools.box import load_tools

SOURCE = '''
def spell(word: str) -> str:
    """Spell a word."""
    return "-".join(word)
'''


@pytest.fixture(autouse=True)
def _a_package_with_a_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution that declares the tool `spelling`, installed."""
    (tmp_path / "spelling_for_tests.py").write_text(SOURCE)
    info = tmp_path / "spelling_for_tests-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: spelling-for-tests\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{box.GROUP}]\nspelling = spelling_for_tests:spell\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_tool_is_found_by_its_entry_point() -> None:
    """Its name is the entry point's, also beside one that is named by its place."""
    tools, problems = load_tools(["spelling_for_tests:spell", "spelling"], timeout=1)
    assert [each.tool.name for each in tools] == ["spell", "spelling"]
    assert problems == []


def test_an_unknown_name_is_a_problem() -> None:
    """The problem names what is like it, and the group to declare it under."""
    tools, (problem,) = load_tools(["speling"], timeout=1)
    assert (tools, problem.name) == ([], "speling")
    assert "Did you mean 'spelling'?" in problem.remedy
    assert box.GROUP in problem.remedy


@pytest.mark.parametrize("names", [[], ["spelling_for_tests:spell"]], ids=["none", "by its place"])
def test_installed_packages_are_asked_only_for_names(
    names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start without such a name does not read the files of every distribution."""
    monkeypatch.delattr(box, "entry_points")
    tools, problems = load_tools(names, timeout=1)
    assert ([each.tool.name for each in tools], problems) == (["spell"][: len(names)], [])


@pytest.mark.parametrize("line", ["import nothing_of_that_name", "raise SystemExit(3)", "1 / 0"])
def test_a_module_that_cannot_be_imported_is_a_problem(tmp_path: Path, line: str) -> None:
    """Whatever it raises, it ends nothing: a server may load it while turns run."""
    name = "broken_for_tests"
    (tmp_path / f"{name}.py").write_text(f"{line}\n")
    tools, (problem,) = load_tools([f"{name}:spell"], timeout=1)
    assert (tools, problem.name) == ([], f"{name}:spell")
    assert f"{name}:spell cannot be imported: " in problem.message
