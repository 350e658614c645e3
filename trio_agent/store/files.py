"""The files of a SQLite store: who may read them, and the locks beside the database.

Beside `store.db` and SQLite's own `-wal` and `-shm` lie `store.db.lock`, which makes the writers of
all processes exclusive, and one `store.db.instance-<id>.lock` per open store, which is held for as
long as that store lives. Nobody may delete them while a server runs.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trio_agent.store.contract import StoreError

_PRIVATE_FILE = 0o600
_PRIVATE_FOLDER = 0o700
_OTHERS = 0o077
_POLL_MIN_S = 0.0002
_POLL_MAX_S = 0.01


class FileLock:
    """An exclusive `flock` on a file of its own; the kernel drops it when the process dies.

    Two locks on one path exclude each other inside a process too: a flock belongs to the open file,
    not to the process as `fcntl.lockf` does. Methods block and belong in a worker thread.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, timeout: float) -> bool:
        """Take the lock within `timeout` seconds of real time; whether it was taken. 0 tries once.

        It asks again and again because a blocking `flock` cannot be given up. Raises OSError.
        """
        deadline = time.monotonic() + timeout
        pause = _POLL_MIN_S
        while not self._try():
            if (left := deadline - time.monotonic()) <= 0:
                return False
            time.sleep(min(pause, left))
            pause = min(2 * pause, _POLL_MAX_S)
        return True

    def _try(self) -> bool:
        while True:
            if self._descriptor is None:
                self._descriptor = os.open(
                    self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _PRIVATE_FILE
                )
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if os.fstat(self._descriptor).st_nlink:
                return True
            self.close()  # The file was deleted under us; others lock a new one by now.

    def release(self) -> None:
        """Let go of the lock and keep the file open for the next time."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the lock and of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def remove(self) -> None:
        """Delete the file, then let go of it. Only for whoever holds the lock."""
        with suppress(FileNotFoundError):
            self.path.unlink()
        self.close()


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


def make_private_folder(folder: Path) -> None:
    """Make the folder for its owner alone if it is missing. One that exists is left as it is."""
    with suppress(FileExistsError):
        folder.mkdir(mode=_PRIVATE_FOLDER, parents=True)


def make_private_database(database: Path) -> None:
    """Create the database empty with mode 0600, or take others' rights away from an existing one.

    SQLite gives `-wal` and `-shm` the mode of the database. An existing file is never opened here:
    POSIX locks go when a process closes any descriptor of the file, so opening and closing it would
    break the locks of a SQLite connection that this process has on it. Call it behind the gate.
    """
    try:
        os.close(os.open(database, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE_FILE))
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
