"""`trio-agent completion`: shells complete commands, options and values."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from trio_agent.cli import COMMANDS, main
from trio_agent.cli.completion import SHELLS, VARIABLE

ROOT = Path(__file__).parents[2]


def words(*typed: str) -> list[str]:
    """What the shell is told may follow; the last word is the one being typed."""
    env = {
        VARIABLE: "bash_complete",
        "COMP_WORDS": " ".join(["trio-agent", *typed]),
        "COMP_CWORD": str(len(typed)),
    }
    result = CliRunner().invoke(main, [], env=env, prog_name="trio-agent")
    assert result.exit_code == 0, result.output
    return [line.partition(",")[2] for line in result.stdout.splitlines()]


def test_commands_are_completed_without_importing_one() -> None:
    """Names come from the list; only the command that is already typed is looked into."""
    source = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "from trio_agent.cli import main; main(prog_name='trio-agent')"
    )
    env = {**os.environ, VARIABLE: "bash_complete", "COMP_WORDS": "trio-agent ", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", source],
        env={**env, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.stdout.splitlines() == [f"plain,{name}" for name in COMMANDS]
    assert {f"trio_agent.cli.{name}" for name in COMMANDS}.isdisjoint(done.stderr.split())
    assert words("co") == ["config", "completion"]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (("--v",), ["--version"]),
        (("config", "c"), ["check"]),
        (("serve", "st"), ["status", "stop"]),
        (("serve", "stop", "--f"), ["--force"]),
        (("turns", "s"), ["show"]),
        (("machine", "--format", "m"), ["mermaid"]),
        (("serve", "--log-level", ""), ["debug", "info", "warning", "error"]),
        (("completion", "z"), ["zsh"]),
        (("nope", "mach"), ["machine"]),
    ],
)
def test_what_may_follow_is_completed(typed: tuple[str, ...], expected: list[str]) -> None:
    """Options, commands below others, and the values of a choice."""
    assert words(*typed) == expected


@pytest.mark.parametrize("shell", list(SHELLS))
def test_each_shell_gets_its_script(shell: str) -> None:
    """It asks this program through the variable that click looks for; a shell that is here can read it."""
    result = CliRunner().invoke(main, ["completion", shell], prog_name="trio-agent")
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"{VARIABLE}={shell}_complete" in result.stdout
    program = shutil.which(shell)
    if program is not None:
        done = subprocess.run([program, "-n"], input=result.stdout, text=True, timeout=20, check=False)
        assert done.returncode == 0


def test_an_unknown_shell_is_wrong_usage() -> None:
    """The possible ones are named."""
    result = CliRunner().invoke(main, ["completion", "tcsh"], prog_name="trio-agent")
    assert result.exit_code == 2
    assert "'fish'" in result.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash on this machine")
def test_bash_completes_with_it(tmp_path: Path) -> None:
    """A bash that has read the script asks the program, and gets the words."""
    program = tmp_path / "trio-agent"
    program.write_text(f"#!{sys.executable}\nfrom trio_agent.cli import main\nmain(prog_name='trio-agent')\n")
    program.chmod(0o755)
    script = CliRunner().invoke(main, ["completion", "bash"], prog_name="trio-agent").stdout
    asks = (
        "COMP_WORDS=(trio-agent mach); COMP_CWORD=1; _trio_agent_completion trio-agent; echo ${COMPREPLY[@]}"
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{script}\n{asks}"],
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.stdout.split() == ["machine"], done.stderr
