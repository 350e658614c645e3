"""`trio-agent serve` before it serves: every problem is told with its remedy, and nothing is served."""

from __future__ import annotations

import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.serving import KEY, command, environment, run_command, serving, write_config

from trio_agent.cli import main

REPLAY = {"providers": {"replay": {}}}


def check_refusal(exit_code: int, out: str, text: str) -> str:
    """Exit code 2, the reasons on standard error, and no word of serving."""
    assert (exit_code, out) == (2, ""), text
    assert "Traceback" not in text
    assert "trio-agent serves" not in text
    return text


Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Runs a `serve` of this process that must not serve; returns what it says. Its log goes nowhere."""
    monkeypatch.setattr("trio_agent.cli.serve.log_to_stderr", lambda level: None)

    def refused(config: Any, *args: str, **env: str) -> str:
        given = ["serve", "--config", str(write_config(tmp_path, config)), "--port", "0", *args]
        ended = CliRunner().invoke(main, given, env={"TRIO_AGENT_HOME": str(tmp_path / "home"), **env})
        return check_refusal(ended.exit_code, ended.stdout, ended.stderr)

    return refused


def test_all_boot_problems_at_once(tmp_path: Path) -> None:
    """Missing module, missing key, dead server, bad option, bad tool: one report, each with a remedy."""
    config = {
        "providers": {
            "nope": {},
            "openai": {},
            "lab": {"module": "chat-completions", "config": {"base_url": "http://127.0.0.1:1/v1"}},
            "replay": {"config": {"modles": ["demo"]}},
            "fine": {"module": "replay"},
        },
        "agent": {"tools": ["no_such_module:tool"]},
    }
    path = str(write_config(tmp_path, config))
    ended = run_command("serve", "--config", path, "--port", "0", home=tmp_path / "home")
    text = check_refusal(ended.returncode, ended.stdout.decode(), ended.stderr.decode())
    blocks = {block.partition(":")[0]: block for block in text.strip().split("\n\n")}
    assert list(blocks) == [
        "agent.tools[0]",
        "providers.nope.module",
        "providers.openai.config.api_key",
        "providers.lab",
        "providers.replay.config.modles",
    ]
    assert all("\n  fix: " in block for block in blocks.values()), text
    assert "[config_invalid_provider_module]" in blocks["providers.nope.module"]
    assert "OPENAI_API_KEY" in blocks["providers.openai.config.api_key"]
    assert "models" in blocks["providers.replay.config.modles"]


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({}, "providers"),
        ({"providers": {}}, "providers"),
        ({"providers": {"replay": {"confg": {}}}}, "providers.replay.confg"),
        ({"providers": {"replay": {"config": {"models": []}}}}, "providers.replay"),
        ({**REPLAY, "routing": {"aliases": {"a": "demoo"}}}, "routing.aliases.a"),
        ({**REPLAY, "routing": {"roles": {"r": ["demo", "nope"]}}}, "routing.roles.r[1]"),
        ({**REPLAY, "server": {"preflight_timeout": "5"}}, "server.preflight_timeout"),
    ],
)
def test_a_configuration_that_cannot_serve(refused: Refused, config: Any, place: str) -> None:
    """The report begins with the place."""
    assert refused(config).startswith(f"{place}: ")


def test_no_configuration(tmp_path: Path) -> None:
    """There is no implicit file; the message says how to give one."""
    ended = run_command("serve", home=tmp_path / "home")
    assert ended.returncode == 2
    assert b"--config" in ended.stderr
    assert b"TRIO_AGENT_CONFIG" in ended.stderr


@pytest.mark.parametrize(
    ("args", "key", "code"),
    [
        (["--bind", "0.0.0.0"], None, "config_insecure_binding"),
        (["--bind", "::"], None, "config_insecure_binding"),
        (["--bind", "0.0.0.0"], "changeme-changeme", "config_weak_key"),
        (["--bind", "0.0.0.0"], "short-1", "config_weak_key"),
        (["--bind", "http://127.0.0.1:80"], None, "config_invalid_value"),
        (["--bind", "no-such-host.invalid"], KEY, "address_unusable"),
        (["--api-key", ""], None, "--api-key is empty"),
        (["--port", "65536"], None, "65536"),
        (["responses"], None, "responses"),
    ],
)
def test_an_address_that_must_not_be_served(
    refused: Refused, args: list[str], key: str | None, code: str
) -> None:
    """Other machines only with a key worth the name; what is no address is told."""
    env = {} if key is None else {"TRIO_AGENT_API_KEY": key}
    assert code in refused(REPLAY, *args, **env)


def test_a_port_in_use(refused: Refused) -> None:
    """The message names the port and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = refused(REPLAY, "--port", str(port))
    assert f"port {port} on 127.0.0.1 is already in use" in text
    assert "[address_unusable]" in text


def test_variables_flags_and_the_synonym(tmp_path: Path) -> None:
    """Every flag has a variable, flags win; `serve chat-completions` is `serve`."""
    with serving(
        tmp_path, REPLAY, "chat-completions", "--bind", "127.0.0.1",
        TRIO_AGENT_PORT="1", TRIO_AGENT_BIND="203.0.113.1", TRIO_AGENT_LOG_LEVEL="error",
    ) as server:  # fmt: skip
        assert server.port != 1
        assert server.say().status_code == 200
        assert server.client.get("/v1/models", headers={"authorization": "Bearer x"}).status_code == 401
        assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


def test_logs_hold_a_line_a_turn_and_no_secret(tmp_path: Path) -> None:
    """One line with id, model, outcome and usage; neither keys nor what was said."""
    with serving(tmp_path, REPLAY) as server:
        turn_id = server.say("a-private-word", stream=True).headers["x-turn-id"]
        server.client.get("/v1/models", headers={"authorization": "Bearer wrong-key-of-a-stranger"})
        server.chat(b"{a-private-word")
        server.signal()
        assert server.end() == 0
        log = server.log.read_text()
    (line,) = [line for line in log.splitlines() if turn_id in line]
    assert "outcome=completed" in line
    assert "model=demo" in line
    assert not any(secret in log for secret in (KEY, "a-private-word", "wrong-key-of-a-stranger"))


def test_a_signal_while_booting_ends_the_boot(tmp_path: Path) -> None:
    """A provider that does not answer is not waited for."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        config = {
            "providers": {"lab": {"module": "chat-completions", "config": {"base_url": url, "api_key": "k"}}}
        }
        process = subprocess.Popen(
            command("serve", "--config", str(write_config(tmp_path, config)), "--port", "0"),
            env=environment(tmp_path / "home"),
            stderr=subprocess.PIPE,
        )
        try:
            silent.settimeout(10)
            connection, _ = silent.accept()
            with connection:
                began = time.monotonic()
                process.send_signal(signal.SIGTERM)
                _, errors = process.communicate(timeout=5)
                assert time.monotonic() - began < 5
            assert b"Traceback" not in errors
        finally:
            process.kill()
            process.wait()
