"""What happens to a server's home when things go wrong: each has one outcome, and says what it is."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from support.serving import command, environment, run_command, serving, until, write_config

from trio_agent.server.claim import Held, Unclaimed, lock_path, look, state_path

REPLAY = {"providers": {"replay": {}}}


def test_two_at_the_same_instant(tmp_path: Path) -> None:
    """One serves; the other ends with 2 and names it, or says that it is starting."""
    path = str(write_config(tmp_path, REPLAY))
    home = tmp_path / "home"
    both = [
        subprocess.Popen(
            command("serve", "--config", path, "--port", "0"), env=environment(home), stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    try:
        until(lambda: any(process.poll() is not None for process in both))
        lost, won = sorted(both, key=lambda process: process.poll() is None)
        _, errors = lost.communicate(timeout=5)
        assert lost.returncode == 2, errors
        assert f"already, process {won.pid}".encode() in errors
        assert b"[home_in_use]" in errors
        held = until(lambda: (found := look(home)) and isinstance(found, Held) and found.state)
        assert held.pid == won.pid
        won.terminate()
        assert won.wait(10) == 0
    finally:
        for process in both:
            process.kill()
            process.communicate()


def test_a_home_that_vanishes_while_it_serves(tmp_path: Path) -> None:
    """The server goes on with what it has open, and ends in order; nobody finds it by the home any more."""
    with serving(tmp_path, REPLAY) as server:
        assert server.say().status_code == 200
        server.home.rename(tmp_path / "moved")
        assert look(server.home) == Unclaimed()
        status = run_command("serve", "status", home=server.home)
        assert (status.returncode, b"no server runs" in status.stdout) == (1, True)
        assert server.client.get("/health/ready").status_code == 200
        assert isinstance(look(tmp_path / "moved"), Held), "its claim went along"
        server.signal()
        assert server.end() == 0
        assert "Traceback" not in server.log.read_text()


def test_after_a_crash_the_next_server_has_the_home(tmp_path: Path) -> None:
    """Whatever lies about from the last one, half a state file included, is replaced and hinders nobody."""
    with serving(tmp_path, REPLAY) as first:
        first.process.kill()
        first.end()
        state_path(first.home).write_bytes(state_path(first.home).read_bytes()[:50])
        state_path(first.home).with_name("serve.json.new").write_bytes(b"{")
        assert lock_path(first.home).read_bytes(), "its note is there still"
    with serving(tmp_path, REPLAY) as second:
        found = look(second.home)
        assert isinstance(found, Held)
        assert found.state is not None
        assert found.state.pid == second.process.pid
        second.signal()
        assert second.end() == 0
        assert {path.name for path in (second.home / "state").iterdir()} == {"serve.lock"}


def test_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    """Every place that could not be written is one problem of the report, and nothing is served."""
    path = str(write_config(tmp_path, REPLAY))
    limited = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh"]
    ended = subprocess.run(
        [*limited, *command("serve", "--config", path, "--port", "0")],
        env=environment(tmp_path / "home", PYTHONDONTWRITEBYTECODE="1"),
        capture_output=True,
        timeout=30,
        check=False,
    )
    text = ended.stderr.decode()
    assert ended.returncode == 2, text
    assert f"{lock_path(tmp_path / 'home')} cannot be used: {os.strerror(27)} [state_unusable]" in text
    assert "[store_unusable]" in text
    assert "Traceback" not in text
    assert isinstance(look(tmp_path / "home"), Unclaimed)
