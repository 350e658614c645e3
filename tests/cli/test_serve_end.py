"""How `trio-agent serve` ends: in order, at once, and by force; and what a restart finds."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from support.chat_socket import STALL, Caller
from support.serving import events, run_command, script, serving, until

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
GONE = ("cancelled", "shutdown")


def outcomes(home: Path) -> Counter[tuple[str, str | None]]:
    """Outcome and reason of every turn in a home's database."""
    database = sqlite3.connect(f"file:{home / 'store.sqlite3'}?mode=ro", uri=True)
    try:
        return Counter(database.execute("SELECT outcome, reason FROM turns").fetchall())
    finally:
        database.close()


def config(grace: float, **replay: Any) -> dict[str, Any]:
    return {
        "providers": {"replay": {"config": replay}},
        "server": {"shutdown_grace": grace, "preflight_timeout": 30},
    }


def test_running_turns_finish_within_the_grace_period(tmp_path: Path) -> None:
    """SIGTERM: nobody new is let in, the stream goes on to its end, exit 0."""
    with serving(tmp_path, config(10)) as server:
        caller = Caller(server, script({"text": "a"}, {"sleep": 0.4}, {"text": "b"}))
        caller.until(b'"a"')
        with socket.create_connection(("127.0.0.1", server.port)) as idle:
            server.signal()
            assert idle.recv(1) == b""
        until(lambda: not _accepts(server.port))
        *chunks, done = events(caller.rest())
        assert done == "[DONE]"
        assert json.loads(chunks[-1])["choices"][0]["finish_reason"] == "stop"
        assert server.end() == 0
        assert outcomes(server.home) == {("completed", "stop"): 1}


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionError:
        return False
    return True


def test_readiness_goes_off_first(tmp_path: Path) -> None:
    """For `shutdown_delay` seconds a kept-alive client sees 503 on /health/ready, and turns are still taken;
    the service manager hears of each step, and the end is in time."""
    slow = {**config(10), "server": {"shutdown_delay": 0.5}}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        with serving(tmp_path, slow, NOTIFY_SOCKET=str(tmp_path / "notify")) as server:
            assert manager.recv(1000).decode().startswith("READY=1\nSTATUS=serves ")
            assert server.client.get("/health/ready").json() == {"status": "ready"}
            began = time.monotonic()
            server.signal()
            assert manager.recv(1000).decode().startswith("STOPPING=1\n")
            assert server.client.get("/health/ready").status_code == 503
            assert server.say().status_code == 200
            assert server.end() == 0
            assert 0.5 <= time.monotonic() - began < 0.5 + 2


def test_turns_that_outlast_the_grace_period_are_told(tmp_path: Path) -> None:
    """Fifty streams, others before their status, and one client that never reads: all end in time, all told
    who read, one row each."""
    with serving(tmp_path, config(0.3, words=100_000)) as server:
        streams = [Caller(server, STALL) for _ in range(50)]
        waiting = [Caller(server, script({"stall": True}), stream=stream) for stream in (True, False)]
        half = Caller(server, STALL, stream=False)
        deaf = Caller(server, "", model="long")
        for caller in streams:
            caller.until(b'"a"')
        until(lambda: server.health()["active_turns"] == 54)
        began = time.monotonic()
        server.signal()
        for caller in streams:
            *_, error, done = events(caller.rest())
            assert done == "[DONE]"
            assert json.loads(error)["error"]["code"] == "server_shutdown"
        for caller in (*waiting, half):
            answer = json.loads(caller.rest())
            assert (caller.status, answer["error"]["code"]) == (503, "server_shutdown")
        assert server.end() == 0
        assert time.monotonic() - began < 0.3 + 2
        deaf.close()
        assert outcomes(server.home) == {GONE: 54}
        assert "Traceback" not in server.log.read_text()


def test_a_second_signal_ends_everything_at_once(tmp_path: Path) -> None:
    """The grace period is not waited for; outcomes are written all the same."""
    with serving(tmp_path, config(60)) as server, closing(Caller(server, STALL)) as caller:
        caller.until(b'"a"')
        server.signal(signal.SIGINT)
        until(lambda: "a second signal" in server.log.read_text())
        began = time.monotonic()
        server.signal()
        assert server.end() == 0
        assert time.monotonic() - began < 10
        assert outcomes(server.home) == {GONE: 1}
        assert "Traceback" not in server.log.read_text()


def test_idle_servers_end_soon(tmp_path: Path) -> None:
    """Without turns, idle keep-alive connections do not hold the process."""
    with serving(tmp_path, config(60)) as server:
        assert server.say().status_code == 200
        began = time.monotonic()
        server.signal()
        assert server.end() == 0
        assert time.monotonic() - began < 10


def test_what_a_killed_server_leaves_is_closed_and_goes_on(tmp_path: Path) -> None:
    """kill -9: after the restart a running turn is `abandoned`, a parked one goes on, signature and all."""
    question: list[dict[str, Any]] = [{"role": "user", "content": "Rain?"}]
    with serving(tmp_path, config(10)) as server, closing(Caller(server, STALL)) as running:
        running.until(b'"a"')
        parked = server.chat({"model": "think", "messages": question, "tools": [WEATHER]})
        message = parked.json()["choices"][0]["message"]
        assert server.health()["parked_turns"] == 1
        server.signal(signal.SIGKILL)
        server.end()
        assert outcomes(server.home)[("running", None)] == 1
    with serving(tmp_path, config(10)) as server:
        assert [outcome for outcome, _ in outcomes(server.home)] == ["abandoned", "parked"]
        result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "Rain"}
        history = [*question, {"role": "assistant", "tool_calls": message["tool_calls"]}, result]
        answer = server.chat({"model": "think", "messages": history, "tools": [WEATHER]})
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-turn-id"] == parked.headers["x-turn-id"]
        assert "The tool answered: Rain" in answer.json()["choices"][0]["message"]["content"]
        assert server.health()["parked_turns"] == 0
        server.signal()
        assert server.end() == 0
        assert {outcome for outcome, _ in outcomes(server.home)} == {"abandoned", "completed"}


def test_other_commands_leave_running_turns_alone(tmp_path: Path) -> None:
    """A second process on the same home closes nothing that still runs."""
    with serving(tmp_path, config(10)) as first, closing(Caller(first, STALL)) as caller:
        caller.until(b'"a"')
        path = str(tmp_path / "host_config.json")
        ended = run_command("run", "--config", path, "--model", "demo", "Hello", home=first.home)
        assert ended.returncode == 0, ended.stderr
        assert outcomes(first.home) == {("running", None): 1, ("completed", "stop"): 1}
        caller.close()
        until(lambda: outcomes(first.home)[("cancelled", "client_disconnected")] == 1)
