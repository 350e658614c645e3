"""Where secrets come from: the environment first, then `credentials.json` in the home."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

FILE_NAME = "credentials.json"
SIZE_LIMIT = 1 << 20  # bytes; no honest credentials file comes near it

Source: TypeAlias = Literal["environment", "file"]


class Found(Struct, frozen=True):
    """A secret, the name it was found under, and where. Printing it does not show the secret."""

    name: str
    secret: str
    source: Source

    def __repr__(self) -> str:
        return f"Found(name={self.name!r}, secret=***, source={self.source!r})"


class CredentialsError(Exception):
    """The credentials file cannot be used. `remedy` tells the operator what to do."""

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class Credentials:
    """Read-only access to secrets by name, such as `OPENAI_API_KEY`.

    Args:
        environ: the process environment; it wins over the file.
        stored: the contents of the credentials file.

    White space around a secret is dropped, since a pasted key often ends in a newline that no HTTP
    header can carry. What is empty then counts as absent.
    """

    def __init__(self, environ: Mapping[str, str], stored: Mapping[str, str] | None = None) -> None:
        self._sources: tuple[tuple[Source, dict[str, str]], ...] = (
            ("environment", dict(environ)),
            ("file", dict(stored or {})),
        )

    @classmethod
    def open(cls, environ: Mapping[str, str], home: Path) -> Credentials:
        """Read `credentials.json` in `home`, if there is one. Raises CredentialsError."""
        return cls(environ, read_credentials(home / FILE_NAME))

    def find(self, *names: str) -> Found | None:
        """The first of `names` that has a secret: all names in the environment, then all in the file."""
        for source, secrets in self._sources:
            for name in names:
                if secret := secrets.get(name, "").strip():
                    return Found(name, secret, source)
        return None

    def __repr__(self) -> str:
        return "Credentials(***)"


def read_credentials(path: Path) -> dict[str, str]:
    """The secrets in the file by name; none where the file does not exist. Raises CredentialsError.

    A file that anyone but its owner can reach is refused, as ssh refuses such a private key: its
    secrets may have been read already.
    """
    try:
        # Non-blocking, so that a named pipe put in the file's place cannot hang the start.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CredentialsError(
            f"{path} cannot be read: {error.strerror}.",
            remedy="Give the user who runs the server access to it.",
        ) from None
    try:
        _check_file(path, os.fstat(descriptor))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            raw = file.read(SIZE_LIMIT + 1)
    finally:
        os.close(descriptor)
    if len(raw) > SIZE_LIMIT:
        raise CredentialsError(f"{path} is larger than {SIZE_LIMIT} bytes.", remedy=_REMEDY_SHAPE)
    return _parse(path, raw)


_REMEDY_SHAPE = 'It must be one JSON object of names and secrets: {"OPENAI_API_KEY": "…"}.'


def _check_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise CredentialsError(f"{path} is not a file.", remedy=_REMEDY_SHAPE)
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise CredentialsError(
            f"{path} is open to other users (mode {mode:04o}).",
            remedy=f"Run: chmod 600 {path} – and replace the keys in it if others use this machine.",
        )


def _parse(path: Path, raw: bytes) -> dict[str, str]:
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise CredentialsError(f"{path} is not valid JSON.", remedy=_REMEDY_SHAPE) from None
    if not isinstance(value, dict):
        raise CredentialsError(f"{path} holds no JSON object.", remedy=_REMEDY_SHAPE)
    wrong = [name for name, secret in value.items() if not isinstance(secret, str)]
    if wrong:
        names = ", ".join(repr(name) for name in wrong)
        raise CredentialsError(f"{path}: the value of {names} is not a string.", remedy=_REMEDY_SHAPE)
    return value
