"""`serve restart`: nothing is ended before what is to be started was tried."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click
import trio
from msgspec import Struct

from trio_agent.cli.detached import Detached, at_port, environment_of, log_path, start_detached
from trio_agent.cli.own_command import launcher
from trio_agent.cli.probe import ask
from trio_agent.cli.signalling import POLL_INTERVAL, NotEndedError, Say, end_server
from trio_agent.private_files import FileLock
from trio_agent.server.claim import ClaimError, Held, look, state_path, take_claim_now
from trio_agent.server.options import ServeOptions
from trio_agent.server.state_file import ServerState, write_state

MARGIN: Final = 3.0
"""Seconds on top of what the server says that its orderly end may take."""
START_TIMEOUT: Final = 60.0
"""Seconds for a new server to boot its providers, and to answer."""


class Restarted(Struct, frozen=True):
    """A server that was started in the background, and answers. `ended` is the process before it, if any."""

    pid: int
    url: str
    ended: int | None


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """One restart of a home at a time.

    Raises:
        click.ClickException: another one is under way.
    """
    lock = FileLock(home / "state" / "restart.lock")
    try:
        if not lock.acquire(0):
            raise click.ClickException("another `serve restart` is under way; wait for it")
        yield
    finally:
        lock.close()


async def restart_server(home: Path, *, within: float | None, env: Mapping[str, str], say: Say) -> Restarted:
    """End the server of this home if one runs, and start one with the same options in the background.

    Args:
        within: seconds for the old one to end, and again for the new one to answer; by default as long as the
            old one may take, and `START_TIMEOUT`.
        env: of the new server, but for its options.
        say: takes a line of progress.

    Raises:
        ConfigError: what it would serve has problems; the old one goes on.
        click.ClickException: the old one did not end, or the new one does not answer.
        OSError: the home cannot be used.
    """
    state = _known(home)
    program = launcher()  # a relative path to it is one from here, and `_try` goes to another folder
    with alone(home):
        state = _known(home)  # another restart may have ended meanwhile
        options = at_port(state.options, state.port)
        folder = _folder(state, home)
        env = environment_of(options, home, env)
        say("trying the configuration")
        await _try(options, home, folder, env)
        with _put_by(home, state) as copy:
            ended = await _end(home, state, within, say)
            with _claimed(home):
                # If the new one cannot start, the next restart still knows what to start.
                copy.replace(state_path(home))
        started = start_detached(program, options, home=home, folder=folder, env=env)
        say(f"waiting for process {started.pid} to answer")
        url = await _answering(home, started, START_TIMEOUT if within is None else within)
        return Restarted(started.pid, url, ended)


@contextmanager
def _put_by(home: Path, state: ServerState) -> Iterator[Path]:
    """A copy of what is to be started, written while it still runs: a full disk must not show afterwards."""
    copy = home / "state" / "restart.json"
    try:
        write_state(copy, state)
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def _folder(state: ServerState, home: Path) -> Path:
    folder = Path(state.cwd)
    return folder if folder.is_dir() else home


def _known(home: Path) -> ServerState:
    """What to start: what runs, or what was killed."""
    found = look(home)
    state = found.state if isinstance(found, Held) else found.left
    if state is None and isinstance(found, Held):
        why = found.trouble or (
            f"its state file ({state_path(home)}) is gone; `trio-agent serve reload` writes it anew"
            if found.url
            else "it is starting, or ending"
        )
        raise click.ClickException(f"what the server was started with is not known: {why}")
    if state is None:
        why = f" ({found.trouble})" if found.trouble else ""
        raise click.ClickException(
            f"no server runs under {home}{why}, and none was killed: start one with `trio-agent serve`"
        )
    if isinstance(found, Held) and (state.managed or state.pid == 1):
        raise click.ClickException(
            f"process {state.pid} belongs to a service manager or a container, which would start it too: "
            "restart it there (`systemctl restart`, or your container's command)"
        )
    return state


async def _try(options: ServeOptions, home: Path, folder: Path, env: Mapping[str, str]) -> None:
    """Boot all that the configuration names but the store, which the old server has. Raises ConfigError."""
    from trio_agent.boot import boot
    from trio_agent.cli.address import check_address
    from trio_agent.cli.common import read_draft
    from trio_agent.store.memory import MemoryStore
    from trio_agent.world import RealWorld

    os.chdir(folder)  # where its tools would be imported from
    draft = read_draft(None if options.config is None else Path(options.config), env)
    draft = draft.with_problems(check_address(options, draft))
    world = RealWorld()
    async with boot(draft, home=home, env=env, world=world, store=MemoryStore(world.now)):
        pass


async def _end(home: Path, state: ServerState, within: float | None, say: Say) -> int | None:
    limit = state.shutdown_limit + MARGIN if within is None else within
    try:
        found = await end_server(home, within=limit, force=False, say=say)
    except NotEndedError:
        raise click.ClickException(
            f"the server, process {state.pid}, still lets turns finish after {limit:g} s, and nothing "
            f"was started. It may take {state.shutdown_limit:g} s: wait, or end it with `trio-agent serve "
            "stop --force`. Then start it with `trio-agent serve`; next time give a longer --timeout"
        ) from None
    return state.pid if isinstance(found, Held) else None


@contextmanager
def _claimed(home: Path) -> Iterator[None]:
    try:
        claim = take_claim_now(home)
    except ClaimError as error:
        raise click.ClickException(f"{error.problem.message}: nothing was started") from None
    try:
        yield
    finally:
        claim.release()


async def _answering(home: Path, started: Detached, within: float) -> str:
    deadline = trio.current_time() + within
    while True:
        if started.exit_code is not None:
            raise click.ClickException(
                f"the new server ended with exit code {started.exit_code}; {log_path(home)} says:\n"
                + started.last_words()
            )
        found = look(home)
        if isinstance(found, Held) and found.state is not None and found.state.pid == started.pid:
            state = found.state
            answer = await ask(state.host, state.port, "/v1/models", key=state.api_key, within=1.0)
            if answer is not None and answer.status == 200:
                return state.url
        if trio.current_time() >= deadline:
            raise click.ClickException(
                f"the new server, process {started.pid}, does not answer after {within:g} s; it goes on "
                f"starting, and writes to {log_path(home)}"
            )
        await trio.sleep(POLL_INTERVAL)


__all__ = ["Restarted", "alone", "restart_server"]
