"""`trio-agent serve --workers N`: how it begins, ends, and outlives its workers."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from support.serving import Served, run_command, script, until, write_config
from support.worked import working

STALL = script({"text": "a"}, {"stall": True})


def config(grace: float = 5, **server: Any) -> dict[str, Any]:
    return {"providers": {"replay": {}}, "server": {"shutdown_grace": grace, **server}}


def outcomes(home: Path) -> Counter[tuple[str, str | None]]:
    """Outcome and reason of every turn in a home's database."""
    with closing(sqlite3.connect(f"file:{home / 'store.sqlite3'}?mode=ro", uri=True)) as database:
        return Counter(database.execute("SELECT outcome, reason FROM turns").fetchall())


def state(server: Served) -> dict[str, Any]:
    """What the supervisor says in its state file."""
    found: dict[str, Any] = json.loads((server.home / "state" / "serve.json").read_bytes())
    assert found["pid"] == server.process.pid
    return found


def chat(text: str, *, stream: bool = True) -> dict[str, Any]:
    return {"model": "demo", "stream": stream, "messages": [{"role": "user", "content": text}]}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionError:
        return False
    return True


def test_workers_serve_one_address_and_end_together(tmp_path: Path) -> None:
    """One announcement, both workers answer, a stream ends well after SIGTERM; exit 0, nothing is left."""
    with working(tmp_path, config()) as workers:
        pids = [workers.pid(1), workers.pid(2)]
        announced = workers.server.log.read_text()
        assert announced.count("trio-agent serves") == 1
        assert "with 2 workers" in announced
        assert state(workers.server)["workers"] == pids
        slow = script({"text": "a"}, {"sleep": 0.5}, {"text": "b"})
        with workers.client(1).stream("POST", "/v1/chat/completions", json=chat(slow)) as answer:
            lines = answer.iter_lines()
            until(lambda: '"a"' in next(lines))
            workers.server.signal()
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert workers.server.end() == 0
        assert outcomes(workers.server.home) == {("completed", "stop"): 1}
        assert not any(alive(pid) for pid in pids)
        assert not accepts(workers.server.port)
        assert "Traceback" not in workers.server.log.read_text()


def test_workers_say_farewell_in_time(tmp_path: Path) -> None:
    """Streams that outlast the grace period end with an event that says so, in every worker."""
    with working(tmp_path, config(0.3)) as workers:
        streams = [workers.client(number) for number in (1, 2)]
        with (
            streams[0].stream("POST", "/v1/chat/completions", json=chat(STALL)) as one,
            streams[1].stream("POST", "/v1/chat/completions", json=chat(STALL)) as other,
        ):
            workers.server.signal()
            assert all("server_shutdown" in answer.read().decode() for answer in (one, other))
        assert workers.server.end() == 0, "long before the streams would end by themselves"
        assert outcomes(workers.server.home) == {("cancelled", "shutdown"): 2}


def test_a_second_signal_ends_all_workers_at_once(tmp_path: Path) -> None:
    """The grace period is not waited for; outcomes are written all the same."""
    with working(tmp_path, config(60)) as workers:
        with workers.client(2).stream("POST", "/v1/chat/completions", json=chat(STALL)) as answer:
            lines = answer.iter_lines()
            until(lambda: '"a"' in next(lines))
            workers.server.signal(signal.SIGINT)
            until(lambda: "a second signal" in workers.server.log.read_text())
            workers.server.signal(signal.SIGINT)
            assert workers.server.end() == 0
        assert outcomes(workers.server.home) == {("cancelled", "shutdown"): 1}


def test_workers_end_with_their_supervisor(tmp_path: Path) -> None:
    """kill -9 of the supervisor: the workers let their turns end, and end; the port is free."""
    with working(tmp_path, config()) as workers:
        pids = [workers.pid(1), workers.pid(2)]
        slow = script({"text": "a"}, {"sleep": 0.5}, {"text": "b"})
        with workers.client(1).stream("POST", "/v1/chat/completions", json=chat(slow)) as answer:
            lines = answer.iter_lines()
            until(lambda: '"a"' in next(lines))
            workers.server.signal(signal.SIGKILL)
            assert [line for line in lines if line][-1] == "data: [DONE]"
        until(lambda: not any(alive(pid) for pid in pids))
        assert not accepts(workers.server.port)


def test_problems_of_workers_are_told_once(tmp_path: Path) -> None:
    """What each worker would find at boot, and what the supervisor found, stand in one report; exit 2."""
    bad = {"providers": {"lab": {"module": "nothing-of-that-name"}}, "server": {"api_key": "x"}}
    path = write_config(tmp_path, bad)
    ended = run_command(
        "serve", "--workers", "4", "--config", str(path), "--bind", "0.0.0.0", home=tmp_path / "home"
    )
    report = ended.stderr.decode()
    assert ended.returncode == 2
    assert report.count("[config_invalid_provider_module]") == 1
    assert report.count("[config_weak_key]") == 1
    assert "Traceback" not in report
