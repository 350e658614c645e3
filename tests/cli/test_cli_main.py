"""The command itself: what it lists, what it imports, and how it fails."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from manual.commands import walk

from trio_agent import cli
from trio_agent.cli import COMMANDS, main
from trio_agent.config.problems import ConfigError, ConfigProblem
from trio_agent.errors import AgentError

ROOT = Path(__file__).parents[2]
LEAVES = {each.command_path: not isinstance(each.command, click.Group) for each in walk()}
OPTIONS = {
    each.command_path: [name for option in each.command.params for name in option.opts] for each in walk()
}
PATHS = list(LEAVES)


def invoke(*args: str) -> Result:
    return CliRunner().invoke(main, args, prog_name="trio-agent")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], Result]:
    """Runs a command that raises what it is given."""

    def run(error: BaseException) -> Result:
        @click.command()
        def machine() -> None:
            raise error

        monkeypatch.setattr("trio_agent.cli.machine.machine", machine)
        return invoke("machine")

    return run


def problem(path: str) -> ConfigProblem:
    return ConfigProblem("config_unknown_key", path, "no")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_every_command(flag: str) -> None:
    """Each command has its line."""
    result = invoke(flag)
    assert result.exit_code == 0
    listed = re.findall(r"^  ([a-z]+)  +\S", result.stdout.partition("Commands:")[2], re.MULTILINE)
    assert listed == list(COMMANDS)


@pytest.mark.parametrize("name", [n for n in COMMANDS if importlib.util.find_spec(f"trio_agent.cli.{n}")])
def test_every_command_has_help(name: str) -> None:
    """Each command's module exports a command of its name."""
    result = invoke(name, "--help")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"Usage: trio-agent {name}")


@pytest.mark.parametrize("command", PATHS)
def test_every_command_has_examples(command: str) -> None:
    """Its help ends with some, each on a line of its own, with options that the command has."""
    shown = invoke(*command.split()[1:], "-h").stdout
    usage, _, examples = shown.partition("Examples:\n")
    lines = [line.strip() for line in examples.strip().splitlines()]
    assert lines
    for line in lines:
        assert f"{command} " in f"{line} "
    if not LEAVES[command]:
        return
    for option in re.findall(r"(?<=\s)--[a-z-]+", " ".join(lines)):
        assert option in usage


def test_every_option_says_what_it_is_for() -> None:
    """No option is listed by its name alone."""
    mute = [
        f"{each.command_path} {option.opts[0]}"
        for each in walk()
        for option in each.command.params
        if isinstance(option, click.Option) and not option.help
    ]
    assert mute == []


@pytest.mark.parametrize("command", [path for path, is_leaf in LEAVES.items() if not is_leaf])
def test_a_slip_in_a_command_suggests_the_nearest(command: str) -> None:
    """At every level: a letter too many is wrong usage, told with what was meant."""
    result = invoke(*command.split()[1:], "--help")
    name = re.findall(r"^  ([a-z-]+)  +\S", result.stdout.partition("Commands:")[2], re.MULTILINE)[-1]
    slip = invoke(*command.split()[1:], f"{name}x")
    assert slip.exit_code == 2
    assert f"'{name}'" in slip.stderr


@pytest.mark.parametrize("command", [path for path in PATHS if "--json" in OPTIONS[path]])
def test_a_slip_in_an_option_suggests_the_nearest(command: str) -> None:
    """The same for options; with `--json` the failure is an object on standard output, too."""
    result = invoke(*command.split()[1:], "--json", "--jsen")
    assert result.exit_code == 2
    assert "'--json'" in result.stderr
    error = json.loads(result.stdout)["error"]
    assert error["code"] == "wrong_usage"
    assert "--jsen" in error["message"]


def test_what_stands_behind_two_dashes_is_no_option() -> None:
    """A prompt that is `--json` asks for no JSON."""
    result = invoke("run", "--modle", "x", "--", "--json")
    assert (result.exit_code, result.stdout) == (2, "")


def test_the_version_is_the_packages() -> None:
    """`--version` prints name and version on standard output, and packaging agrees."""
    result = invoke("--version")
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert (result.exit_code, result.stdout) == (0, f"trio-agent {packaged}\n")


def test_an_unknown_command_suggests_the_nearest() -> None:
    """A slip of the pen is wrong usage, told with what was meant."""
    result = invoke("serv")
    assert result.exit_code == 2
    assert "did you mean 'serve'" in result.stderr
    assert "serve, run" in invoke("qqq").stderr


def test_no_command_shows_help_and_is_wrong_usage() -> None:
    """Without a command there is nothing to do."""
    result = invoke()
    assert result.exit_code == 2
    assert "Commands:" in result.stderr


def run_python(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize("args", ["--version", "--help", "machine --help", "config check --help"])
def test_small_commands_import_no_server(args: str) -> None:
    """Neither the web framework nor Trio nor an HTTP client is loaded to print a line."""
    result = run_python("-X", "importtime", "-m", "trio_agent", *args.split())
    assert result.returncode == 0, result.stderr
    loaded = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "click" in loaded
    assert loaded.isdisjoint({"quart", "quart_trio", "hypercorn", "trio", "httpx", "h11", "sqlite3"})


def test_no_command_imports_a_server_before_it_runs() -> None:
    """Help and completion are quick for each command: what it works with is imported when it begins."""
    source = "import manual.commands, sys; list(manual.commands.walk()); print(*sys.modules)"
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tools'}"}
    done = subprocess.run(
        [sys.executable, "-c", source], env=env, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()).isdisjoint({"quart", "quart_trio", "hypercorn", "httpx"})


def test_configuration_problems_are_wrong_configuration(failing: Callable[[BaseException], Result]) -> None:
    """All problems go to standard error, and the exit code is 2."""
    result = failing(ConfigError([problem("a"), problem("b")]))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "a: no [config_unknown_key]\n\nb: no [config_unknown_key]\n"


def test_an_agent_error_is_a_failure(failing: Callable[[BaseException], Result]) -> None:
    """Message and code, no traceback, exit code 1."""
    result = failing(AgentError("upstream_error", "the model is away"))
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "the model is away [upstream_error]\n")


def test_an_interrupt_is_130(failing: Callable[[BaseException], Result]) -> None:
    """Ctrl-C ends quietly, as shells expect it."""
    assert failing(KeyboardInterrupt()).exit_code == 130


def test_what_a_nursery_wraps_is_told_as_if_it_were_bare(failing: Callable[[BaseException], Result]) -> None:
    """Exception groups do not change what the operator sees."""
    inner = ExceptionGroup("inner", [ConfigError([problem("b")])])
    result = failing(ExceptionGroup("outer", [ConfigError([problem("a")]), inner]))
    assert result.exit_code == 2
    assert [line.partition(":")[0] for line in result.stderr.split("\n\n")] == ["a", "b"]
    interrupted = BaseExceptionGroup("outer", [AgentError("internal_error", "x"), KeyboardInterrupt()])
    assert failing(interrupted).exit_code == 130
    usage = failing(ExceptionGroup("outer", [click.UsageError("not like this")]))
    assert usage.exit_code == 2
    assert "not like this" in usage.stderr


def test_a_bug_is_not_hidden(failing: Callable[[BaseException], Result]) -> None:
    """What is no failure with a name escapes as it is, in company too."""
    bug = ValueError("bug")
    assert failing(bug).exception is bug
    group = ExceptionGroup("both", [AgentError("internal_error", "x"), bug])
    assert failing(group).exception is group


def test_a_closed_pipe_is_quiet() -> None:
    """`trio-agent machine | head -0` prints no traceback, nor a complaint at the interpreter's end."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = subprocess.run(
            [sys.executable, "-m", "trio_agent", "machine"],
            cwd=ROOT,
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (1, b"")


def test_the_console_script_is_the_group() -> None:
    """What packaging names as the entry point is what `python -m trio_agent` runs."""
    assert isinstance(cli.main, click.Group)
    assert 'trio-agent = "trio_agent.cli:main"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
