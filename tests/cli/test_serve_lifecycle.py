"""`serve status`, `stop` and `reload` from outside: what they tell, whom they signal, exit codes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
import trio
from click.testing import CliRunner, Result
from support.chat_socket import STALL, Caller
from support.serving import KEY, run_command, serving, until, write_config
from trio.testing import MockClock

from trio_agent.cli import main
from trio_agent.cli.signalling import NotEndedError, ask_to_reload, end_server
from trio_agent.private_files import FileLock
from trio_agent.server.claim import Claim, Held, Unclaimed, lock_path, look, state_path, take_claim_now
from trio_agent.server.options import ServeOptions
from trio_agent.server.process import this_process
from trio_agent.server.state_file import Reloaded, ServerState, machine_clock, write_state

REPLAY = {"providers": {"replay": {}}}
Serve = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def serve(home: Path) -> Serve:
    """Runs `trio-agent serve …` in this process, for this test's home."""

    def serve(*args: str) -> Result:
        return CliRunner().invoke(main, ["serve", *args], env={"TRIO_AGENT_HOME": str(home)})

    return serve


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that nobody may signal."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def state(pid: int, **fields: Any) -> ServerState:
    return ServerState(
        pid=pid,
        started_at=1.0,
        host="127.0.0.1",
        port=1,
        options=ServeOptions(),
        cwd="/",
        version="1",
        **fields,
    )


def test_a_server_from_outside(tmp_path: Path, home: Path, serve: Serve) -> None:
    """Healthy while it runs; no second one; known without its state file; stopped, and that again."""
    assert serve("status").exit_code == 1
    config = {**REPLAY, "routing": {"aliases": {"nick": "replay/demo"}}}
    with serving(tmp_path, config, "--workspace", "a") as server:
        shown = serve("status")
        assert shown.exit_code == 0
        assert f"the server, process {server.process.pid}, serves on {server.url}" in shown.stdout
        told = json.loads(serve("status", "--json").stdout)
        assert (told["status"], told["pid"], told["workspace"]) == ("running", server.process.pid, "a")
        assert told["models"] == sum(told["providers"].values())
        assert 0 <= told["uptime_seconds"] < 60
        assert KEY not in shown.output + json.dumps(told)

        second = run_command("serve", "--config", str(tmp_path / "host_config.json"), home=home)
        assert second.returncode == 2
        assert f"process {server.process.pid}, on {server.url} [home_in_use]".encode() in second.stderr
        assert b"serve stop" in second.stderr

        state_path(home).unlink()
        shown = serve("status")
        assert shown.exit_code == 1
        assert f"process {server.process.pid}, runs on {server.url}" in shown.stdout
        assert "serve reload` writes it anew" in shown.stdout
        assert serve("reload").exit_code == 0
        assert serve("status").exit_code == 0

        stopped = serve("stop", "--timeout", "20")
        assert (stopped.exit_code, stopped.stdout) == (0, "")
        assert f"process {server.process.pid}, has ended" in stopped.stderr
        assert server.end() == 0
    again = serve("stop")
    assert (again.exit_code, again.stderr) == (0, f"no server runs under {home}\n")
    assert json.loads(serve("status", "--json").stdout)["status"] == "not_running"


def test_a_server_that_has_turns_to_finish(tmp_path: Path, home: Path, serve: Serve) -> None:
    """It is waited for, then said what it does and how to end it; by force it is gone, and tidied up."""
    config = {**REPLAY, "server": {"shutdown_grace": 60}}
    with serving(tmp_path, config) as server, closing(Caller(server, STALL)) as caller:
        caller.until(b'"a"')
        waited = serve("stop", "--timeout", "0.2")
        assert waited.exit_code == 1
        assert "still lets running turns finish after 0.2 s, which may take 62 s" in waited.stderr
        assert "--force" in waited.stderr
        shown = serve("status", "--timeout", "1")
        assert (shown.exit_code, "is shutting down, within 62 s" in shown.stdout) == (1, True)
        forced = serve("stop", "--timeout", "0", "--force")
        assert forced.exit_code == 0
        assert server.end() == -signal.SIGKILL
        assert look(home) == Unclaimed()


def test_workers_are_killed_with_their_supervisor(tmp_path: Path, home: Path, serve: Serve) -> None:
    """By force nothing is left that has the port, whatever turns run."""
    config = {**REPLAY, "server": {"shutdown_grace": 60}}
    with serving(tmp_path, config, "--workers", "2") as server, closing(Caller(server, STALL)) as caller:
        caller.until(b'"a"')
        told = json.loads(serve("status", "--json").stdout)
        assert (told["status"], len(told["workers"])) == ("running", 2)
        assert serve("stop", "--timeout", "0", "--force").exit_code == 0
        assert server.end() == -signal.SIGKILL
        until(lambda: is_free(server.port))


def is_free(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
            tried.listen()
        except OSError:
            return False
    return True


def test_a_server_that_hangs_and_one_that_was_killed(tmp_path: Path, home: Path, serve: Serve) -> None:
    """A stopped process holds its claim and does not answer; a killed one's state is cleaned up."""
    with serving(tmp_path, REPLAY) as server:
        server.signal(signal.SIGSTOP)
        shown = serve("status", "--timeout", "0.2")
        assert shown.exit_code == 1
        assert "runs, but did not answer within 0.2 s" in shown.stdout
        server.signal(signal.SIGKILL)
        server.end()
        left = {path: path.read_bytes() for path in (state_path(home), lock_path(home))}
        shown = serve("status")
        assert shown.exit_code == 1
        assert (
            f"process {server.process.pid}, which ended without tidying up, has been removed" in shown.stdout
        )
        assert look(home) == Unclaimed()
        for path, text in left.items():
            path.write_bytes(text)
        assert serve("stop").exit_code == 0
        assert look(home) == Unclaimed()


def test_options_of_serve_are_not_for_its_commands(serve: Serve) -> None:
    """Each would be read and ignored; what is no command is refused too."""
    told = serve("--port", "1", "status")
    assert (told.exit_code, "--port is for `serve` alone" in told.stderr) == (2, True)
    assert serve("stat").exit_code == 2
    assert serve("stop", "now").exit_code == 2


def test_a_home_that_is_none(tmp_path: Path, home: Path, serve: Serve) -> None:
    """None at all is no server; what stands in its place, or in the lock's, is told."""
    assert (serve("stop").exit_code, serve("status").exit_code, home.exists()) == (0, 1, False)
    home.write_text("")
    for command in ("status", "stop", "reload"):
        told = serve(command)
        assert told.exit_code == 1, told.output
        assert told.stderr == f"Error: {lock_path(home)} cannot be used: Not a directory\n"
    home.unlink()
    lock_path(home).mkdir(parents=True)
    state_path(home).write_text("")
    assert serve("stop").stderr == f"Error: {lock_path(home)} cannot be used: Is a directory\n"


def hold(home: Path, pid: int, started: str = "1") -> FileLock:
    """A claim whose note names a process of that number."""
    (home / "state").mkdir(parents=True)
    lock = FileLock(lock_path(home))
    assert lock.acquire(0)
    lock.note(msgspec.json.encode({"process": {"pid": pid, "started": started}}))
    return lock


async def test_a_number_that_is_a_strangers_now_is_not_signalled(
    home: Path, stranger: subprocess.Popen[bytes], autojump_clock: MockClock
) -> None:
    """The note names another process by that number: whoever has it lives, and it is said why."""
    lock = hold(home, stranger.pid)
    write_state(state_path(home), state(stranger.pid))
    with pytest.raises(click.ClickException, match="not to be seen from here"):
        await end_server(home, within=0, force=True, say=print)
    lock.close()
    # Killed by now, and the number is given to a stranger: the lock is free.
    found = await end_server(home, within=0, force=True, say=print)
    assert found == Unclaimed(state(stranger.pid))
    assert stranger.poll() is None


async def test_a_claim_that_does_not_say_whose_it_is(home: Path, autojump_clock: MockClock) -> None:
    """It is waited for a moment, as it may have been taken just now."""
    lock = hold(home, 1)
    lock.note(b"")
    with pytest.raises(click.ClickException, match="does not say which process"):
        await end_server(home, within=0, force=False, say=print)
    lock.close()


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What this process was sent, as the server of a home."""
    sent: list[int] = []
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda fd, number: sent.append(number))
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(number))
    return sent


@pytest.fixture
def claim(home: Path) -> Iterator[Claim]:
    home.mkdir()
    claim = take_claim_now(home)
    trio.run(claim.announce, state(os.getpid()))
    yield claim
    claim.release()


async def test_stopping_waits_as_long_as_it_was_told(
    home: Path, claim: Claim, signals: list[int], autojump_clock: MockClock
) -> None:
    """SIGTERM, and the lock is watched; with force SIGKILL after it, and a last wait."""
    with pytest.raises(NotEndedError):
        await end_server(home, within=30, force=False, say=print)
    assert (signals, 30 <= trio.current_time() < 31) == ([signal.SIGTERM], True)
    with pytest.raises(NotEndedError):
        await end_server(home, within=0, force=True, say=print)
    assert signals == [signal.SIGTERM, signal.SIGTERM, signal.SIGKILL]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends_after, claim, 7.0)
        began = trio.current_time()
        found = await end_server(home, within=30, force=False, say=print)
        assert 7 <= trio.current_time() - began < 7.2
    assert isinstance(found, Held)
    assert found.holder == this_process()


async def ends_after(claim: Claim, seconds: float) -> None:
    await trio.sleep(seconds)
    claim.release()


REFUSED = Reloaded(at=5.0, ok=False, problems=("providers: none [config_missing_key]",))


@pytest.mark.parametrize("result", [Reloaded(at=4.0, ok=True), REFUSED])
async def test_a_reload_is_waited_for(
    home: Path, claim: Claim, signals: list[int], autojump_clock: MockClock, result: Reloaded
) -> None:
    """What the server notes after the signal is the answer, not what an earlier reload has noted."""
    write_state(state_path(home), state(os.getpid(), reload=Reloaded(at=3.0, ok=True)))

    async def answer() -> None:
        await trio.sleep(2)
        write_state(state_path(home), state(os.getpid(), reload=result))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        assert await ask_to_reload(home, within=10) == result
    assert signals == [signal.SIGHUP]
    assert 2 <= trio.current_time() < 3


async def test_a_reload_that_was_under_way_is_no_answer(
    home: Path, claim: Claim, signals: list[int], autojump_clock: MockClock
) -> None:
    """It may have read the file as it was before; the one after it has read it as it is."""
    now = machine_clock()
    earlier = Reloaded(at=4.0, ok=True, began=now - 1)
    later = msgspec.structs.replace(REFUSED, began=now + 60)
    write_state(state_path(home), state(os.getpid()))

    async def answer() -> None:
        for result in (earlier, later):
            await trio.sleep(2)
            write_state(state_path(home), state(os.getpid(), reload=result))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        assert await ask_to_reload(home, within=10) == later


async def test_a_reload_that_nobody_answers(
    home: Path, claim: Claim, signals: list[int], autojump_clock: MockClock
) -> None:
    """After its time the command says where to look; a server that ends meanwhile is told as such."""
    with pytest.raises(click.ClickException, match="did not say within 10 s"):
        await ask_to_reload(home, within=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends_after, claim, 1.0)
        with pytest.raises(click.ClickException, match="ended before"):
            await ask_to_reload(home, within=10)
    assert await ask_to_reload(home, within=10) is None


def test_what_the_commands_say_of_a_reload(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused: the problems, and exit 1. In force: 0. No server: 1."""
    for result, code in ((REFUSED, 1), (Reloaded(at=5.0, ok=True), 0), (None, 1)):

        async def answer(home: Path, *, within: float, result: Reloaded | None = result) -> Reloaded | None:
            return result

        monkeypatch.setattr("trio_agent.cli.lifecycle.ask_to_reload", answer)
        told = serve("reload")
        assert (told.exit_code, told.stdout) == (code, "")
        assert ("config_missing_key" in told.stderr) == (result is REFUSED)


def test_the_synonym_takes_the_same_options(tmp_path: Path, serve: Serve) -> None:
    """Before it and behind it: `serve chat-completions` is `serve`."""
    path = str(write_config(tmp_path, {"providers": {}}))
    before, behind = (
        serve("--config", path, "chat-completions", "--port", "0"),
        serve("chat-completions", "--config", path, "--port", "0"),
    )
    assert before.exit_code == behind.exit_code == 2
    assert before.stderr == behind.stderr
    assert before.stderr.startswith("providers: no provider is declared")
