"""Signals to the server of a home, and waiting for what they bring about.

A server is signalled only while it holds the claim, through a handle on the very process that took it. Its
end is told by the lock, which the kernel drops with the process.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
import trio

from trio_agent.private_files import is_locked
from trio_agent.server.claim import Held, Unclaimed, clear_away, lock_path, look, state_path
from trio_agent.server.process import open_children, open_process
from trio_agent.server.state_file import Reloaded, machine_clock

POLL_INTERVAL: Final = 0.05
"""Seconds between looks at the lock or the state file."""
NAME_TIMEOUT: Final = 1.0
"""Seconds for a server that has just taken its claim to say which process it is."""
KILL_TIMEOUT: Final = 5.0
"""Seconds for the kernel to end a process that was killed."""

Say = Callable[[str], None]


class NotEndedError(Exception):
    """The server still runs after the time that it was given."""

    def __init__(self, held: Held) -> None:
        super().__init__("the server still runs")
        self.held = held


async def end_server(home: Path, *, within: float, force: bool, say: Say) -> Held | Unclaimed:
    """Ask the server to end, and wait until it has; what was found before.

    Args:
        within: seconds to wait for its orderly end.
        force: kill it then.
        say: takes a line of progress.

    Raises:
        NotEndedError: it has not ended in time.
        click.ClickException: it cannot be signalled.
    """
    found = await send_signal(home, signal.SIGTERM)
    if isinstance(found, Held):
        say(f"waiting for process {_pid_of(found)} to end")
        if not await _freed(home, within):
            if not force:
                raise NotEndedError(found)
            say(f"killing process {_pid_of(found)}")
            await _kill(home, look(home))
            if not await _freed(home, KILL_TIMEOUT):
                raise NotEndedError(found)
    if found != Unclaimed():
        clear_away(home)
    return found


async def _kill(home: Path, found: Held | Unclaimed) -> None:
    """Kill the server, then its workers: they would let turns finish, and it would replace them."""
    if not isinstance(found, Held) or found.holder is None:
        return
    workers = () if found.state is None else found.state.workers
    with open_children(found.holder, workers) as children:
        await send_signal(home, signal.SIGKILL)
        for child in children:
            child.signal(signal.SIGKILL)


async def send_signal(home: Path, number: signal.Signals) -> Held | Unclaimed:
    """Send a signal to the server that holds the home, if there is one; who that was.

    Raises:
        click.ClickException: there is one, and it cannot be signalled from here.
    """
    deadline = trio.current_time() + NAME_TIMEOUT
    while True:
        found = look(home)
        if isinstance(found, Unclaimed):
            return found
        if found.holder is not None:
            with open_process(found.holder) as process:
                # Looked at again behind the handle: what was noted may have been an earlier holder's.
                again = look(home)
                same = isinstance(again, Held) and again.holder == found.holder
                try:
                    if process is not None and same and process.signal(number):
                        return found
                except PermissionError:
                    raise click.ClickException(
                        f"process {found.holder.pid} belongs to another user: run this as that user"
                    ) from None
        if trio.current_time() >= deadline:
            raise click.ClickException(_out_of_reach(home, found))
        await trio.sleep(POLL_INTERVAL)


def _out_of_reach(home: Path, found: Held) -> str:
    if found.holder is None:
        return f"a server holds {lock_path(home)}, and does not say which process it is"
    return (
        f"a server runs under {home} as process {found.holder.pid}, which is not to be seen from here: "
        "stop it where it was started (another container?)"
    )


async def _freed(home: Path, within: float) -> bool:
    deadline = trio.current_time() + within
    while True:
        if not is_locked(lock_path(home)):
            return True
        if trio.current_time() >= deadline:
            return False
        await trio.sleep(POLL_INTERVAL)


async def ask_to_reload(home: Path, *, within: float) -> Reloaded | None:
    """Ask the server to read its configuration again; how that went, or `None` if no server runs.

    Raises:
        click.ClickException: it cannot be asked, or did not say how it went within `within` seconds.
    """
    before = look(home)
    if isinstance(before, Unclaimed):
        return None
    if not before.url:
        raise click.ClickException("the server cannot be told to reload: it is starting, or ending")
    # A state file that was deleted or damaged is written anew with the outcome.
    last = None if before.state is None else before.state.reload
    asked_at = machine_clock()
    asked = await send_signal(home, signal.SIGHUP)
    with trio.move_on_after(within):
        while isinstance(asked, Held):
            after = look(home)
            if isinstance(after, Unclaimed):
                raise click.ClickException("the server ended before it had read its configuration")
            done = None if after.state is None else after.state.reload
            # One that was under way may have read the file before it was as it is now.
            if done is not None and done != last and done.answers(asked_at):
                return done
            await trio.sleep(POLL_INTERVAL)
    if isinstance(asked, Unclaimed):
        return None
    raise click.ClickException(
        f"the server did not say within {within:g} s how it went: look into its log; the disk of "
        f"{state_path(home)} may be full"
    )


def _pid_of(found: Held) -> str:
    return "?" if found.holder is None else str(found.holder.pid)


__all__ = ["NotEndedError", "ask_to_reload", "end_server", "send_signal"]
