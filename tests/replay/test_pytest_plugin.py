"""The pytest plug-in, in runs of pytest of their own: recordings are tests, and nobody else is disturbed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from support.forked_python import Run, forked_python
from support.installed import installed
from support.serving import environment

from trio_agent.recording.format import SUFFIX
from trio_agent.replay import Player, pytest_plugin
from trio_agent.replay.files import check

HEADER = {
    "trio_agent_recording": 1,
    "config": {
        "providers": {
            "lab": {
                "module": "chat-completions",
                "config": {"base_url": "http://lab.test/v1", "models": ["small"]},
            }
        }
    },
}
TURN = [
    {"in": "request", "body": {"model": "small", "messages": [{"role": "user", "content": "Hi"}]}},
    {"in": "head", "t": 0.2, "call": 1, "headers": {"content-type": "text/event-stream"}},
    {"in": "data", "t": 0.5, "call": 1, "sse": [{"choices": [{"delta": {"content": "Hello"}}]}]},
    {
        "in": "data",
        "t": 0.9,
        "call": 1,
        "sse": [{"choices": [{"delta": {}, "finish_reason": "stop"}]}, "[DONE]"],
    },
    {"in": "end", "t": 0.9, "call": 1},
]


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The plug-in of this checkout is installed as the package installs it."""
    folder = tmp_path_factory.mktemp("plugin")
    path = os.pathsep.join([str(installed(folder / "site")), str(Path(__file__).parents[2])])
    return environment(folder / "home", PYTHONPATH=path)


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory, env: dict[str, str]) -> Iterator[Run]:
    work = tmp_path_factory.mktemp("forked")
    with forked_python(work, env, "pytest", "trio_agent.replay.files") as run:
        yield run


@pytest.fixture
def run(tmp_path: Path, forked: Run) -> Run:
    """Runs pytest in the folder `suite`, in a process where the package is imported already."""
    (tmp_path / "suite").mkdir(exist_ok=True)
    return partial(forked, "-m", "pytest", "-p", "no:cacheprovider", folder=tmp_path / "suite")


@pytest.fixture
def run_anew(tmp_path: Path, env: dict[str, str]) -> Run:
    """Runs pytest in the folder `suite`, in a process that has imported nothing yet."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
            cwd=tmp_path / "suite",
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A folder with the recordings `hello` (as it should be), `other` (one word changed) and `broken`."""
    folder = tmp_path / "suite"
    folder.mkdir(exist_ok=True)
    hello = folder / f"hello{SUFFIX}"
    hello.write_text("".join(json.dumps(line) + "\n" for line in [HEADER, *TURN]))
    assert check(Player(), hello, update=True).verdict == "updated"
    before = hello.read_text()
    changed = before.replace('\\"content\\":\\"Hello\\"', '\\"content\\":\\"Bye\\"')
    assert changed != before
    (folder / f"other{SUFFIX}").write_text(changed)
    (folder / f"broken{SUFFIX}").write_text("{}\n")
    return folder


def outcomes(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """The counts of the last line."""
    last = done.stdout.rstrip().rpartition("\n")[2]
    return {what: int(count) for count, what in re.findall(r"(\d+) (\w+)", last.partition(" in ")[0])}


def test_the_suffix_is_the_formats() -> None:
    """The plug-in has it written out, so as to import nothing for runs without recordings."""
    assert pytest_plugin.SUFFIX == SUFFIX


def test_each_file_is_a_test(suite: Path, run_anew: Run) -> None:
    """One passes, one differs, one is no recording. The report says what differs, and where."""
    done = run_anew("-v")
    assert outcomes(done) == {"passed": 1, "failed": 2}
    assert done.returncode == 1
    text = done.stdout
    assert f"hello{SUFFIX}::hello PASSED" in text
    assert re.search(r"^-.*Bye", text, re.MULTILINE)
    assert re.search(r"^\+.*Hello", text, re.MULTILINE)
    assert f"\nother{SUFFIX}:" in text
    assert f"\nbroken{SUFFIX}:1: no header" in text
    assert "Traceback" not in text
    assert "files.py" not in text
    assert "pytest_plugin.py" not in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-k", "hello"], {"passed": 1, "deselected": 2}),
        ([f"hello{SUFFIX}::hello"], {"passed": 1}),
    ],
)
def test_tests_are_chosen_as_usual(
    arguments: list[str], expected: dict[str, int], suite: Path, run: Run
) -> None:
    """By name and by id."""
    assert outcomes(run(*arguments)) == expected


def test_recordings_are_updated_and_named(suite: Path, run: Run) -> None:
    """`--update-recordings` writes what came out into those that differ, and lists them; then all is well."""
    before = (suite / f"hello{SUFFIX}").read_bytes()
    done = run("--update-recordings")
    assert outcomes(done) == {"passed": 2, "failed": 1}, done.stdout
    listed = done.stdout.partition("recordings updated")[2].splitlines()[1:2]
    assert listed == [f"other{SUFFIX}"]
    assert (suite / f"hello{SUFFIX}").read_bytes() == before == (suite / f"other{SUFFIX}").read_bytes()


@pytest.mark.parametrize(
    ("flag", "mode"),
    [([], ""), ([], "trio_mode = true\n"), (["-p", "no:trio"], "")],
    ids=["beside", "trio_mode", "without"],
)
def test_it_goes_with_pytest_trio(flag: list[str], mode: str, suite: Path, run: Run) -> None:
    """Beside async tests, with the plug-in for them or without it, in its automatic mode too."""
    (suite / "pytest.ini").write_text(f"[pytest]\n{mode}")
    if not flag:
        mark = "" if mode else "import pytest\n@pytest.mark.trio\n"
        (suite / "test_more.py").write_text(f"{mark}async def test_it():\n    assert True\n")
    done = run(*flag, "-k", "hello or test_it", "-W", "error")
    assert outcomes(done)["passed"] == (1 if flag else 2), done.stdout


def test_it_can_be_switched_off(suite: Path, run: Run) -> None:
    """Without the plug-in the files are nothing to pytest, and its option is unknown."""
    (suite / "test_more.py").write_text("def test_it():\n    pass\n")
    assert outcomes(run("-p", "no:trio_agent")) == {"passed": 1}
    assert "unrecognized arguments" in run("-p", "no:trio_agent", "--update-recordings").stderr


def test_projects_without_recordings_do_not_notice(tmp_path: Path, run_anew: Run) -> None:
    """Nothing of the server is imported, and nothing is added to the report."""
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "test_it.py").write_text(
        "import sys\n\n\ndef test_it():\n"
        "    heavy = ('quart', 'hypercorn', 'httpx', 'msgspec')\n"
        "    loaded = [n for n in sys.modules if n in heavy or n.startswith('trio_agent.')]\n"
        "    assert set(loaded) == {'trio_agent.replay', 'trio_agent.replay.pytest_plugin'}\n"
    )
    done = run_anew("-p", "no:trio")
    assert outcomes(done) == {"passed": 1}, done.stdout
    assert "recording" not in done.stdout


def test_the_servers_own_tools_can_run(tmp_path: Path, run: Run) -> None:
    """With `recordings_run_tools` a tool that answers otherwise than it did fails the test."""
    team = tmp_path / "suite" / "team"
    source = Path(__file__).parents[2] / "docs" / "examples" / "team"
    shutil.copytree(source, team)
    shutil.copy(team / "changed" / "glossary.py", team / "glossary.py")
    changed = run(f"team/recordings/term{SUFFIX}", "-c", "team/pytest.ini")
    assert outcomes(changed) == {"failed": 1}
    assert "park" in changed.stdout
    (team / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    assert outcomes(run(f"team/recordings/term{SUFFIX}", "-c", "team/pytest.ini")) == {"passed": 1}


def test_a_bug_of_the_players_is_a_traceback(suite: Path, run: Run) -> None:
    """What is no difference and no error of the file must not hide behind a short message."""
    (suite / "conftest.py").write_text(
        "import trio_agent.replay.files as files\n\n\n"
        "def broken(*args, **kwargs):\n    raise RuntimeError('a bug')\n\n\nfiles.check = broken\n"
    )
    done = run("-k", "hello")
    assert outcomes(done) == {"failed": 1, "deselected": 2}
    assert "RuntimeError: a bug" in done.stdout
    assert "pytest_plugin.py" in done.stdout
