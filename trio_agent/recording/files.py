"""Writing recordings to disk, in a worker thread: encoded, redacted, appended."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from trio_agent.recording.codec import RecordingError, decode, encode_line
from trio_agent.recording.format import AnyEntry, Found, Header, Lost
from trio_agent.recording.trace import Line, finished

Redact: TypeAlias = Callable[[dict[str, Any]], dict[str, Any] | None]
"""Called in a worker thread with each line as JSON values, before it is written; returns what is to be
written, or `None` to leave the line out."""

MASK = "[redacted]"
_READ_BYTES = 1 << 20


class Job(Struct):
    """Lines to append to one file. `header` goes first where the file is new; where it is not, the lines'
    times are moved by what lies between `header.start` and that of the file."""

    path: Path
    header: Header
    lines: list[Line]
    begun: bool
    moved: float = 0.0
    failure: str | None = None


class Pen:
    """How lines are written.

    Args:
        secrets: texts that are masked wherever they occur.
        redact: what else is left out.
    """

    def __init__(self, secrets: Sequence[str], redact: Redact | None) -> None:
        self._secrets = [
            (_escaped(secret), MASK.encode())
            for secret in sorted(secrets, key=len, reverse=True)
            if len(secret) > 3
        ]
        self._redact = redact

    def write(self, jobs: Sequence[Job]) -> None:
        """Append every job's lines. A job that cannot be done says so in its `failure`."""
        for job in jobs:
            try:
                self._append(job)
            except OSError as error:
                job.failure = error.strerror or type(error).__name__
            except Exception as error:  # noqa: BLE001 - a redaction hook may raise anything; no turn may notice
                job.failure = f"{type(error).__name__}: {error}"

    def _append(self, job: Job) -> None:
        descriptor = os.open(job.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            content: list[bytes] = []
            if not job.begun:
                job.begun = True
                if size:
                    _join(job, descriptor)
                else:
                    content.append(self._line(job.header))
            content += [self._line(line) for line in self._entries(job)]
            try:
                _write_all(descriptor, b"".join(content))
            except OSError as error:
                # Half a line would make the file unreadable.
                os.ftruncate(descriptor, size)
                _write_all(descriptor, encode_line(Lost(why=error.strerror or "it could not be written")))
                raise
        finally:
            os.close(descriptor)

    def _entries(self, job: Job) -> list[AnyEntry]:
        entries = [finished(line) for line in job.lines]
        if job.moved:
            for entry in entries:
                entry.t = round(entry.t + job.moved, 6)
        return [each for each in entries if not (job.moved and isinstance(each, Found) and each.park)]

    def _line(self, value: Header | AnyEntry) -> bytes:
        line = encode_line(value)
        for secret, mask in self._secrets:
            if secret in line:
                line = line.replace(secret, mask)
        if self._redact is None:
            return line
        kept = self._redact(msgspec.json.decode(line))
        return b"" if kept is None else msgspec.json.encode(kept) + b"\n"


def _escaped(secret: str) -> bytes:
    """A secret as it stands inside a JSON string."""
    return msgspec.json.encode(secret)[1:-1]


def _join(job: Job, descriptor: int) -> None:
    """The turn goes on in the file where its first response is; its park is told of there."""
    head = os.pread(descriptor, _READ_BYTES, 0).partition(b"\n")[0]
    try:
        start = decode(head, str(job.path)).header.start
    except RecordingError as error:
        raise OSError(0, str(error)) from None
    job.moved = max(job.header.start - start, 1e-6)


def _write_all(descriptor: int, data: bytes) -> None:
    view: memoryview = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def prepare(folder: Path) -> None:
    """Make the folder, for its owner alone. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    probe = folder / ".writable"
    os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    probe.unlink()


__all__ = ["Job", "Pen", "Redact", "prepare"]
