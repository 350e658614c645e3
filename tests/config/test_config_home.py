"""The home is where it is said to be, and nobody else's."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from trio_agent.config.home import database_path, ensure_home, resolve_home
from trio_agent.config.problems import ConfigError, ConfigProblem


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def refused(home: Path) -> ConfigProblem:
    with pytest.raises(ConfigError) as caught:
        ensure_home(home)
    (problem,) = caught.value.problems
    assert (problem.code, problem.path) == ("config_home_unusable", "TRIO_AGENT_HOME")
    assert problem.remedy
    return problem


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("env", "home"),
    [
        ({"HOME": "/home/u"}, "/home/u/.trio-agent"),
        ({"HOME": "/home/u", "TRIO_AGENT_HOME": ""}, "/home/u/.trio-agent"),
        ({"HOME": "/home/u", "TRIO_AGENT_HOME": "~/ta"}, "/home/u/ta"),
        ({"HOME": "/home/u", "TRIO_AGENT_HOME": "~"}, "/home/u"),
        ({"TRIO_AGENT_HOME": "/srv/ta"}, "/srv/ta"),
    ],
)
def test_the_home_comes_from_the_environment(env: dict[str, str], home: str) -> None:
    """The variable wins, `~` is the user's folder, and nothing is as good as not set."""
    assert resolve_home(env) == Path(home)


def test_a_relative_home_is_made_absolute() -> None:
    """A later change of folder cannot move it."""
    assert resolve_home({"TRIO_AGENT_HOME": "ta"}) == Path.cwd() / "ta"


@pytest.mark.parametrize("env", [{}, {"HOME": ""}, {"TRIO_AGENT_HOME": "/a\0b"}])
def test_no_usable_place_is_told(env: dict[str, str]) -> None:
    """Without HOME there is no default, and that is said."""
    with pytest.raises(ConfigError) as caught:
        resolve_home(env)
    assert caught.value.problems[0].code == "config_home_unusable"


def test_a_home_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    """Folders above it are made as usual, the home itself with mode 0700; twice is once."""
    home = tmp_path / "above" / "home"
    assert ensure_home(home) == home
    assert mode(home) == 0o700
    assert ensure_home(home) == home


def test_an_empty_folder_is_closed_to_others(tmp_path: Path) -> None:
    """A fresh volume becomes a home without further ado."""
    tmp_path.chmod(0o755)
    (tmp_path / "lost+found").mkdir()
    ensure_home(tmp_path)
    assert mode(tmp_path) == 0o700


def test_a_used_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    """It may be the user's own folder; its mode is not changed, the remedy says how."""
    tmp_path.chmod(0o755)
    (tmp_path / "letter.txt").write_text("private", encoding="utf-8")
    problem = refused(tmp_path)
    assert "0755" in problem.message
    assert f"chmod 700 {tmp_path}" in problem.remedy
    assert mode(tmp_path) == 0o755


def test_a_file_is_no_home(tmp_path: Path) -> None:
    """Neither a file in its place nor one on the way to it is a crash."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "not a folder" in refused(tmp_path / "file").message
    assert "not a folder" in refused(tmp_path / "file" / "home").message


def test_a_dangling_link_is_no_home(tmp_path: Path) -> None:
    """A link into nothing is told like a file in the way."""
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    refused(tmp_path / "link")


def test_another_users_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody else owns, somebody else can read and replace."""
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert "another user" in refused(tmp_path).message


def test_a_folder_that_cannot_be_made_is_told() -> None:
    """The system's own reason is in the message."""
    assert "/proc/trio-agent" in refused(Path("/proc/trio-agent/home")).message


@pytest.mark.parametrize("name", ["a", "0", "team-a", "a" * 63])
def test_a_workspace_has_a_database_of_its_own(name: str) -> None:
    """In a folder by its name; without a workspace it is the home's own."""
    assert database_path(Path("/h"), name) == Path(f"/h/workspaces/{name}/store.sqlite3")
    assert database_path(Path("/h")) == Path("/h/store.sqlite3")


@pytest.mark.parametrize("name", ["", "-a", "A", "a/b", "..", "a.b", "a" * 64, "a\n", "é", "a\0"])
def test_what_cannot_name_a_workspace(name: str) -> None:
    """Nothing that leads elsewhere, or that two file systems would see differently."""
    with pytest.raises(ConfigError) as caught:
        database_path(Path("/h"), name)
    (problem,) = caught.value.problems
    assert (problem.code, problem.path) == ("config_invalid_value", "--workspace")
    assert problem.expected
    assert problem.remedy
