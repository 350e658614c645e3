"""`serve restart`, and a key on the command line: real processes, for both are about what others see."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import trio
from click.testing import CliRunner
from support.serving import (
    KEY,
    bearer,
    environment,
    plain_client,
    run_command,
    serving,
    until,
    write_config,
)

from trio_agent.cli import main
from trio_agent.cli.detached import LOG_BYTES_MAX, arguments_of, environment_of, log_path, start_detached
from trio_agent.cli.own_command import _launcher, without_key
from trio_agent.cli.restarting import alone, restart_server
from trio_agent.cli.serve import serve
from trio_agent.server.claim import Held, look, state_path, take_claim_now
from trio_agent.server.options import ServeOptions
from trio_agent.server.state_file import ServerState, read_state, write_state

REPLAY = {"providers": {"replay": {}}}
Restart = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def restart(tmp_path: Path, home: Path) -> Iterator[Restart]:
    """Runs `bin/trio-agent serve restart` in another folder; what it has started is killed in the end."""
    program = tmp_path / "elsewhere" / "bin" / "trio-agent"
    program.parent.mkdir(parents=True)
    program.write_text("from trio_agent.cli import main\nmain()\n")

    def restart(*args: str, **env: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "bin/trio-agent", "serve", "restart", *args],
            env=environment(home, **env),
            cwd=tmp_path / "elsewhere",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )

    yield restart
    force = ["serve", "stop", "--timeout", "0", "--force"]
    CliRunner().invoke(main, force, env={"TRIO_AGENT_HOME": str(home)})


def running(home: Path) -> ServerState:
    found = look(home)
    assert isinstance(found, Held), found
    assert found.state is not None
    return found.state


def argv(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]


def answers(state: ServerState, key: str | None) -> int:
    with plain_client(f"http://127.0.0.1:{state.port}", bearer(key)) as client:
        return client.get("/v1/models").status_code


def test_a_server_starts_again_in_the_background(tmp_path: Path, home: Path, restart: Restart) -> None:
    """The same options, port, folder and key, in a session of its own; the key is on no command line; no bad
    configuration and no full disk ends anything; what was killed is started too."""
    with serving(tmp_path, REPLAY, "--record", str(tmp_path / "turns"), "--workspace", "a") as first:
        write_config(tmp_path, {"providers": {"replay": {"config": {"modles": []}}, "openai": {}}})
        refused = restart()
        assert refused.returncode == 2
        assert b"providers.replay.config.modles: " in refused.stderr
        assert b"OPENAI_API_KEY" in refused.stderr
        write_config(tmp_path, REPLAY)
        (home / "state" / "restart.json.new").mkdir()  # stands for a disk on which nothing can be written
        full = restart()
        assert full.returncode == 1
        assert b"restart.json.new cannot be used" in full.stderr
        assert first.say().status_code == 200, "it goes on"
        (home / "state" / "restart.json.new").rmdir()

        done = restart(TRIO_AGENT_PORT="1", TRIO_AGENT_RECORD="/nowhere", TRIO_AGENT_API_KEY="another")
        assert (done.returncode, done.stdout) == (0, b""), done.stderr
        assert first.end() == 0
        state = running(home)
        assert f"process {state.pid}, serves on {first.url}; process {first.process.pid} has ended" in str(
            done.stderr
        )
        assert state.options == ServeOptions(
            config=str(tmp_path / "host_config.json"),
            port=first.port,
            api_key=KEY,
            record=str(tmp_path / "turns"),
            workspace="a",
        )
        assert (answers(state, KEY), answers(state, None)) == (200, 401)
        assert KEY not in argv(state.pid)
        assert os.getsid(state.pid) == state.pid
        assert Path(f"/proc/{state.pid}/cwd").readlink() == Path.cwd()
        assert stat.S_IMODE(log_path(home).stat().st_mode) == 0o600
        assert "trio-agent serves" in log_path(home).read_text()
        assert KEY not in log_path(home).read_text() + done.stderr.decode()
        assert {path.name for path in (home / "state").iterdir()} == {
            "serve.json", "serve.lock", "serve.log", "restart.lock",
        }  # fmt: skip

        os.kill(state.pid, signal.SIGKILL)
        until(lambda: not isinstance(look(home), Held))
        again = restart()
        assert again.returncode == 0, again.stderr
        assert b"has ended" not in again.stderr
        assert running(home).port == first.port


def test_a_new_server_that_cannot_start(tmp_path: Path, home: Path, restart: Restart) -> None:
    """Its last words are printed, exit 1; what was to be started is still known when that is mended."""
    turns = tmp_path / "turns"
    with serving(tmp_path, REPLAY, "--record", str(turns)) as first:
        turns.rmdir()
        turns.write_text("")
        failed = restart()
        assert failed.returncode == 1
        assert b"the new server ended with exit code 2" in failed.stderr
        assert b"is a file" in failed.stderr
        assert first.end() == 0
        turns.unlink()
        assert restart().returncode == 0
        assert running(home).options.record == str(turns)
    told = run_command("serve", "stop", "--timeout", "20", home=home)
    assert told.returncode == 0
    nothing = restart()
    assert nothing.returncode == 1
    assert b"none was killed: start one with `trio-agent serve`" in nothing.stderr


def test_a_key_on_the_command_line_is_taken_off_it(tmp_path: Path) -> None:
    """What others see of the process has no key, and the server asks for it."""
    with serving(tmp_path, REPLAY, "--log-level", "info", "--api-key", KEY, key=None) as server:
        seen = argv(server.process.pid)
        assert KEY not in " ".join(seen)
        assert not any("--api-key" in word for word in seen)
        assert seen[-2:] == ["--log-level", "info"]
        assert server.client.get("/v1/models").status_code == 401
        assert server.client.get("/v1/models", headers=bearer(KEY)).status_code == 200


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["serve", "--api-key", "k", "--port", "1"], ["serve", "--port", "1"]),
        (["serve", "--api-key=k", "--api-key", "k"], ["serve"]),
        (["serve", "--bind", "k"], ["serve", "--bind", "k"]),
        (["serve", "--api-key", "other"], ["serve", "--api-key", "other"]),
        (["serve", "--api-key"], ["serve", "--api-key"]),
    ],
)
def test_what_is_taken_off(given: list[str], kept: list[str]) -> None:
    """The option with the key, in both spellings, wherever it stands, and nothing else."""
    assert without_key(given, "k") == kept


def test_how_the_program_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter's own options stay; a relative path becomes one that holds in every folder."""
    program = tmp_path / "bin" / "trio-agent"
    program.parent.mkdir()
    program.write_text("")
    monkeypatch.chdir(tmp_path)
    assert _launcher(["python", "-X", "dev", "bin/trio-agent", "serve", "restart"], 2) == [
        sys.executable, "-X", "dev", str(program),
    ]  # fmt: skip
    assert _launcher(["python", "-m", "trio_agent", "serve"], 1) == [sys.executable, "-m", "trio_agent"]


def test_every_option_can_be_handed_on() -> None:
    """Each field of the options is a flag and a variable of its name, and comes back as it was."""
    options = ServeOptions(
        config="/c.json", bind="::1", port=1, api_key="k", log_level="debug", record="/r", workspace="w"
    )
    arguments = arguments_of(options)
    assert "k" not in arguments
    env = environment_of(options, Path("/home"), {"TRIO_AGENT_PORT": "2", "NOTIFY_SOCKET": "/n", "A": "1"})
    assert env == {"A": "1", "TRIO_AGENT_HOME": "/home", "TRIO_AGENT_API_KEY": "k"}
    named = {option.opts[0]: option for option in serve.params if isinstance(option, click.Option)}
    for name in ServeOptions.__struct_fields__:
        option = named["--" + name.replace("_", "-")]
        assert option.envvar == f"TRIO_AGENT_{name.upper()}"
    context = serve.make_context("serve", list(arguments), resilient_parsing=True)
    for name in set(ServeOptions.__struct_fields__) - {"api_key", "config"}:
        given = context.params[name]
        assert (str(given) if isinstance(given, Path) else given) == getattr(options, name)
    assert context.params["config_path"] == Path("/c.json")


def test_a_log_that_has_grown_is_put_aside(tmp_path: Path) -> None:
    """The one before it goes; others cannot read either; what is told of an end is of this start alone."""
    log = log_path(tmp_path)
    log.parent.mkdir()
    log.write_text("old\n" * (LOG_BYTES_MAX // 4 + 1))
    launcher = [sys.executable, "-c", "import sys; print('new', file=sys.stderr)"]
    for _ in range(2):
        started = start_detached(launcher, ServeOptions(), home=tmp_path, folder=tmp_path, env=os.environ)
        assert until(lambda started=started: started.exit_code is not None)
        assert started.last_words() == "new"
    assert log.read_text() == "new\nnew\n"
    assert log.with_name("serve.log.1").stat().st_size > LOG_BYTES_MAX
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def state(**fields: Any) -> ServerState:
    about = {
        "pid": os.getpid(),
        "started_at": 1.0,
        "host": "127.0.0.1",
        "port": 1,
        "options": ServeOptions(),
        "cwd": "/",
        "version": "1",
    }
    return ServerState(**{**about, **fields})


def restart_here(home: Path) -> None:
    async def run() -> None:
        await restart_server(home, within=0, env={}, say=print)

    trio.run(run)


def test_who_must_not_be_restarted(home: Path) -> None:
    """A service manager's process, one that nothing is known of, and one that is being restarted already."""
    home.mkdir()
    claim = take_claim_now(home)
    try:
        with pytest.raises(click.ClickException, match="it is starting, or ending"):
            restart_here(home)
        trio.run(claim.announce, state(managed=True))
        with pytest.raises(click.ClickException, match="systemctl restart"):
            restart_here(home)
        state_path(home).write_text("{")
        with pytest.raises(click.ClickException, match="is damaged"):
            restart_here(home)
        write_state(state_path(home), state())
        with alone(home), pytest.raises(click.ClickException, match="another `serve restart`"):
            restart_here(home)
    finally:
        claim.release()


def test_a_state_of_a_newer_program(home: Path) -> None:
    """It is not guessed at."""
    (home / "state").mkdir(parents=True)
    state_path(home).write_text(json.dumps({"schema_version": 99}))
    with pytest.raises(click.ClickException, match="newer trio-agent"):
        restart_here(home)
    assert state_path(home).exists()
    with pytest.raises(Exception, match="newer"):
        read_state(state_path(home))


def test_the_port_is_taken_meanwhile(tmp_path: Path, home: Path, restart: Restart) -> None:
    """By another program, after a crash: the new server says so, and exit 1."""
    with serving(tmp_path, REPLAY) as first:
        first.signal(signal.SIGKILL)
        first.end()
        with socket.create_server(("127.0.0.1", first.port)):
            failed = restart()
        assert failed.returncode == 1
        assert b"[address_unusable]" in failed.stderr
