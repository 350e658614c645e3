"""Files of this user alone: locks between processes, and files that are there whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from contextlib import suppress
from pathlib import Path

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
_POLL_MIN_S = 0.0002
_POLL_MAX_S = 0.01
_NOTE_BYTES_MAX = 4096


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
                    self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_FILE
                )
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if os.fstat(self._descriptor).st_nlink:
                return True
            self.close()  # The file was deleted under us; others lock a new one by now.

    def note(self, text: bytes) -> None:
        """Write into the file what others may learn of the holder (`read_note`). Only for the holder.

        The note outlives the lock, so it proves nothing by itself. Raises OSError.
        """
        if self._descriptor is None:
            raise ValueError("the lock is not held")
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text, 0)

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


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock on this file. Makes no file, and changes nothing.

    It asks with a shared lock for a moment: another one that asks is not told that the lock is held, but
    whoever tries to take it in that moment has to try again. Raises OSError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def read_note(path: Path) -> bytes:
    """What the lock's holder, or an earlier one, wrote into its file. Raises OSError."""
    return read_whole(path, _NOTE_BYTES_MAX)


def read_whole(path: Path, limit: int) -> bytes:
    """The content of a regular file. Raises OSError; EFBIG, if it has more than `limit` bytes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        text = file.read(limit + 1)
    if len(text) > limit:
        raise OSError(errno.EFBIG, f"more than {limit} bytes", str(path))
    return text


def write_whole(path: Path, text: bytes, *, owner: tuple[int, int] | None = None) -> None:
    """Put a file with this content in its place, mode 0600 before it has its name.

    Whoever reads sees the old content or the new one, also after a power cut. Only one process at a time may
    write to one path. Raises OSError; then the old file is as it was.

    Args:
        owner: the ids of the user and the group that the file is to belong to, where it is not this one's.
    """
    new = path.with_name(path.name + ".new")
    with suppress(FileNotFoundError):
        new.unlink()  # of a process that was killed here
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, PRIVATE_FILE)  # whatever the umask left of it
            if owner is not None:
                os.fchown(descriptor, *owner)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        new.replace(path)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some file systems cannot; the file itself is safe
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_private_folder(folder: Path) -> None:
    """Make the folder for its owner alone if it is missing. One that exists is left as it is."""
    with suppress(FileExistsError):
        folder.mkdir(mode=PRIVATE_FOLDER, parents=True)
