"""`trio-agent replay`: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import errno
import json
import os
import pty
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.serving import command, environment, run_command

from trio_agent.cli import main
from trio_agent.recording.format import SUFFIX
from trio_agent.replay import files

LAB = {"base_url": "http://lab.test/v1", "models": ["small"], "idle_timeout": 1000}
HEADER = {
    "trio_agent_recording": 1,
    "config": {
        "providers": {"lab": {"module": "chat-completions", "config": LAB}},
        "server": {"turn_timeout": 1000},
    },
}
Run = Callable[..., Result]
TEAM = Path(__file__).parents[2] / "docs" / "examples" / "team"


def inputs(words: str = "Hello") -> str:
    """A recording without what comes out; with a comment and a blank line."""
    done = [{"choices": [{"delta": {}, "finish_reason": "stop"}]}, "[DONE]"]
    lines: list[Any] = [
        {"in": "request", "body": {"model": "small", "messages": [{"role": "user", "content": "Hi"}]}},
        {"in": "head", "t": 0.2, "call": 1},
        {"in": "data", "t": 0.5, "call": 1, "sse": [{"choices": [{"delta": {"content": words}}]}]},
        {"in": "data", "t": 600, "call": 1, "sse": done},
        {"in": "end", "t": 600, "call": 1},
    ]
    first, *others = [json.dumps(line) for line in lines]
    return "\n".join([json.dumps(HEADER), "", "// The client asks.", first, *others, ""])


@pytest.fixture
def run() -> Run:
    """Runs the command in this process."""
    return lambda *args: CliRunner().invoke(main, ["replay", *map(str, args)], prog_name="trio-agent")


@pytest.fixture
def folder(tmp_path: Path, run: Run) -> Path:
    """`a` is as it should be, `b` has another word in what went out, `sub/c` is no recording."""
    for name in "ab":
        (tmp_path / f"{name}{SUFFIX}").write_text(inputs())
    result = run("--update", tmp_path)
    assert result.exit_code == 0, result.stdout
    other = tmp_path / f"b{SUFFIX}"
    other.write_text(other.read_text().replace('\\"content\\":\\"Hello\\"', '\\"content\\":\\"Bye\\"'))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / f"c{SUFFIX}").write_text("{}\n")
    return tmp_path


def without_time(text: str) -> str:
    return text.partition(" in ")[0] + text.partition(" s: ")[2]


def test_a_folder_is_told_file_by_file(folder: Path, run: Run) -> None:
    """A line each, the difference below the one that differs, a summary, and exit code 1."""
    result = run(folder)
    lines = result.stdout.splitlines()
    assert [line for line in lines[:-1] if not line.startswith(" ")] == [
        f"ok       {folder}/a{SUFFIX}",
        f"differs  {folder}/b{SUFFIX}",
        f"cannot be played  {folder}/sub/c{SUFFIX}",
    ]
    assert without_time(lines[-1]) == "3 recordings1 as recorded, 1 different, 1 not playable"
    assert (result.exit_code, result.stderr) == (1, "")
    assert "\x1b" not in result.stdout


def test_the_difference_is_readable(folder: Path, run: Run) -> None:
    """What the file says and what came, with file and line, the state, and the time."""
    text = run(folder / f"b{SUFFIX}").stdout
    assert f"    {folder}/b{SUFFIX}:" in text
    assert "state done" in text
    assert [line for line in text.splitlines() if line.lstrip().startswith("-") and "Bye" in line]
    assert [line for line in text.splitlines() if line.lstrip().startswith("+") and "Hello" in line]


def test_all_well_is_zero(folder: Path, run: Run) -> None:
    """One file, named twice, is played once; ten virtual minutes take no time."""
    result = run(folder / f"a{SUFFIX}", folder / f"a{SUFFIX}")
    assert result.exit_code == 0
    last = result.stdout.splitlines()[-1]
    assert without_time(last) == "1 recording1 as recorded"
    assert float(last.partition(" in ")[2].partition(" s")[0]) < 10


@pytest.mark.parametrize("args", [["gone"], ["empty"], [], ["--against", "gone"]])
def test_wrong_usage_is_two(
    args: list[str], tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that is not there, a folder without recordings, no path, an option that there is not."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    result = run(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: trio-agent replay")
    if args in (["gone"], ["empty"]):
        assert args[0] in result.stderr.splitlines()[-1]


def test_update_writes_what_came_out(folder: Path, run: Run) -> None:
    """Only files that differ are written and named; a second update changes nothing; all the rest is kept."""
    a, b = folder / f"a{SUFFIX}", folder / f"b{SUFFIX}"
    b.chmod(0o640)
    before = a.stat().st_mtime_ns
    result = run("--update", a, b)
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()[:-1]] == ["ok", "updated"]
    assert a.stat().st_mtime_ns == before
    assert b.read_bytes() == a.read_bytes()
    assert stat.S_IMODE(b.stat().st_mode) == 0o640
    assert "\n\n// The client asks.\n" in a.read_text()
    assert "ok       " in run("--update", b).stdout
    assert run(a, b).exit_code == 0
    assert sorted(path.name for path in folder.iterdir()) == sorted([a.name, b.name, "sub"])


def test_update_leaves_what_is_as_recorded(folder: Path, run: Run) -> None:
    """The times at which things really went out, which no replay compares, are not rewritten."""
    a = folder / f"a{SUFFIX}"
    recorded = a.read_bytes().replace(b'"t":600.0', b'"t":600.0123')
    assert recorded.count(b"600.0123") > 1
    a.write_bytes(recorded)
    result = run("--update", a)
    assert (result.exit_code, result.stdout.split()[0]) == (0, "ok")
    assert a.read_bytes() == recorded


def test_update_keeps_a_link(folder: Path, run: Run) -> None:
    """The file behind it is written, and the link stays one."""
    link = folder / f"link{SUFFIX}"
    link.symlink_to(folder / f"b{SUFFIX}")
    assert run("--update", link).exit_code == 0
    assert link.is_symlink()
    assert run(folder / f"b{SUFFIX}").exit_code == 0


def test_update_leaves_what_it_cannot_play(tmp_path: Path, run: Run) -> None:
    """An input that nothing waited for must not be written away: the file stays, and the line is named."""
    path = tmp_path / f"x{SUFFIX}"
    path.write_text(inputs() + '{"in": "data", "t": 700, "call": 9, "text": "x"}\n')
    before = path.read_bytes()
    result = run("--update", path)
    assert (result.exit_code, path.read_bytes()) == (1, before)
    assert "cannot be played" in result.stdout
    assert "call 9" in result.stdout


def test_a_disk_that_takes_nothing_is_told(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An update that cannot be written leaves the old file whole and nothing beside it."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    b = folder / f"b{SUFFIX}"
    before, names = b.read_bytes(), sorted(folder.iterdir())
    result = run("--update", b)
    assert (result.exit_code, b.read_bytes()) == (1, before)
    assert f"{b}: No space left on device" in result.stdout
    assert sorted(folder.iterdir()) == names


def test_a_recording_without_expectations_says_what_to_do(tmp_path: Path, run: Run) -> None:
    """Inputs alone are nothing to compare with."""
    (tmp_path / f"x{SUFFIX}").write_text(inputs())
    result = run(tmp_path)
    assert result.exit_code == 1
    assert "--update" in result.stdout


def test_show_prints_the_timeline(folder: Path, run: Run) -> None:
    """Times, states, events and effects, whether or not the recording differs."""
    a = run("--show", folder / f"a{SUFFIX}")
    assert a.exit_code == 0
    assert "600.000  done" in a.stdout
    assert "TextDelta" in a.stdout
    b = run("--show", folder / f"b{SUFFIX}")
    assert b.exit_code == 1
    assert "TextDelta" in b.stdout
    assert "Bye" in b.stdout


def test_any_terminal_can_show_it(folder: Path) -> None:
    """Characters that an encoding lacks are written in another way, not a crash."""
    done = run_command(
        "replay", "--show", str(folder / f"a{SUFFIX}"), home=folder, PYTHONIOENCODING="latin-1"
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u2190 status" in done.stdout


def test_json_is_one_object(folder: Path, run: Run) -> None:
    """For programs: a verdict for each file, its report, where it differs, and the timeline if wanted."""
    result = run("--json", "--show", folder)
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["ok"] is False
    rows = told["recordings"]
    assert [(Path(row["path"]).name[0], row["verdict"]) for row in rows] == [
        ("a", "ok"),
        ("b", "differs"),
        ("c", "unplayable"),
    ]
    assert (rows[0]["report"], rows[0]["differences"]) == ("", [])
    assert rows[1]["differences"][0]["state"] == "done"
    assert "Bye" in rows[1]["report"]
    assert rows[0]["timeline"][0]["value"]["in"] == "request"
    assert "no header" in rows[2]["report"]
    assert "timeline" not in json.loads(run("--json", folder / f"a{SUFFIX}").stdout)["recordings"][0]


def test_the_servers_tools_run_when_asked(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `--run-tools` the recorded result is taken; with it the tool's own is held against it."""
    monkeypatch.delitem(sys.modules, "glossary", raising=False)
    shutil.copy(TEAM / "changed" / "glossary.py", tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    term = TEAM / "recordings" / f"term{SUFFIX}"
    assert run(term).exit_code == 0
    result = run("--run-tools", term)
    assert result.exit_code == 1
    assert "park" in result.stdout
    monkeypatch.delitem(sys.modules, "glossary", raising=False)


def test_progress_is_for_terminals(folder: Path) -> None:
    """A terminal sees what is under way, in colours; a pipe sees neither."""
    env = {**environment(folder, TERM="xterm"), "NO_COLOR": ""}
    leader, follower = pty.openpty()
    done = subprocess.run(
        command("replay", str(folder)), env=env, stdout=follower, stderr=follower, check=False, timeout=30
    )
    os.close(follower)
    seen = os.read(leader, 100_000).decode()
    os.close(leader)
    assert done.returncode == 1
    assert f"1/3 a{SUFFIX}" in seen
    assert "\x1b[32mok\x1b[0m" in seen
    piped = run_command("replay", str(folder), home=folder)
    assert (b"\x1b" in piped.stdout, piped.stderr) == (False, b"")


def test_a_closed_pipe_is_no_traceback(folder: Path) -> None:
    """`| head -1` may go before all is printed."""
    many = folder / "many"
    many.mkdir()
    for number in range(40):
        shutil.copy(folder / f"b{SUFFIX}", many / f"{number}{SUFFIX}")
    process = subprocess.Popen(
        command("replay", "--show", str(many)),
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    told = process.stderr.read()
    assert (process.wait(30), told) == (1, b"")
    process.stderr.close()
