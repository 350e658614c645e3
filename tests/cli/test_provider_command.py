"""`trio-agent provider validate`: what it finds, prints and returns."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from trio_agent.cli.provider import provider

REPLAY = "trio_agent.providers.replay"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIO_AGENT_HOME", str(tmp_path / "home"))


def validate(*arguments: str) -> Result:
    return CliRunner().invoke(provider, ["validate", *arguments])


def test_a_sound_provider_prints_one_line_a_check_and_exits_0() -> None:
    """Every line begins with the outcome, and nothing failed."""
    result = validate(REPLAY, "--model", "think")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert len(lines) == 17
    assert {line.split()[0] for line in lines} == {"ok"}


def test_a_failing_check_says_what_to_do_and_exits_1() -> None:
    """A model that always refuses shows as failed checks with a remedy."""
    result = validate(f"{REPLAY}:mount", "--model", "refuse")
    assert result.exit_code == 1
    (line,) = [line for line in result.output.splitlines() if " stream " in line]
    assert line.startswith("FAILED")
    assert "Connection refused. Check credentials" in line


def test_json_output_is_for_machines() -> None:
    """One object with the verdict and all findings."""
    result = validate(REPLAY, "--json")
    shown = json.loads(result.output)
    assert shown["ok"] is True
    assert {"check": "mount", "status": "ok", "message": "", "remedy": ""} in shown["findings"]


def test_configuration_is_handed_to_the_provider() -> None:
    """A key that the provider does not know shows as a failed mount."""
    result = validate(REPLAY, "--config", '{"dealy": 1}')
    assert result.exit_code == 1
    assert "config.dealy" in result.output
    assert "Did you mean 'delay'?" in result.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["no-such-provider"], "There is no provider module 'no-such-provider'"),
        (["./no/such/path.py"], "neither a .py file nor a package folder"),
        ([REPLAY, "--config", "{"], "not JSON"),
        ([REPLAY, "--config", "[]"], "expected a JSON object"),
        ([], "Missing argument"),
    ],
)
def test_wrong_usage_exits_2(arguments: list[str], says: str) -> None:
    """What cannot even be looked at is the caller's mistake, not the provider's."""
    result = validate(*arguments)
    assert result.exit_code == 2
    assert says in result.output


def test_a_credentials_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """The command does not use secrets that lie open."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "credentials.json").write_text("{}")
    (home / "credentials.json").chmod(0o644)
    result = validate(REPLAY)
    assert result.exit_code == 2
    assert "chmod 600" in result.output


SIBLING = "from trio_agent.providers.replay import mount\n"


@pytest.mark.parametrize("what", ["file", "file:function", "package"])
def test_a_provider_is_imported_from_where_it_lies(tmp_path: Path, what: str) -> None:
    """A file with a neighbour, a named function, a package with relative imports; then all is as before."""
    folder = tmp_path / "work"
    package = folder / "lab_provider_pkg"
    package.mkdir(parents=True)
    (folder / "lab_sibling.py").write_text(SIBLING)
    (folder / "lab_provider.py").write_text("from lab_sibling import mount\nother = mount\n")
    (package / "__init__.py").write_text("from .inner import mount\n")
    (package / "inner.py").write_text("import lab_provider_pkg\nfrom lab_sibling import mount\n")
    target = {
        "file": folder / "lab_provider.py",
        "file:function": f"{folder / 'lab_provider.py'}:other",
        "package": package,
    }[what]
    path_before, modules_before = list(sys.path), set(sys.modules)
    result = validate(str(target))
    assert result.exit_code == 0, result.output
    assert sys.path == path_before
    assert not [name for name in set(sys.modules) - modules_before if name.startswith("lab_")]


def test_a_file_may_bear_the_name_of_an_installed_module(tmp_path: Path) -> None:
    """The file asked for is the one that is checked, and the installed module is back afterwards."""
    (tmp_path / "json.py").write_text(SIBLING)
    result = validate(str(tmp_path / "json.py"))
    assert result.exit_code == 0, result.output
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import no_such_distribution\n", "ModuleNotFoundError: No module named 'no_such_distribution'"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("def moutn(): pass\n", "has no function 'mount'"),
        ("1 +\n", "SyntaxError"),
    ],
)
def test_a_broken_module_fails_its_import(tmp_path: Path, text: str, says: str) -> None:
    """There is something to check and it is broken: exit 1, one line, no traceback."""
    path = tmp_path / "lab_broken.py"
    path.write_text(text)
    result = validate(str(path))
    assert result.exit_code == 1
    assert result.output.startswith("FAILED   import")
    assert says in result.output
    assert "Traceback" not in result.output
