"""The files of a SQLite store: who may read them, and the locks beside the database.

Beside `store.db` and SQLite's own `-wal` and `-shm` lie `store.db.lock`, which makes the writers of
all processes exclusive, and one `store.db.instance-<id>.lock` per open store, which is held for as
long as that store lives. Nobody may delete them while a server runs.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trio_agent.private_files import PRIVATE_FILE, FileLock
from trio_agent.store.contract import StoreError

_OTHERS = 0o077


class Gate:
    """The lock that every writer holds around a transaction and the checkpoint inside its commit.

    SQLite 3.7.0 to 3.51.2 can lose pages for good when one connection resets the WAL while another one
    writes or checkpoints (https://www.sqlite.org/wal.html#walresetbug). Several processes may
    open one home (`serve`, `run`), and SQLite's own locks do not close that gap. So writing and
    checkpointing happen behind this gate, one process at a time. Readers never checkpoint here: only
    the writing connection closes last. A foreign program that writes the database is not covered.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self._lock = FileLock(path)
        self._timeout = timeout

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the gate. Raises StoreError when another process keeps it for longer than `timeout`."""
        if not self._lock.acquire(self._timeout):
            raise StoreError(
                f"Another trio-agent process has kept the store locked for {self._timeout:g} s. Nothing was "
                "written. If that process hangs or is stopped, end it; its lock goes with it."
            )
        try:
            yield
        finally:
            self._lock.release()

    def close(self) -> None:
        self._lock.close()


def gate_path(database: Path) -> Path:
    return database.with_name(database.name + ".lock")


def instance_lock_path(database: Path, instance_id: str) -> Path:
    return database.with_name(f"{database.name}.instance-{instance_id}.lock")


def instance_ids(database: Path) -> set[str]:
    """The ids for which a lock file exists, whether or not it is held."""
    prefix, suffix = f"{database.name}.instance-", ".lock"
    return {
        path.name[len(prefix) : -len(suffix)]
        for path in database.parent.iterdir()
        if path.name.startswith(prefix) and path.name.endswith(suffix)
    }


def make_private_database(database: Path) -> None:
    """Create the database empty with mode 0600, or take others' rights away from an existing one.

    SQLite gives `-wal` and `-shm` the mode of the database. An existing file is never opened here:
    POSIX locks go when a process closes any descriptor of the file, so opening and closing it would
    break the locks of a SQLite connection that this process has on it. Call it behind the gate.
    """
    try:
        os.close(os.open(database, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE))
    except FileExistsError:
        for path in (database, *(database.with_name(database.name + suffix) for suffix in ("-wal", "-shm"))):
            with suppress(FileNotFoundError):
                _close_to_others(path)


def _close_to_others(path: Path) -> None:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, f"{path.name} is not a regular file", str(path))
    if status.st_mode & _OTHERS:
        path.chmod(stat.S_IMODE(status.st_mode) & ~_OTHERS)
