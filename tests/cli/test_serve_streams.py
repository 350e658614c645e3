"""A server whose standard streams are closed, broken or full: it serves all the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from support.serving import command, environment, until, write_config

from trio_agent.server.claim import Held, look
from trio_agent.server.state_file import ServerState

CONFIG = {"providers": {"replay": {}}}
CLOSED = "<&- >&- 2>&-"
FULL = "2>/dev/full"


@contextmanager
def serving_with(
    streams: str, folder: Path, *args: str
) -> Iterator[tuple[subprocess.Popen[bytes], ServerState]]:
    """A server whose streams the shell redirects like this, and what it announced."""
    home = folder / "home"
    served = command("serve", "--config", str(write_config(folder, CONFIG)), "--port", "0", *args)
    process = subprocess.Popen(
        ["sh", "-c", f'exec "$@" {streams}', "sh", *served], env=environment(home), stdin=subprocess.DEVNULL
    )

    def announced() -> ServerState | None:
        assert process.poll() is None, f"ended with {process.returncode}"
        found = look(home)
        return found.state if isinstance(found, Held) else None

    try:
        yield process, until(announced, 30)
    finally:
        process.kill()
        process.wait()


def check_it_serves_and_reloads(process: subprocess.Popen[bytes], state: ServerState, home: Path) -> None:
    """A turn, a reload with its announcement, and an end in order with another one."""
    url = f"http://127.0.0.1:{state.port}"
    body = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}]}
    until(lambda: httpx.get(f"{url}/health/ready").status_code == 200)
    assert httpx.post(f"{url}/v1/chat/completions", json=body).status_code == 200
    process.send_signal(signal.SIGHUP)
    until(lambda: json.loads((home / "state/serve.json").read_text())["reload"], 10)
    assert httpx.post(f"{url}/v1/chat/completions", json=body).status_code == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


@pytest.mark.parametrize("streams", [CLOSED, FULL])
def test_workers_that_cannot_say_anything_serve(tmp_path: Path, streams: str) -> None:
    """Closed streams, and a full disk under standard error, end neither the servers nor their reloads."""
    with serving_with(streams, tmp_path, "--log-format", "text", "--workers", "2") as (process, state):
        check_it_serves_and_reloads(process, state, tmp_path / "home")


def test_a_reader_of_its_log_that_goes_does_not_end_it(tmp_path: Path) -> None:
    """As with `serve 2>&1 | head`, or a terminal that is closed: what it says next is lost, and no more."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with serving_with(f"2>{pipe}", tmp_path, "--log-format", "text") as (process, state):
        os.close(reader)
        check_it_serves_and_reloads(process, state, tmp_path / "home")


def test_closed_streams_lead_nowhere(tmp_path: Path) -> None:
    """The server serves, and no file of its gets the number of a standard stream."""
    with serving_with(CLOSED, tmp_path) as (process, state):
        streams = [str(Path(f"/proc/{process.pid}/fd/{number}").readlink()) for number in range(3)]
        assert streams == ["/dev/null"] * 3
        check_it_serves_and_reloads(process, state, tmp_path / "home")
