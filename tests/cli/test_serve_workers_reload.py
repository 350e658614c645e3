"""`SIGHUP` to a server with workers: all of them take the new configuration, or none does."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from support.serving import Served, script, until, write_config
from support.worked import Workers, working

SLOW = script({"text": "a"}, {"sleep": 2}, {"text": "b"})


def config(**aliases: str) -> dict[str, Any]:
    return {
        "providers": {"replay": {}},
        "server": {"shutdown_grace": 5},
        "routing": {"aliases": aliases},
    }


def reload(server: Served, wanted: Any) -> str:
    """Put another file there, ask for it, and wait for what the server says."""
    if isinstance(wanted, str):
        (server.home.parent / "host_config.json").write_text(wanted)
    else:
        write_config(server.home.parent, wanted)
    before = len(server.log.read_text())
    server.signal(signal.SIGHUP)
    until(lambda: "configuration " in server.log.read_text()[before:])
    return server.log.read_text()[before:]


def state(server: Served) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((server.home / "state" / "serve.json").read_text())
    return found


def audited(server: Served) -> list[str]:
    with closing(sqlite3.connect(f"file:{server.home / 'store.sqlite3'}?mode=ro", uri=True)) as database:
        found = database.execute("SELECT kind FROM audit WHERE kind LIKE 'config.re%' ORDER BY number")
        return [kind for (kind,) in found]


def statuses(workers: Workers, model: str) -> list[int]:
    """What each worker answers to a request for this model."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
    return [workers.client(n).post("/v1/chat/completions", json=body).status_code for n in (1, 2)]


def test_all_workers_reload_or_none(tmp_path: Path) -> None:
    """A good file, a bad one, and a worker that starts while the bad one is there."""
    with working(tmp_path, config(first="demo")) as workers:
        server = workers.server
        assert statuses(workers, "first") == [200, 200]
        body = {"model": "first", "stream": True, "messages": [{"role": "user", "content": SLOW}]}
        with (
            closing(workers.another(1)) as client,
            client.stream("POST", "/v1/chat/completions", json=body) as answer,
        ):
            lines = answer.iter_lines()
            until(lambda: '"a"' in next(lines))
            told = reload(server, config(second="demo"))
            assert told.count("configuration reloaded") == 1
            assert "routing.aliases.first, routing.aliases.second" in told
            assert statuses(workers, "second") == [200, 200]
            assert statuses(workers, "first") == [400, 400]
            assert [line for line in lines if line][-1] == "data: [DONE]"
        until(lambda: (state(server)["reload"] or {}).get("ok"))

        told = reload(server, config(third="no-such-model"))
        assert told.count("config_unknown_model") == 1
        assert statuses(workers, "second") == [200, 200]
        until(lambda: not state(server)["reload"]["ok"])
        (problem,) = state(server)["reload"]["problems"]
        assert "routing.aliases.third" in problem

        assert "config_malformed_json" in reload(server, "{")
        # Before a worker is killed: it may be the one that was told to write that down.
        until(lambda: audited(server) == ["config.reloaded", "config.refused", "config.refused"])
        pid = workers.pid(1)
        os.kill(pid, signal.SIGKILL)
        workers.forget()
        assert workers.pid(1) != pid
        assert statuses(workers, "second") == [200, 200]
        server.signal()
        assert server.end() == 0
        assert "Traceback" not in server.log.read_text()
