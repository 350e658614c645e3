"""`trio-agent serve` before it serves: every problem is told with its remedy, and nothing is served."""

from __future__ import annotations

import json
import os
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
from trio_agent.server.options import ServeOptions
from trio_agent.server.state_file import read_state

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
    monkeypatch.setattr("trio_agent.cli.serve.log_to_stderr", lambda level, form: None)

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


def test_the_file_the_address_and_the_boot_in_one_report(refused: Refused, tmp_path: Path) -> None:
    """What is wrong in the file hides nothing of what only trying shows: all is told, and each once."""
    (tmp_path / "no-database").mkdir()
    config = {
        "serer": {},
        "server": {"turn_timeout": "soon"},
        "providers": {
            "unset": {"module": "chat-completions", "config": {"api_key": "${NOT_SET_ANYWHERE}"}},
            "openia": {},
            "dead": {"module": "chat-completions", "config": {"base_url": "http://127.0.0.1:1/v1"}},
            "fine": {"module": "replay"},
        },
        "agent": {"tools": ["no_such_module:tool"]},
        "routing": {
            "aliases": {"a": "fine/demoo", "b": "dead/any", "c": "unset/any", "d": "any", "e": "fine/demo"},
            "roles": {"r": ["a", "fine/nope", "e", "dead/any"], "s": 7},
        },
        "store": {"url": f"sqlite://{tmp_path}/no-database"},
    }
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = refused(config, "--port", str(taken.getsockname()[1]))
    blocks = [block.splitlines() for block in text.strip().split("\n\n")]
    assert [lines[0].partition(": ")[0] for lines in blocks] == [
        "serer",
        "server.turn_timeout",
        "providers.unset.config.api_key",
        "routing.roles.s",
        "--bind, --port",
        "agent.tools[0]",
        "providers.openia.module",
        "providers.dead",
        "routing.aliases.a",
        "routing.roles.r[1]",
        "store.url",
    ]
    assert all(len(lines[-1]) > len("  fix: ") and lines[-1].startswith("  fix: ") for lines in blocks), text
    assert "  fix: see the message" not in text


def test_a_weak_key_is_told_beside_the_boot(refused: Refused) -> None:
    """The key of the file, too; where the file's key cannot be known, nothing is said of it."""
    config = {"providers": {"nope": {}}, "server": {"api_key": "changeme"}}
    text = refused(config, "--bind", "0.0.0.0")
    assert text.index("[config_weak_key]") < text.index("[config_invalid_provider_module]")
    config["server"] = {"api_key": "${NOT_SET_ANYWHERE}"}
    text = refused(config, "--bind", "0.0.0.0")
    assert "[config_missing_variable]" in text
    assert "[config_insecure_binding]" not in text
    assert "[config_invalid_provider_module]" in text


def test_an_unusable_home_hides_nothing(refused: Refused, tmp_path: Path) -> None:
    """The folder is one problem among the others."""
    (tmp_path / "file").write_text("")
    text = refused({"providers": {"nope": {}}}, TRIO_AGENT_HOME=str(tmp_path / "file"))
    assert "[config_home_unusable]" in text
    assert "[config_invalid_provider_module]" in text


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


def test_a_workspace_that_cannot_be(refused: Refused, tmp_path: Path) -> None:
    """A name that leads out of the home, and a second database, are problems beside the others."""
    config: Any = {"providers": {"nope": {}}}
    text = refused(config, "--workspace", "../a")
    assert '--workspace: "../a" cannot be the name of a workspace [config_invalid_value]' in text
    assert "[config_invalid_provider_module]" in text
    config["store"] = {"url": f"sqlite://{tmp_path}/other.db"}
    text = refused(config, TRIO_AGENT_WORKSPACE="a")
    assert text.index("[config_invalid_provider_module]") < text.index("store.url: ")
    assert not (tmp_path / "other.db").exists()
    assert not (tmp_path / "home" / "workspaces").exists()


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


def test_a_name_that_is_no_text(tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that the state file could not hold is refused by its option; a home may have such a name."""
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    assert "--config has a name that is not UTF-8" in refused(REPLAY, "--config", str(odd / "c.json"))
    assert "--record has a name that is not UTF-8" in refused(REPLAY, "--record", str(odd))
    with monkeypatch.context() as inside:
        inside.chdir(odd)
        assert "started in has a name that is not UTF-8" in refused(REPLAY)
        odd.rmdir()
        assert "started in is not there any more" in refused(REPLAY)
    status = run_command("serve", "status", "--json", home=odd)
    assert (status.returncode, json.loads(status.stdout)["status"]) == (1, "not_running")


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


def test_what_the_state_file_says(tmp_path: Path) -> None:
    """All that the server is and was told, for this user alone, while it runs; afterwards it is gone."""
    with serving(tmp_path, REPLAY, "--workspace", "team-a") as server:
        path = server.home / "state" / "serve.json"
        state = read_state(path)
        assert state is not None
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (state.pid, state.host, state.port) == (server.process.pid, "127.0.0.1", server.port)
        config = str(tmp_path / "host_config.json")
        assert state.options == ServeOptions(config=config, port=0, api_key=KEY, workspace="team-a")
        assert (state.config, state.workspace, state.api_key) == (config, "team-a", KEY)
        assert state.models == state.providers["replay"] > 1
        assert 0 <= time.time() - state.started_at < 60
        assert server.health()["workspace"] == "team-a"
        assert (server.home / "workspaces" / "team-a" / "store.sqlite3").exists()
        assert not (server.home / "store.sqlite3").exists()
        server.signal()
        assert server.end() == 0
        assert not path.exists()


def test_logs_hold_a_line_a_turn_and_no_secret(tmp_path: Path) -> None:
    """JSON in every line; one with id, model, outcome and usage; neither keys nor what was said."""
    with serving(tmp_path, REPLAY) as server:
        turn_id = server.say("a-private-word", stream=True).headers["x-turn-id"]
        server.client.get("/v1/models", headers={"authorization": "Bearer wrong-key-of-a-stranger"})
        server.chat(b"{a-private-word")
        server.signal()
        assert server.end() == 0
        log = server.log.read_text()
    entries = [json.loads(line) for line in log.splitlines()]
    (turn,) = [each for each in entries if each.get("turn_id") == turn_id]
    assert (turn["event"], turn["model"], turn["outcome"]) == ("turn", "demo", "completed")
    assert turn["usage"]["output_tokens"] > 0
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


def test_a_signal_before_the_boot_is_heard(tmp_path: Path) -> None:
    """While the configuration is being read already: the process ends in order, not by the signal."""
    path = tmp_path / "host_config.json"
    os.mkfifo(path)
    process = subprocess.Popen(
        command("serve", "--config", str(path), "--port", "0"),
        env=environment(tmp_path / "home"),
        stderr=subprocess.PIPE,
    )
    try:
        with path.open("w") as pipe:  # opens when the server does
            process.send_signal(signal.SIGTERM)
            pipe.write(json.dumps(REPLAY))
        _, errors = process.communicate(timeout=10)
        assert process.returncode == 0, errors
        assert b"Traceback" not in errors
        assert b"trio-agent serves" not in errors
    finally:
        process.kill()
        process.wait()
