"""What SQLite and the file system say, put into words that tell an operator what to do.

The messages may reach a client, so they name no path; `open_store` adds it for the operator.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Mapping
from typing import Final

from trio_agent.store.contract import StoreError

_FULL = (
    "The disk of the store is full. Nothing was written. Free some space there; the store needs no restart."
)
_READ_ONLY = (
    "The store may not be written: its file, its folder or its disk is read-only or belongs to another user. "
    "Nothing was written. Give the server's user write access to the file and to the folder."
)
_LOCKED = (
    "The store is locked by another program that does not let go. Nothing was written. "
    "End the program that has the database open, then try again."
)
_DAMAGED = (
    "The store's database is damaged, or is no SQLite database at all. "
    "Stop the server, move the database away together with its -wal and -shm files, and restore a backup."
)
_BROKEN_DISK = (
    "The disk of the store failed to read or write, or a size limit was reached. "
    "Look into the system's log, the disk and its quota."
)

# Primary result codes, https://www.sqlite.org/rescode.html; an extended code has them in its low byte.
_BY_CODE: Final[Mapping[int, str]] = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_PERM: _READ_ONLY,
    sqlite3.SQLITE_AUTH: _READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: _READ_ONLY,
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_PROTOCOL: _LOCKED,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_FORMAT: _DAMAGED,
    sqlite3.SQLITE_IOERR: _BROKEN_DISK,
    sqlite3.SQLITE_NOLFS: _BROKEN_DISK,
}
_BY_ERRNO: Final[Mapping[int, str]] = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _READ_ONLY,
    errno.EPERM: _READ_ONLY,
    errno.EROFS: _READ_ONLY,
    errno.EIO: _BROKEN_DISK,
    errno.EFBIG: _BROKEN_DISK,
}


def explain(error: Exception) -> Exception:
    """The StoreError for what went wrong in a worker thread.

    A value that no row can hold is a StoreError too. What is neither, a bug in the code that was run,
    comes back as it is.
    """
    match error:
        case StoreError():
            return StoreError(str(error))
        case sqlite3.Error():
            return StoreError(_BY_CODE.get(getattr(error, "sqlite_errorcode", -1) & 0xFF) or _refused(error))
        case OSError():
            return StoreError(
                _BY_ERRNO.get(error.errno or 0)
                or f"The store's files cannot be used: {error.strerror or error}."
            )
        case OverflowError() | UnicodeError():
            return StoreError(_refused(error))
        case _:
            return error


def _refused(error: Exception) -> str:
    return f"The store refused what was to be written or read ({error}). Nothing was written."
