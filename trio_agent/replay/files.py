"""Recordings on disk: finding them, holding each against its replay, and writing what came out instead."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from msgspec import Struct

from trio_agent.recording.codec import RecordingError, decode
from trio_agent.recording.format import SUFFIX
from trio_agent.replay import Player, Replayed, ReplayError, render_difference, updated

Verdict = Literal["ok", "differs", "unplayable", "updated"]


class Checked(Struct, frozen=True):
    """A file that was replayed.

    `ok` is as recorded; `updated` means that the file now has what came out. `report` says in readable form
    what differs, or why the file cannot be played; then there may be no `replayed`.
    """

    path: Path
    verdict: Verdict
    report: str = ""
    replayed: Replayed | None = None

    @property
    def failed(self) -> bool:
        return self.verdict in ("differs", "unplayable")


class NoRecordingsError(Exception):
    """There is nothing to replay at a path. The message names it."""


def find_recordings(paths: Iterable[Path]) -> list[Path]:
    """The files named, and those in the folders named and below, each once and in a fixed order.

    Raises:
        NoRecordingsError: a path is not there, or a folder has no recording in it.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = sorted(each for each in path.rglob(f"*{SUFFIX}") if each.is_file())
            if not inside:
                raise NoRecordingsError(f"{path}: there is no *{SUFFIX} file in this folder or below")
            found |= dict.fromkeys(inside)
        elif path.exists():
            found[path] = None
        else:
            raise NoRecordingsError(f"{path}: no such file or folder")
    return list(found)


def check(player: Player, path: Path, *, name: str | None = None, update: bool = False) -> Checked:
    """Replay one file, and compare.

    Args:
        name: what the report calls the file; by default its path.
        update: write what came out into the file, where it differs.
    """
    shown = name or str(path)
    replayed: Replayed | None = None
    try:
        original = path.read_bytes()
        replayed = player.replay(decode(original, shown), shown)
        if replayed.ok:
            # Also with `update`: what a recorder wrote has the real times of outputs, which are not compared.
            return Checked(path, "ok", replayed=replayed)
        if not update:
            return Checked(path, "differs", render_difference(replayed), replayed)
        _replace(path, updated(original, replayed))
    except (RecordingError, ReplayError) as error:
        return Checked(path, "unplayable", str(error), replayed)
    except OSError as error:
        return Checked(path, "unplayable", f"{shown}: {error.strerror or error}", replayed)
    return Checked(path, "updated", replayed=replayed)


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that it has either the old content or the new one, whatever happens. Raises OSError."""
    target = path.resolve()  # a link stays one
    with _temporary(target) as (descriptor, name):
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), target.stat().st_mode & 0o7777)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        name.replace(target)


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[tuple[int, Path]]:
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        yield descriptor, Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
