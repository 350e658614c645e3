"""The claim of a server on its home: one at a time, told by a lock that the kernel drops with the process.

`state/serve.lock` is locked for as long as the server lives, from before its boot. That alone says that it
lives; the note in the file says which process it is, and `state/serve.json` says the rest once it serves.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import trio
from msgspec import Struct

from trio_agent.config.problems import ConfigProblem
from trio_agent.private_files import PRIVATE_FOLDER, FileLock, is_locked, make_private_folder, read_note
from trio_agent.server.process import ProcessName, this_process
from trio_agent.server.state_file import (
    ServerState,
    StateFileError,
    explain,
    read_state,
    remove_state,
    write_state,
)

CLAIM_TIMEOUT: Final = 1.0
"""Seconds to try for. A command that looks whether a server lives holds the lock for a moment."""

logger = logging.getLogger("trio_agent.server")


class Held(Struct, frozen=True):
    """What can be told of the server that holds a home.

    `holder` is `None` for the moment until it is known. `state` is its own, and never that of an earlier one;
    `trouble` says why there is none, if there is a reason. `url` is where it serves, once it does.
    """

    holder: ProcessName | None
    state: ServerState | None
    trouble: str = ""
    url: str = ""


class Unclaimed(Struct, frozen=True):
    """No server lives under the home. `left` is what one left that ended without tidying up."""

    left: ServerState | None = None
    trouble: str = ""


class ClaimError(Exception):
    """The home cannot be claimed. `problem` says why and what to do."""

    def __init__(self, problem: ConfigProblem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def lock_path(home: Path) -> Path:
    return home / "state" / "serve.lock"


def state_path(home: Path) -> Path:
    return home / "state" / "serve.json"


def look(home: Path) -> Held | Unclaimed:
    """Whether a server lives under this home, and what is known of it. Changes nothing. Raises OSError."""
    held = is_locked(lock_path(home))
    trouble = ""
    try:
        state = read_state(state_path(home))
    except StateFileError as error:
        state, trouble = None, str(error)
    if not held:
        return Unclaimed(state, trouble)
    try:
        note = msgspec.json.decode(read_note(lock_path(home)), type=_Note)
    except (OSError, msgspec.MsgspecError):
        return Held(None, None, trouble)
    # One that has not announced itself has no state, though in a container all have the same number.
    if state is not None and (state.pid != note.process.pid or not note.url):
        state = None
    return Held(note.process, state, trouble, note.url)


def clear_away(home: Path) -> bool:
    """Remove the state file of a server that has ended; says whether there is none now. Raises OSError."""
    lock = FileLock(lock_path(home))
    try:
        return lock.acquire(0) and remove_state(state_path(home))
    finally:
        lock.close()


class _Note(Struct, frozen=True):
    """What the holder writes into the lock's file: it tells who it is even if the state file was deleted."""

    process: ProcessName
    url: str = ""


class Claim:
    """This process's claim on a home; made by `take_claim`, and given back with `release`.

    A server's process, or the supervisor of several, announces itself once it is ready, and notes changes.
    """

    def __init__(self, home: Path, lock: FileLock) -> None:
        self.home = home
        self._lock = lock
        self._state: ServerState | None = None
        self._writing = trio.Lock()
        self._released = False

    @property
    def state(self) -> ServerState | None:
        """What was announced, with all updates."""
        return self._state

    async def announce(self, state: ServerState) -> None:
        """Write the state file. To be called when all is ready, before the first connection is accepted.

        Raises:
            ClaimError: it cannot be written.
        """
        path = state_path(self.home)
        note = _Note(this_process(), state.url)
        try:
            await trio.to_thread.run_sync(write_state, path, state)
            self._lock.note(msgspec.json.encode(note))
        except OSError as error:
            raise ClaimError(_unusable(error, path)) from None
        self._state = state

    async def update(self, **changes: Any) -> None:
        """Change fields of the state, such as `reload=Reloaded(…)`, and write the file again.

        Before `announce` there is nothing to change, and nothing happens. A file that cannot be written is a
        warning in the log: the server goes on.
        """
        async with self._writing:
            if self._state is None or self._released:
                return
            self._state = msgspec.structs.replace(self._state, **changes)
            try:
                await trio.to_thread.run_sync(write_state, state_path(self.home), self._state)
            except OSError as error:
                logger.warning("the state file is out of date: %s", explain(error, state_path(self.home)))

    def release(self) -> None:
        """Remove the state file, if it is still this server's, and let go of the lock. Once is enough."""
        if self._released:
            return
        self._released = True
        if self._state is not None:
            with suppress(OSError, StateFileError):
                found = read_state(state_path(self.home))
                if found is not None and (found.pid, found.started_at) == (
                    self._state.pid,
                    self._state.started_at,
                ):
                    remove_state(state_path(self.home))
        with suppress(OSError):
            self._lock.note(b"")
        self._lock.close()


async def take_claim(home: Path) -> Claim:
    """Claim a home that is ready (`ensure_home`).

    Raises:
        ClaimError: another server has it, or its state folder cannot be used.
    """
    return await trio.to_thread.run_sync(take_claim_now, home)  # waited for also when cancelled


def take_claim_now(home: Path, timeout: float = CLAIM_TIMEOUT) -> Claim:
    """`take_claim` in the caller's thread. Blocks for up to `timeout` seconds."""
    lock = FileLock(lock_path(home))
    try:
        _make_folder(home / "state")
        if not lock.acquire(timeout):
            lock.close()
            raise _taken(home)
        lock.note(msgspec.json.encode(_Note(this_process())))
        if state_path(home).is_dir():
            raise IsADirectoryError(21, "Is a directory", str(state_path(home)))
    except OSError as error:
        lock.close()
        raise ClaimError(_unusable(error, lock_path(home))) from None
    return Claim(home, lock)


def _make_folder(folder: Path) -> None:
    make_private_folder(folder)
    if folder.stat().st_mode & 0o077:
        folder.chmod(PRIVATE_FOLDER)


def _taken(home: Path) -> ClaimError:
    found = look(home)
    holder = found.holder if isinstance(found, Held) else None
    who = "" if holder is None else f", process {holder.pid}"
    url = found.url if isinstance(found, Held) else ""
    where = f", on {url}" if url else " (it is starting or ending)"
    return ClaimError(
        ConfigProblem(
            "home_in_use",
            "TRIO_AGENT_HOME",
            f"a server runs under {home} already{who}{where}",
            "a home that no other server has",
            remedy="stop it with `trio-agent serve stop`, or set TRIO_AGENT_HOME to another folder",
        )
    )


def _unusable(error: OSError, path: Path) -> ConfigProblem:
    return ConfigProblem(
        "state_unusable",
        "TRIO_AGENT_HOME",
        explain(error, path),
        "a folder `state` in the home, in which this user can write",
        remedy="remove what is in the way, or make room on that disk",
    )


__all__ = [
    "Claim",
    "ClaimError",
    "Held",
    "Unclaimed",
    "clear_away",
    "lock_path",
    "look",
    "state_path",
    "take_claim",
    "take_claim_now",
]
