"""`trio-agent replay --from N --against MODEL`: what is printed where, and the exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from replay.fork_runs import FILES, SCRIPTED, whole
from support.serving import command, environment, write_config

from trio_agent.cli import main
from trio_agent.recording.format import SUFFIX
from trio_agent.replay import Player
from trio_agent.replay.files import check

HELLO = "Hello! You said “Hi”. I am a scripted model: no key, no network.\n"
SEEN = "The tool answered: seen\n"
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `trio-agent replay` in a folder with the files of `FILES`; a config of `None` is none."""
    for name in ("tool", "slow", "parked"):
        (tmp_path / f"{name}{SUFFIX}").write_bytes(whole(name))
    monkeypatch.chdir(tmp_path)

    def run(*args: str, config: Any = SCRIPTED) -> Result:
        env = {"TRIO_AGENT_HOME": str(tmp_path / "home")}
        if config is not None:
            env["TRIO_AGENT_CONFIG"] = str(write_config(tmp_path, config))
        return CliRunner().invoke(main, ["replay", *args], env=env, prog_name="trio-agent")

    return run


def test_the_answer_is_on_standard_output_and_the_rest_beside_it(run: Run) -> None:
    """The text alone can be piped; where the fork was, how it ended and what it used is told beside it."""
    config = {**SCRIPTED, "prices": {"demo": {"input": "0.001", "output": "0.01"}}}
    result = run("--from", "11", "--against", "demo", f"tool{SUFFIX}", config=config)
    assert (result.exit_code, result.stdout) == (0, SEEN)
    told = result.stderr.splitlines()
    assert told[0] == (
        "forked at line 10 (line 11 is in the answer of the model call made there), against replay/demo"
    )
    assert "ended: completed, stop (as recorded)" in told
    assert "tool calls: none, as recorded" in told
    assert any(line.startswith("live part: 1 model call, ") and " USD, " in line for line in told)


@pytest.mark.parametrize(
    ("model", "line", "told"),
    [
        ("length", "10", "ended: completed, length (completed, stop when it was recorded)"),
        ("length", "3", "tool calls: others than recorded; those were: look {}"),
        ("demo", "3", "tool calls: the same as recorded"),
    ],
)
def test_what_differs_is_said(model: str, line: str, told: str, run: Run) -> None:
    """Another finish reason, other tool calls, or none."""
    result = run("--from", line, "--against", model, f"tool{SUFFIX}")
    assert told in result.stderr


def test_calls_that_the_caller_owes_are_shown(run: Run) -> None:
    """A turn that parks ends the fork, and that is fine."""
    result = run("--against", "demo", f"parked{SUFFIX}")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "calls read {}" in result.stderr
    assert "ended: parked, tool_calls (as recorded)" in result.stderr


def test_json_is_one_object(run: Run) -> None:
    """With both endings; nothing else is printed."""
    result = run("--from", "10", "--against", "demo", "--json", "--times", "2", f"tool{SUFFIX}")
    told = json.loads(result.stdout)
    assert (result.exit_code, result.stderr, told["ok"], len(told["forks"])) == (0, "", True, 2)
    first = told["forks"][0]
    assert (first["line"], first["model"], first["same_ending"]) == (10, "replay/demo", True)
    assert (first["live"]["text"] + "\n", first["recorded"]["text"]) == (SEEN, "Seen.")
    assert first["live"]["usage"]["output_tokens"] == 6


def test_repetitions_are_tabulated(run: Run) -> None:
    """Each one's text on standard output, and a row for each at the end."""
    result = run("--against", "demo", "--times", "3", f"slow{SUFFIX}")
    assert (result.exit_code, result.stdout) == (0, HELLO * 3)
    rows = result.stderr.splitlines()[-4:]
    assert rows[0].split() == ["fork", "ended", "tool", "calls", "used", "seconds"]
    assert [row.split()[0] for row in rows[1:]] == ["1", "2", "3"]


def test_a_fork_is_recorded_and_replays(run: Run, tmp_path: Path) -> None:
    """`--record` writes one file a fork, which says whose fork it is."""
    result = run("--from", "10", "--against", "demo", "--record", "forks", f"tool{SUFFIX}")
    path = tmp_path / "forks" / f"tool-fork-10{SUFFIX}"
    assert f"recorded: forks/{path.name}" in result.stderr
    assert check(Player(), path).verdict == "ok"
    head_line = json.loads(path.read_text().splitlines()[0])
    assert head_line["description"] == f"A fork of tool{SUFFIX} at line 10, against replay/demo."


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["--against", "cut"], 1, "[upstream_error]"),
        (["--against", "unauthorized"], 1, "ended: failed, upstream_error (completed, stop when it was"),
    ],
)
def test_a_failed_fork_is_exit_code_1(args: list[str], code: int, told: str, run: Run) -> None:
    """The turn's failure, and what it was before."""
    result = run(*args, f"slow{SUFFIX}")
    assert (result.exit_code, told in result.stderr) == (code, True), result.stderr


def test_a_model_that_cannot_carry_the_turn_is_exit_code_1(run: Run) -> None:
    """The ability that it lacks is named."""
    config = {"providers": {"replay": {"config": {"models": [{"id": "demo", "capabilities": ["vision"]}]}}}}
    result = run("--against", "demo", f"tool{SUFFIX}", config=config)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "cannot call tools" in result.stderr
    assert "[tools_not_supported_by_backend]" in result.stderr


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--from", "99", "--against", "demo", "tool"], "there is no line 99"),
        (["--from", "14", "--against", "demo", "tool"], "has ended here"),
        (["--against", "dmeo", "tool"], "Did you mean 'demo'?"),
        (["--from", "10", "tool"], "'up/m' is not served here"),
        (["--against", "demo", "tool", "slow"], "one recording; 2 are named"),
        (["--against", "demo", "--update", "tool"], "--update"),
        (["--against", "demo", "--show", "tool"], "--show"),
        (["--times", "2", "tool"], "--times goes with"),
        (["--record", "forks", "tool"], "--record goes with"),
        (["--from", "0", "tool"], "--from"),
        (["--against", "demo", "--times", "0", "tool"], "--times"),
    ],
)
def test_wrong_usage_is_exit_code_2(args: list[str], told: str, run: Run) -> None:
    """What is wrong is said, and nothing is asked of a model."""
    result = run(*(f"{each}{SUFFIX}" if each in ("tool", "slow") else each for each in args))
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr


def test_a_configuration_without_a_fork(run: Run) -> None:
    """The option would be ignored, so it is refused; the variable may be there for other commands."""
    result = CliRunner().invoke(main, ["replay", "--config", "host_config.json", f"tool{SUFFIX}"])
    assert result.exit_code == 2
    assert "--config goes with --from or --against" in result.stderr
    there = CliRunner().invoke(
        main, ["replay", f"tool{SUFFIX}"], env={"TRIO_AGENT_CONFIG": "host_config.json"}
    )
    assert there.exit_code == 0, there.output


def test_a_fork_needs_a_configuration(run: Run) -> None:
    """A replay does not: it is only asked for where a model is called."""
    result = run("--against", "demo", f"tool{SUFFIX}", config=None)
    assert result.exit_code == 2
    assert "--config PATH" in result.stderr
    assert run(f"tool{SUFFIX}", config=None).exit_code == 0


def test_a_recording_that_is_broken_is_exit_code_1(run: Run, tmp_path: Path) -> None:
    """It cannot be played, so nothing goes on from it."""
    (tmp_path / "broken.jsonl").write_text("{}\n")
    result = run("--against", "demo", "broken.jsonl")
    assert result.exit_code == 1
    assert "broken.jsonl:1: no header" in result.stderr


def test_a_recording_that_differs_is_forked_with_a_warning(run: Run, tmp_path: Path) -> None:
    """The fork may not begin where the recorded turn was, and the user is told."""
    path = tmp_path / f"tool{SUFFIX}"
    path.write_text(path.read_text().replace("Seen.", "Unseen.", 1))
    path.write_text(path.read_text().replace('\\"content\\":\\"Seen.\\"', '\\"content\\":\\"No.\\"'))
    result = run("--against", "demo", f"tool{SUFFIX}")
    assert (result.exit_code, result.stdout) == (0, SEEN)
    assert "warning: the recording itself does not replay as recorded" in result.stderr


def test_a_folder_that_cannot_be_written_to_is_named(run: Run, tmp_path: Path) -> None:
    """Before a model is called."""
    (tmp_path / "file").write_text("")
    result = run("--against", "demo", "--record", "file/forks", f"slow{SUFFIX}")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "file/forks cannot be written to: Not a directory" in result.stderr


def test_a_fork_that_is_not_recorded_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full at the end: the answer and its summary are there, and the exit code is 1."""

    def full(descriptor: int, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trio_agent.recording.files.os.write", full)
    result = run("--against", "demo", "--record", "forks", f"slow{SUFFIX}")
    assert (result.exit_code, result.stdout) == (1, HELLO)
    assert "ended: completed, stop" in result.stderr
    assert "not recorded: forks/slow-fork-3.turn.jsonl: No space left" in result.stderr


def test_an_interrupt_ends_it(tmp_path: Path) -> None:
    """Ctrl-C amid the answer: exit code 130, no traceback."""
    path = tmp_path / f"slow{SUFFIX}"
    path.write_bytes(FILES["slow"])
    config = {"providers": {"replay": {"config": {"pace": 60, "models": ["slow"]}}}}
    with subprocess.Popen(
        command("replay", "--against", "slow", "--config", str(write_config(tmp_path, config)), str(path)),
        env=environment(tmp_path / "home"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        try:
            assert b"forked at line 2" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            _, rest = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, rest.strip()) == (130, b"")
