"""How commands end: every one, in every way that a shell can see."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from manual.commands import walk
from support.serving import write_config

from trio_agent.cli import main

ROOT = Path(__file__).parents[2]
OPTIONS = {
    each.command_path.partition(" ")[2]: [name for option in each.command.params for name in option.opts]
    for each in walk()
    if not isinstance(each.command, click.Group) or each.command.invoke_without_command
}
LEAVES = list(OPTIONS)

REPLAY: Mapping[str, Any] = {"providers": {"replay": {}}}
WRONG: Mapping[str, Any] = {"providers": {"replay": {}}, "sevrer": {}}
RECORDING = "docs/examples/team/recordings/parrot.turn.jsonl"


@dataclass(frozen=True)
class Case:
    """A command, with arguments to see it end.

    Attributes:
        works: arguments that do something and print a result; None for a command that prints none.
        fails: arguments that are fine, for something that cannot be done.
        configured: whether it reads a configuration.
    """

    works: tuple[str, ...] | None = None
    fails: tuple[str, ...] | None = None
    configured: bool = False


CASES: Mapping[str, Case] = {
    "serve": Case(configured=True),
    "serve status": Case(fails=()),
    "serve stop": Case(),
    "serve restart": Case(fails=()),
    "serve reload": Case(fails=()),
    "run": Case(("--model", "demo", "Hi"), ("--model", "unauthorized", "Hi"), configured=True),
    "models": Case((), configured=True),
    "auth set": Case(),
    "auth list": Case(("--json",)),
    "auth status": Case(()),
    "auth remove": Case(fails=("OPENAI_API_KEY",)),
    "auth clear": Case(),
    "provider validate": Case(("replay",), ("broken_provider.py",)),
    "config check": Case((), configured=True),
    "turns list": Case(fails=()),
    "turns show": Case(fails=("turn_1",)),
    "audit": Case(fails=()),
    "config schema": Case(()),
    "replay": Case((RECORDING,), ("broken.turn.jsonl",)),
    "doctor": Case(fails=("--config", "gone.json")),
    "machine": Case(()),
    "completion": Case(("bash",)),
}
WORKING = [name for name, case in CASES.items() if case.works is not None]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Runs a command in a folder with things that fail."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    (tmp_path / "broken_provider.py").write_text("def mount(coordinator, config):\n    return None\n")
    (tmp_path / "broken.turn.jsonl").write_text("{}\n")
    monkeypatch.syspath_prepend(str(ROOT / "docs/examples/team"))
    for name, value in _environment(tmp_path, REPLAY).items():
        monkeypatch.setenv(name, value)
    for module in ("run", "models", "serve"):
        monkeypatch.setattr(f"trio_agent.cli.{module}.log_to_stderr", lambda *_, **__: None)

    def run(name: str, *arguments: str, config: Mapping[str, Any] = REPLAY) -> Result:
        env = _environment(tmp_path, config)
        return CliRunner().invoke(main, [*name.split(), *arguments], env=env, prog_name="trio-agent")

    yield run
    sys.modules.pop("house_model", None)


def _environment(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    path = write_config(folder, config)
    return {"TRIO_AGENT_HOME": str(folder / "home"), "TRIO_AGENT_CONFIG": str(path)}


def test_every_command_is_here() -> None:
    """A new command gets a row that says how it works and how it fails."""
    assert sorted(CASES) == sorted(LEAVES)


@pytest.mark.parametrize("name", LEAVES)
def test_wrong_usage_is_two(run: Any, name: str) -> None:
    """Told on standard error, with the way to the help."""
    result = run(name, "--no-such-option")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Try 'trio-agent {name} --help'" in result.stderr
    assert "--no-such-option" in result.stderr


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.configured])
def test_a_wrong_configuration_is_two(run: Any, name: str) -> None:
    """The place, and what was probably meant, on standard error; nothing has begun."""
    result = run(name, *(CASES[name].works or ()), config=WRONG)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "sevrer" in result.stderr
    assert "did you mean: server" in result.stderr


@pytest.mark.parametrize("name", WORKING)
def test_what_works_is_zero(run: Any, name: str) -> None:
    """There is a result on standard output, and no escape code in it, for it is no terminal."""
    result = run(name, *(CASES[name].works or ()))
    assert result.exit_code == 0, result.stderr
    assert result.stdout
    assert "\x1b" not in result.stdout + result.stderr


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.fails is not None])
def test_what_fails_is_one(run: Any, name: str) -> None:
    """It says so, without a traceback."""
    result = run(name, *(CASES[name].fails or ()))
    assert result.exit_code == 1, result.output
    assert result.output.strip()
    assert "Traceback" not in result.output


JSON = [name for name in LEAVES if "--json" in OPTIONS[name]]


@pytest.mark.parametrize("name", JSON)
def test_json_is_one_value_whatever_happens(run: Any, name: str) -> None:
    """A result, a failure, a wrong configuration and wrong usage can all be read by a program."""
    case = CASES[name]
    results = [
        run(name, *arguments, "--json") for arguments in (case.works, case.fails) if arguments is not None
    ]
    results.append(run(name, "--json", "--no-such-option"))
    if case.configured:
        results.append(run(name, *(case.works or ()), "--json", config=WRONG))
    for result in results:
        assert isinstance(json.loads(result.stdout), dict | list), result.stderr


def _end_of(name: str, stdout: io.TextIOBase | None, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of a command whose standard output is this."""
    monkeypatch.setattr(sys, "stdout", stdout)
    works = CASES[name].works if name in CASES else None
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), *(works or ())], prog_name="trio-agent")
    return int(ended.value.code or 0)


@pytest.mark.parametrize("name", WORKING)
def test_a_closed_pipe_is_one_and_quiet(
    run: Any, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`| head -1` that has gone: no traceback, nor a complaint when the interpreter flushes what is left."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as stdout:  # noqa: PTH123 - the number of an open file
        assert _end_of(name, stdout, monkeypatch) == 1
        stdout.flush()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", [*WORKING, "--help", "serve --help"])
def test_an_output_that_is_full_is_one_and_told(
    run: Any, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A file on a disk without room: a line that says so, no traceback, nothing at the interpreter's end."""
    with open("/dev/full", "w", encoding="utf-8") as stdout:  # noqa: PTH123 - a device
        assert _end_of(name, stdout, monkeypatch) == 1
        stdout.flush()
    told = [line for line in capfd.readouterr().err.splitlines() if "could not be written" in line]
    assert told == ["Error: the output could not be written: No space left on device"]


@pytest.mark.parametrize("name", WORKING)
def test_closed_outputs_are_no_failure(run: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`>&- 2>&-`: whoever starts a command so wants to know its exit code alone."""
    monkeypatch.setattr(sys, "stderr", None)
    assert _end_of(name, None, monkeypatch) == 0


class _Interrupting(io.TextIOWrapper):
    """A standard output whose reader presses Ctrl-C at the first thing printed."""

    def write(self, text: str, /) -> int:
        signal.raise_signal(signal.SIGINT)
        return len(text)


@pytest.mark.parametrize("name", WORKING)
def test_an_interrupt_is_130(
    run: Any, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C while it prints ends the command as shells expect it, without a traceback."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert _end_of(name, _Interrupting(io.BytesIO(), encoding="utf-8"), monkeypatch) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capfd.readouterr().err.strip() == ""
