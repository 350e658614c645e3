"""`trio-agent run` and `trio-agent models`: one turn on the terminal, and what could be asked."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.serving import command, environment, run_command, script, write_config

from trio_agent.cli import main

HELLO = "Hello! You said “Hello”. I am a scripted model: no key, no network.\n"
REPLAY: dict[str, Any] = {"providers": {"replay": {}}}
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command of this process against a configuration; its log goes nowhere."""
    for module in ("run", "models"):
        monkeypatch.setattr(f"trio_agent.cli.{module}.log_to_stderr", lambda *_, **__: None)

    def run(*args: str, config: Any = REPLAY, stdin: str | bytes | None = None) -> Result:
        env = {
            "TRIO_AGENT_HOME": str(tmp_path / "home"),
            "TRIO_AGENT_CONFIG": str(write_config(tmp_path, config)),
        }
        return CliRunner().invoke(main, args, env=env, input=stdin, prog_name="trio-agent")

    return run


@pytest.mark.parametrize("args", [[], ["--no-stream"]])
def test_the_answer_is_printed(run: Run, args: list[str]) -> None:
    """The text and a line's end on standard output, nothing else anywhere."""
    result = run("run", "Hello", "--model", "demo", *args)
    assert (result.exit_code, result.stdout, result.stderr) == (0, HELLO, "")


@pytest.mark.parametrize("args", [["-"], []])
def test_the_prompt_comes_from_a_pipe(run: Run, args: list[str]) -> None:
    """`-`, or no prompt at all."""
    assert run("run", "--model", "demo", *args, stdin="Hello").stdout == HELLO


@pytest.mark.parametrize("args", [["-"], []])
def test_a_closed_standard_input_is_wrong_usage(tmp_path: Path, args: list[str]) -> None:
    """`<&-` holds no prompt, whether it was asked for or not."""
    config = write_config(tmp_path, REPLAY)
    line = shlex.join(command("run", "--config", str(config), "--model", "demo", *args))
    done = subprocess.run(
        f"exec {line} <&-", shell=True, env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert (done.returncode, "give a PROMPT" in done.stderr) == (2, True)


def test_bytes_that_are_no_text_are_taken(run: Run) -> None:
    """A pipe may hold anything."""
    result = run("run", "--model", "demo", stdin=b"a\xffb")
    assert (result.exit_code, "“a\ufffdb”" in result.stdout) == (0, True)


def test_json_is_one_object(run: Run) -> None:
    """Id, model, text, finish reason, usage and cost as an exact decimal."""
    config = {**REPLAY, "prices": {"demo": {"input": "0.1", "output": "0.01"}}}
    result = run("run", "Hello", "--model", "demo", "--json", config=config)
    told = json.loads(result.stdout)
    assert (told["text"] + "\n", told["model"], told["finish_reason"]) == (HELLO, "demo", "stop")
    assert told["id"].startswith("turn_")
    spent = {name: count for name, count in told["usage"].items() if count}
    assert spent == {"input_tokens": 2, "output_tokens": 17}
    assert told["cost_usd"] == "0.37"


def test_a_refusal_is_an_answer(run: Run) -> None:
    """A model's own words for declining are printed like any others."""
    result = run("run", script({"refusal": ["I ", "will not"]}), "--model", "demo")
    assert (result.exit_code, result.stdout) == (0, "I will not\n")


def test_system_and_role(run: Run) -> None:
    """Instructions go before the prompt; a role chooses the model."""
    config = {**REPLAY, "routing": {"roles": {"fast": ["refuse", "demo"]}}}
    result = run("run", "Hello", "--role", "fast", "--system", "Be brief", "--json", config=config)
    told = json.loads(result.stdout)
    assert (told["text"] + "\n", told["usage"]["input_tokens"]) == (HELLO, 4)


def test_the_provider_block_wins(run: Run) -> None:
    """`provider` is the only one that `run` uses, whatever the others and their routes are."""
    own = {"module": "replay", "config": {"models": ["demo"]}}
    config = {"provider": own, "providers": {"nope": {}}, "routing": {"aliases": {"a": "nope/x"}}}
    assert run("run", "Hello", config=config).stdout == HELLO


@pytest.mark.parametrize(
    ("args", "code", "out"),
    [
        (["--model", "unauthorized"], "[upstream_error]", ""),
        (["--model", "bad-request"], "[context_length_exceeded]", ""),
        (["--model", "cut"], "[upstream_error]", "This breaks off"),
        (["--model", "cut", "--no-stream"], "[upstream_error]", ""),
        (["--model", "dmeo"], "[unknown_model]", ""),
        (["--role", "poet"], "[unknown_role]", ""),
    ],
)
def test_a_turn_that_fails_is_exit_code_1(run: Run, args: list[str], code: str, out: str) -> None:
    """The message and its code on standard error; what was said before stays."""
    result = run("run", "Hello", *args)
    assert (result.exit_code, result.stdout.strip()) == (1, out)
    assert code in result.stderr
    assert "Traceback" not in result.stderr


def test_a_failure_amid_the_answer_begins_a_line(tmp_path: Path) -> None:
    """The answer's line ends first, and the log does not say the same once more."""
    config = write_config(tmp_path, REPLAY)
    done = run_command("run", "--config", str(config), "--model", "cut", "Hello", home=tmp_path / "home")
    assert (done.returncode, done.stdout) == (1, b"This breaks off\n")
    assert done.stderr.startswith(b"Provider 'replay' failed (truncated)")
    assert done.stderr.count(b"\n") == 1


def test_a_failure_is_json_too(run: Run) -> None:
    """A program reads code and message on standard output, a person on standard error."""
    result = run("run", "Hello", "--model", "cut", "--json")
    error = json.loads(result.stdout)["error"]
    assert (result.exit_code, error["code"]) == (1, "upstream_error")
    assert result.stderr == f"{error['message']} [upstream_error]\n"


@pytest.mark.parametrize(
    ("args", "stdin", "hint"),
    [
        (["--model", "demo", "--role", "x", "Hi"], None, "not both"),
        (["Hi"], None, "--model"),
        (["--model", "demo"], "", "no prompt"),
        (["--model", "demo", "-"], " \n", "no prompt"),
        (["--model", "demo", ""], None, "PROMPT"),
        (["--modle", "demo", "Hi"], None, "--model"),
    ],
)
def test_wrong_usage_is_exit_code_2(run: Run, args: list[str], stdin: str | None, hint: str) -> None:
    """Said before anything is spent."""
    result = run("run", *args, stdin=stdin)
    assert (result.exit_code, result.stdout) == (2, "")
    assert hint in result.stderr


def test_a_wrong_configuration_is_exit_code_2(run: Run) -> None:
    """The same report as `serve` gives."""
    result = run("run", "Hi", config={"providers": {"nope": {}}})
    assert result.exit_code == 2
    assert "[config_invalid_provider_module]" in result.stderr


# --- as a process -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "place"),
    [
        ({"module": "nonesuch"}, "provider.module"),
        ({"module": "openai"}, "provider.config.api_key"),
        ({"module": "replay", "config": {"models": []}}, "provider"),
        ({"module": "openai", "config": {"api_key": "${NOT_SET_ANYWHERE}"}}, "provider.config.api_key"),
    ],
)
def test_a_problem_of_the_provider_stands_where_it_was_written(
    run: Run, monkeypatch: pytest.MonkeyPatch, provider: dict[str, Any], place: str
) -> None:
    """The report names the keys of the file, not those that `run` makes of them."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    result = run("run", "Hello", config={"provider": provider})
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{place}: "), result.stderr


def test_a_pipe_gets_no_escape_codes(tmp_path: Path) -> None:
    """Bytes out are the answer in UTF-8."""
    path = str(write_config(tmp_path, REPLAY))
    ended = run_command(
        "run", "-", "--config", path, "--model", "demo", home=tmp_path / "home", stdin=b"Hello"
    )
    assert (ended.returncode, ended.stdout.decode(), ended.stderr) == (0, HELLO, b"")


def test_text_comes_as_it_is_said_and_an_interrupt_ends_the_turn(tmp_path: Path) -> None:
    """The first word is there while the model is silent; Ctrl-C is exit code 130, without a traceback."""
    args = ["run", script({"text": "first "}, {"stall": True}), "--model", "demo"]
    with subprocess.Popen(
        command(*args, "--config", str(write_config(tmp_path, REPLAY))),
        env=environment(tmp_path / "home"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(6) == b"first "
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=5)
    assert (process.returncode, errors.strip()) == (130, b"")


def test_a_reader_that_leaves_ends_the_turn(tmp_path: Path) -> None:
    """`| head` is no reason for a traceback."""
    with subprocess.Popen(
        command("run", "x", "--model", "long", "--config", str(write_config(tmp_path, REPLAY))),
        env=environment(tmp_path / "home"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == b"word1"
        process.stdout.close()
        assert process.stderr is not None
        errors = process.stderr.read()
    assert (process.returncode, errors) == (1, b"")


# --- models ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [["models"], ["models", "list"]])
def test_models_are_listed(run: Run, args: list[str]) -> None:
    """A table with one line a model and prices per million tokens."""
    config = {**REPLAY, "prices": {"demo": {"input": "0.0000025", "output": "1e-5"}}}
    result = run(*args, config=config)
    head, *lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert head.split()[:3] == ["model", "provider", "context"]
    demo = next(line for line in lines if line.startswith("demo "))
    assert demo.split()[:5] == ["demo", "replay", "128,000", "2.5", "10"]
    assert next(line for line in lines if line.startswith("think ")).split()[3:5] == ["?", "?"]


def test_models_as_json(run: Run) -> None:
    """A list that programs read: the entries of `GET /v1/models`."""
    listed = json.loads(run("models", "--json").stdout)
    demo = listed[0]
    assert (demo["id"], demo["_provider"], demo["limit"]) == (
        "demo",
        "replay",
        {"context": 128_000, "output": 16_384},
    )
    assert demo["cost"] == {"input": None, "output": None}
    assert demo["cost_tier"] == "free"
