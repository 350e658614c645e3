"""`SIGHUP`: a running server reads its configuration again; all of it, or nothing."""

from __future__ import annotations

import json
import signal
import sqlite3
from pathlib import Path
from typing import Any

from support.chat_socket import Caller
from support.serving import KEY, Served, events, run_command, script, serving, until, write_config

WAITS = script({"text": "a"}, {"sleep": 1.0}, {"text": "b"})


def config(*, server: Any = None, **more: Any) -> dict[str, Any]:
    return {"providers": {"replay": {}}, "server": {"shutdown_grace": 10, **(server or {})}, **more}


def log_of(server: Served) -> str:
    return server.log.read_text()


def state_of(server: Served) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((server.home / "state" / "serve.json").read_text())
    return state


def reload(folder: Path, server: Served, wanted: Any) -> str:
    """Put another file there, ask for it, and wait for what the server says."""
    if isinstance(wanted, str):
        (folder / "host_config.json").write_text(wanted)
    else:
        write_config(folder, wanted)
    before = len(log_of(server))
    server.signal(signal.SIGHUP)
    until(lambda: "configuration " in log_of(server)[before:])
    return log_of(server)[before:]


def audit_of(server: Served) -> list[tuple[str, dict[str, Any]]]:
    database = sqlite3.connect(f"file:{server.home / 'store.sqlite3'}?mode=ro", uri=True)
    try:
        rows = database.execute("SELECT kind, details FROM audit ORDER BY number").fetchall()
        return [(kind, json.loads(details)) for kind, details in rows]
    finally:
        database.close()


def test_a_reload_takes_effect_and_is_told(tmp_path: Path) -> None:
    """In the log, the audit log and the state file, by the names of keys alone; a running stream goes on."""
    origin = "https://app.example.com"
    with serving(tmp_path, config()) as server:
        caller = Caller(server, WAITS)
        caller.until(b'"a"')
        told = reload(
            tmp_path,
            server,
            config(
                server={"cors_origins": [origin]},
                routing={"aliases": {"mine": "demo"}},
                agent={"system_prompt": "a secret of the prompt"},
            ),
        )
        assert "changed: server.cors_origins, agent.system_prompt, routing.aliases.mine" in told
        assert origin not in told
        assert server.say(model="mine").status_code == 200
        answer = server.client.get("/v1/models", headers={"origin": origin})
        assert answer.headers["access-control-allow-origin"] == origin
        *_, done = events(caller.rest())
        assert done == "[DONE]"
        until(lambda: state_of(server)["reload"])
        assert state_of(server)["reload"]["ok"] is True
        server.signal()
        assert server.end() == 0
        kinds = [kind for kind, _ in audit_of(server)]
        assert kinds == ["server.started", "config.loaded", "config.reloaded", "server.stopped"]
        (details,) = [details for kind, details in audit_of(server) if kind == "config.reloaded"]
        assert details["changed"] == ["server.cors_origins", "agent.system_prompt", "routing.aliases.mine"]


def test_a_bad_file_changes_nothing(tmp_path: Path) -> None:
    """The problems are told as `config check` tells them, and the server goes on as before."""
    with serving(tmp_path, config()) as server:
        for wrong, problem in (
            ('{"providers": ', "config_malformed_json"),
            (json.dumps(config(agnt={})), "there is no key"),
            (json.dumps(config(providers={"nobody": {}})), "config_invalid_provider_module"),
            (json.dumps(config(store={"url": "sqlite:///tmp/elsewhere.db"})), "config_needs_restart"),
        ):
            told = reload(tmp_path, server, wrong)
            (line,) = [
                line for line in told.splitlines() if "configuration not reloaded, the one before" in line
            ]
            assert json.loads(line)["level"] == "error"
            assert problem in told
            assert server.say().status_code == 200
        until(
            lambda: (state_of(server)["reload"] or {"problems": [""]})["problems"][0].startswith("store.url")
        )
        assert state_of(server)["reload"]["ok"] is False
        assert reload(tmp_path, server, config()).count("configuration reloaded") == 1
        assert "Traceback" not in log_of(server)
        assert [kind for kind, _ in audit_of(server)].count("config.refused") == 4


def test_a_key_of_the_file_is_exchanged_and_one_of_the_flag_stays(tmp_path: Path) -> None:
    """The next request needs the new key, unless the server was told one when it was started."""
    old, new = "the-old-key-of-the-file", "the-new-key-of-the-file"
    with serving(tmp_path, config(server={"api_key": old}), key=None) as server:
        reload(tmp_path, server, config(server={"api_key": new}))
        statuses = [
            server.client.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code
            for key in (old, new)
        ]
        assert statuses == [401, 200]
        until(lambda: state_of(server)["api_key"] == new)
        assert new not in log_of(server)
    with serving(tmp_path, config(server={"api_key": old})) as server:
        reload(tmp_path, server, config(server={"api_key": new}))
        assert server.client.get("/v1/models").status_code == 200, f"{KEY} wins"
        assert state_of(server)["api_key"] == KEY


def test_a_reload_while_the_server_boots_comes_after_the_boot(tmp_path: Path) -> None:
    """SIGHUP does not end a server that is not ready yet; what was asked for is done once it is."""
    (tmp_path / "boots.py").write_text(
        "import os, signal\n"
        "for _ in range(3):\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "def tool() -> str:\n"
        '    """Says nothing."""\n'
        '    return ""\n'
    )
    with serving(
        tmp_path, config(agent={"tools": ["boots:tool"]}), PYTHONPATH=f"{tmp_path}:{Path.cwd()}"
    ) as server:
        until(lambda: "configuration reloaded" in log_of(server))
        assert server.say().status_code == 200
        assert log_of(server).count("configuration reloaded") == 1


def test_a_reload_while_the_server_ends_does_nothing(tmp_path: Path) -> None:
    """It says so, and running turns finish as they would have."""
    with serving(tmp_path, config()) as server:
        caller = Caller(server, WAITS)
        caller.until(b'"a"')
        server.signal()
        until(lambda: "a second signal" in log_of(server))
        server.signal(signal.SIGHUP)
        until(lambda: "the configuration is not read again" in log_of(server))
        assert events(caller.rest())[-1] == "[DONE]"
        assert server.end() == 0
        assert "configuration reloaded" not in log_of(server)


def test_requests_go_on_while_the_server_reloads(tmp_path: Path) -> None:
    """None is refused and none waits, however often the file is read, and however often it is wrong."""
    with serving(tmp_path, config()) as server:
        for number in range(8):
            wrong = number % 3 == 2
            write_config(
                tmp_path, config(agnt={}) if wrong else config(agent={"max_model_calls": 1 + number})
            )
            server.signal(signal.SIGHUP)
            server.signal(signal.SIGHUP)
            assert [server.say().status_code for _ in range(3)] == [200] * 3
        until(lambda: "changed: agent.max_model_calls" in log_of(server))
        assert server.health()["active_turns"] == 0
        server.signal()
        assert server.end() == 0


def test_the_command_says_what_came_of_it(tmp_path: Path) -> None:
    """`serve reload` asks the server of the home, waits, and fails where the file is refused."""
    with serving(tmp_path, config()) as server:
        write_config(tmp_path, config(agent={"max_model_calls": 3}))
        assert run_command("serve", "reload", home=server.home).returncode == 0
        write_config(tmp_path, config(agnt={}))
        refused = run_command("serve", "reload", home=server.home)
        assert refused.returncode != 0
        assert b"agnt: there is no key" in refused.stdout + refused.stderr
