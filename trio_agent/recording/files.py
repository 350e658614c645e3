"""Writing recordings to disk, in a worker thread: encoded, redacted, appended."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from trio_agent.recording.codec import RecordingError, decode, encode_line, encode_lines
from trio_agent.recording.format import Found, Header, Lost
from trio_agent.recording.trace import Line, encodable

Redact: TypeAlias = Callable[[dict[str, Any]], dict[str, Any] | None]
"""Called in a worker thread with each line as JSON values, before it is written; returns what is to be
written, or `None` to leave the line out."""

MASK = "***"  # as providers mask keys in their messages: a replay then gives the same words
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
            for secret in sorted(set(secrets), key=len, reverse=True)
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
        # A file that was begun and is gone must not begin again in its middle.
        make = 0 if job.begun else os.O_CREAT
        descriptor = os.open(job.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | make, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            new = not (job.begun or size)
            if not (job.begun or new):
                _join(job, descriptor)
            job.begun = True
            try:
                content = self._encoded([job.header] if new else [], job)
                try:
                    _write_all(descriptor, content)
                except OSError as error:
                    _break_off(descriptor, size, job.lines[-1].t, error.strerror or "it could not be written")
                    raise
            except Exception:
                if new:
                    with contextlib.suppress(OSError):
                        job.path.unlink()
                raise
        finally:
            os.close(descriptor)

    def _encoded(self, values: list[Any], job: Job) -> bytes:
        """`values` and the job's lines, as they are written."""
        values += map(encodable, job.lines)
        if job.moved:
            for value in values:
                value.t = round(value.t + job.moved, 6)
            values = [each for each in values if not (isinstance(each, Found) and each.park)]
        if self._redact is None:
            return self._masked(encode_lines(values))
        redacted = [self._redact(msgspec.json.decode(self._masked(encode_line(each)))) for each in values]
        return encode_lines([each for each in redacted if each is not None])

    def _masked(self, content: bytes) -> bytes:
        # No secret goes over a line's end, so that lines need not be searched one by one.
        for secret, mask in self._secrets:
            if secret in content:
                content = content.replace(secret, mask)
        return content


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


def _break_off(descriptor: int, size: int, t: float, why: str) -> None:
    """Leave a file that cannot be written with whole lines, the last of which says so if there is room."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, size)
        if size:
            lost = encode_line(Lost(t=t, why=why))
            if os.write(descriptor, lost) < len(lost):
                os.ftruncate(descriptor, size)


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
