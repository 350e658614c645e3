"""`state/serve.json`: what the server that runs under a home is, and all that starting it again needs.

It holds the server's key, hence its mode (0600). Whether the server lives is told by its claim alone
(`claim.py`): a file can be left behind, deleted by hand, or be of an earlier server that was killed.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from trio_agent.private_files import read_whole, write_whole
from trio_agent.server.address import authority
from trio_agent.server.options import ServeOptions

SCHEMA_VERSION: Final = 1
"""Raised when an older trio-agent would misunderstand the file: not for a new field with a default."""
_BYTES_MAX: Final = 1 << 20


class Reloaded(Struct, frozen=True, kw_only=True):
    """How reading the configuration again has ended. `at` is in seconds since the epoch.

    `problems` are blocks of text as `config check` prints them; none where it went well. `began` is when the
    file was read, by the `machine_clock`: who asked after that is not answered by it. `None` is not known.
    """

    at: float
    ok: bool
    problems: tuple[str, ...] = ()
    began: float | None = None

    def answers(self, asked: float) -> bool:
        """Whether it is what came of being asked at this time by the `machine_clock`."""
        return self.began is None or self.began >= asked


def machine_clock() -> float:
    """Seconds of a clock that is the same in all processes of the machine, and is never set."""
    return time.monotonic()


class ServerState(Struct, frozen=True, kw_only=True):
    """A server that runs, or has run until it was killed.

    Times are in seconds since the epoch. `host` and `port` are where it listens, `options` what it was told.
    `api_key` is the key that callers bring, wherever it is from. `providers` maps ids to numbers of models.
    `shutdown_limit` is the most seconds that an orderly end takes. `managed`: a service manager started it.
    """

    pid: int
    started_at: float
    host: str
    port: int
    options: ServeOptions
    cwd: str
    version: str
    config: str | None = None
    workspace: str | None = None
    providers: dict[str, int] = {}
    models: int = 0
    api_key: str | None = None
    shutdown_limit: float = 0.0
    managed: bool = False
    workers: tuple[int, ...] = ()
    stopping_at: float | None = None
    reload: Reloaded | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def url(self) -> str:
        """Where the server serves."""
        return f"http://{authority(self.host, self.port)}"

    def __repr__(self) -> str:  # a struct's own would print keys
        return f"ServerState(pid={self.pid}, host={self.host!r}, port={self.port}, …)"


class StateFileError(Exception):
    """There is a state file that says nothing. The message says why, and what to do."""


def read_state(path: Path) -> ServerState | None:
    """What the file says; `None` if there is none.

    Raises:
        StateFileError: it cannot be read or understood.
    """
    try:
        text = read_whole(path, _BYTES_MAX)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        why = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        then = "ask as its owner" if isinstance(error, PermissionError) else "remove what is there"
        raise StateFileError(f"{path} cannot be read ({why}): {then}") from None
    version = _version_of(text)
    if version > SCHEMA_VERSION:
        raise StateFileError(
            f"{path} was written by a newer trio-agent (schema {version}, this one knows {SCHEMA_VERSION}): "
            "use that one's commands"
        )
    try:
        return msgspec.json.decode(text, type=ServerState)
    except msgspec.MsgspecError:  # its message may quote the file, which holds a key
        raise StateFileError(f"{path} is damaged") from None


def write_state(path: Path, state: ServerState) -> None:
    """Put the file in its place, for this user alone. Raises OSError."""
    write_whole(path, msgspec.json.format(msgspec.json.encode(state), indent=2) + b"\n")


def remove_state(path: Path) -> bool:
    """Remove the file; says whether there is none now. Only for the holder of the claim."""
    try:
        path.unlink()
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return True


def explain(error: OSError, path: Path) -> str:
    """Why a file of the state folder could not be written."""
    what = os.strerror(error.errno) if error.errno else type(error).__name__
    return f"{error.filename or path} cannot be used: {what}"


class _Version(Struct):
    schema_version: int = 0


def _version_of(text: bytes) -> int:
    try:
        return msgspec.json.decode(text, type=_Version).schema_version
    except msgspec.MsgspecError:
        return 0


__all__ = [
    "SCHEMA_VERSION",
    "Reloaded",
    "ServerState",
    "StateFileError",
    "explain",
    "machine_clock",
    "read_state",
    "remove_state",
    "write_state",
]
