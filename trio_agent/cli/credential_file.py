"""Writing `credentials.json`: whole or not at all, never open to others, never two writers at once."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from trio_agent.private_files import FileLock, write_whole
from trio_agent.providers.credentials import FILE_NAME, CredentialsError, read_credentials

_LOCK_LIMIT_S: Final = 10.0


class CredentialFile:
    """The credentials file of a home, for whoever changes it.

    A change is written to a new file beside it, which then takes its name: a reader sees the old content or
    the new one, and a full disk leaves the old one. The new file has mode 0600 before a byte is in it,
    whatever the umask is. Writers wait for each other at `credentials.json.lock`.

    Args:
        home: a folder that `ensure_home` has passed.
    """

    def __init__(self, home: Path) -> None:
        self.path = home / FILE_NAME
        self._home = home

    def read(self) -> dict[str, str]:
        """The secrets by name. Raises CredentialsError."""
        return read_credentials(self.path)

    def change(self, edit: Callable[[dict[str, str]], None]) -> None:
        """Let `edit` change the secrets, and keep what it leaves.

        Raises:
            CredentialsError: the file cannot be read, is not ours to replace, or cannot be written. Nothing
                has changed then.
        """
        with self._held():
            self._refuse_foreign()
            secrets = self.read()
            edit(secrets)
            content = msgspec.json.format(msgspec.json.encode(secrets), indent=2) + b"\n"
            write_whole(self.path, content, owner=self._owner())

    def delete(self) -> bool:
        """Delete the file, also one that cannot be read; whether there was one. Raises CredentialsError."""
        with self._held():
            self._refuse_foreign()
            self.path.with_name(f"{FILE_NAME}.new").unlink(missing_ok=True)  # of a writer that was killed
            try:
                self.path.unlink()
            except FileNotFoundError:
                return False
            return True

    @contextmanager
    def _held(self) -> Iterator[None]:
        lock = FileLock(self._home / f"{FILE_NAME}.lock")
        try:
            if not lock.acquire(_LOCK_LIMIT_S):
                raise CredentialsError(
                    f"Another process has kept {lock.path} locked for {_LOCK_LIMIT_S:g} s.",
                    remedy="Nothing was changed. End that process, or wait for it.",
                )
            if owner := self._owner():
                os.chown(lock.path, *owner, follow_symlinks=False)
            yield
        except OSError as error:
            raise CredentialsError(
                f"{self.path} cannot be written: {error.strerror or type(error).__name__}.",
                remedy=f"Nothing was changed. Check the disk and the rights of {self._home}.",
            ) from None
        finally:
            lock.close()

    def _refuse_foreign(self) -> None:
        """A link or another user's file was put there by somebody with a purpose: it is not replaced."""
        try:
            status = self.path.lstat()
        except FileNotFoundError:
            return
        if stat.S_ISLNK(status.st_mode):
            raise CredentialsError(
                f"{self.path} is a symbolic link.",
                remedy="Change the file that it leads to, or remove the link.",
            )
        if not stat.S_ISREG(status.st_mode):
            raise CredentialsError(f"{self.path} is not a file.", remedy="Remove it.")
        if status.st_uid not in (os.geteuid(), self._home.stat().st_uid):
            raise CredentialsError(
                f"{self.path} belongs to another user.",
                remedy="Remove it, or let its owner change it.",
            )

    def _owner(self) -> tuple[int, int] | None:
        """What root writes into a user's home is the user's, or the user's own server could not read it."""
        home = self._home.stat()
        return (home.st_uid, home.st_gid) if os.geteuid() == 0 and home.st_uid != 0 else None
