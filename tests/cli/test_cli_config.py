"""`trio-agent config check`: what is right is shown without secrets, what is wrong is told in full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from trio_agent.cli import main

GOOD = '{"providers": {"openai": {"config": {"api_key": "hunter2"}}}, "server": {"api_key": "${K}"}}'
BAD = '{"providers": {"openai": {"confg": {}}}, "server": {"api_key": "${NOT_SET_ANYWHERE}"}}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "host_config.json"


def check(*args: str, **env: str | None) -> Result:
    return CliRunner().invoke(main, ["config", "check", *args], env={"TRIO_AGENT_CONFIG": None, **env})


def test_a_right_configuration_is_printed_masked(path: Path) -> None:
    """Standard output is the configuration in effect, as JSON; the verdict goes to standard error."""
    path.write_text(GOOD, encoding="utf-8")
    result = check("--config", str(path), K="swordfish")
    assert result.exit_code == 0
    shown = json.loads(result.stdout)
    assert shown["server"]["turn_timeout"] == 600.0
    assert shown["server"]["api_key"] == "${K}"
    assert "hunter2" not in result.output
    assert "swordfish" not in result.output
    assert "well" in result.stderr


def test_a_wrong_configuration_is_told_in_full(path: Path) -> None:
    """Every problem is on standard error, nothing on standard output, and the exit code is 2."""
    path.write_text(BAD, encoding="utf-8")
    result = check("--config", str(path))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "providers.openai.confg" in result.stderr
    assert "NOT_SET_ANYWHERE" in result.stderr


def test_the_path_may_come_from_the_environment(path: Path) -> None:
    """TRIO_AGENT_CONFIG names the file where no flag does; the flag wins."""
    path.write_text("{}", encoding="utf-8")
    assert check(TRIO_AGENT_CONFIG=str(path)).exit_code == 0
    assert check("--config", str(path), TRIO_AGENT_CONFIG="/nowhere").exit_code == 0


def test_no_path_is_wrong_usage() -> None:
    """There is no implicit file."""
    result = check()
    assert result.exit_code == 2
    assert "TRIO_AGENT_CONFIG" in result.stderr


def test_a_missing_file_is_a_problem_like_any_other(path: Path) -> None:
    """It has its code, and the exit code is 2."""
    result = check("--config", str(path))
    assert result.exit_code == 2
    assert "config_unreadable" in result.stderr


def test_json_output_of_a_right_configuration(path: Path) -> None:
    """One object with the verdict and the masked configuration."""
    path.write_text(GOOD, encoding="utf-8")
    result = check("--config", str(path), "--json", K="swordfish")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["valid"], found["problems"]) == (0, True, [])
    assert found["config"]["providers"]["openai"]["module"] == "openai"
    assert "hunter2" not in result.stdout


def test_json_output_of_a_wrong_configuration(path: Path) -> None:
    """One object with every problem in all its parts, on standard output, and the exit code is still 2."""
    path.write_text(BAD, encoding="utf-8")
    result = check("--config", str(path), "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["valid"], found["config"]) == (2, False, None)
    assert found["problems"][0] == {
        "code": "config_unknown_key",
        "path": "providers.openai.confg",
        "message": 'there is no key "confg" here',
        "expected": "one of module, config",
        "suggestion": "config",
        "remedy": "write it `config`",
    }
    assert found["problems"][1]["code"] == "config_missing_variable"


def test_an_unknown_provider_module_is_found(path: Path) -> None:
    """By name alone, beside what else is wrong; the nearest names are told."""
    path.write_text(
        '{"providers": {"openia": {}, "lab": {"module": "no_such_package.lab:mount"},'
        ' "ok": {"module": "replay"}},'
        ' "provider": {"module": "anthropik"}, "serer": {}}',
        encoding="utf-8",
    )
    found = json.loads(check("--config", str(path), "--json").stdout)["problems"]
    assert [(each["path"], each["code"]) for each in found] == [
        ("serer", "config_unknown_key"),
        ("providers.openia.module", "config_invalid_provider_module"),
        ("providers.lab.module", "config_invalid_provider_module"),
        ("provider.module", "config_invalid_provider_module"),
    ]
    assert "Did you mean 'openai'" in found[1]["remedy"]
    assert "'anthropic'" in found[3]["remedy"]


def test_wrong_settings_of_a_shipped_module_are_found(path: Path) -> None:
    """Keys, types and prices, with the code that `serve` gives them; no value is shown, plug-ins are free."""
    path.write_text(
        '{"providers": {"openai": {"config": {"bas_url": "s3cret"}}, "groq": {"config": {"api_key": 5}},'
        ' "lab": {"module": "vllm", "config":'
        ' {"models": [{"id": "m", "price": {"input": "x", "output": "1"}}]}},'
        ' "house": {"module": "email:message_from_string", "config": {"bas_url": "free"}}},'
        ' "provider": {"module": "replay", "config": {"wrds": 5}}}',
        encoding="utf-8",
    )
    result = check("--config", str(path), "--json")
    found = json.loads(result.stdout)["problems"]
    assert [(each["path"], each["code"]) for each in found] == [
        ("providers.openai.config.bas_url", "provider_unusable"),
        ("providers.groq.config.api_key", "provider_unusable"),
        ("providers.lab.config.models[0].price.input", "provider_unusable"),
        ("provider.config.wrds", "provider_unusable"),
    ]
    assert "'base_url'" in found[0]["remedy"]
    assert "s3cret" not in result.output


def test_checking_modules_imports_none(path: Path, tmp_path: Path) -> None:
    """A plug-in's code does not run, nor is an HTTP client loaded."""
    (tmp_path / "loud_plugin.py").write_text("raise SystemExit('imported')")
    path.write_text('{"providers": {"openai": {}, "loud": {"module": "loud_plugin:mount"}}}')
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "trio_agent", "config", "check", "--config", str(path)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    loaded = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert loaded.isdisjoint({"trio", "httpx", "h11", "quart", "loud_plugin"})
