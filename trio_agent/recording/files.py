"""Writing recordings to disk, in a worker thread: masked, redacted, encoded, appended."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from trio_agent.recording.borders import mended
from trio_agent.recording.codec import RecordingError, decode, encode_line, encode_lines
from trio_agent.recording.format import SUFFIX, CallMade, Data, Found, Head, Header, Lost, Request
from trio_agent.recording.masking import MASK, Masker
from trio_agent.recording.redaction import Redact, RedactionError, redacted
from trio_agent.recording.trace import RAW_LINES, Line, RawBytes, RawData, encodable

PIECE_BYTES: Final = 1 << 20
"""About so much is encoded at once; a single line may be larger."""
_MOST_PARTS: Final = 10_000
_END: Final = b'"end":true}\n'
"""How the last line of a response ends."""
_HELD: Final = b'{"in":"hold"'
_UNREADABLE: Final = "AA=="


class Job(Struct):
    """Lines to append to one file.

    `header` goes first where the file is new. Where the turn goes on in a file that is there, the lines'
    times are moved by what lies between `header.start` and that of the file. `last` says that no more lines
    will come. `failure` says why the file was broken off.
    """

    path: Path
    header: Header
    lines: list[Line]
    begun: bool = False
    last: bool = False
    moved: float = 0.0
    size: int = 0
    failure: str | None = None
    waiting: list[Line] = []
    """Lines that cannot be written before the next one is here."""
    encoded_calls: set[int] = set()
    """Calls whose answers have a content encoding."""

    @property
    def is_unwritten(self) -> bool:
        return bool(self.lines or self.waiting)


class Pen:
    """How lines are written.

    Args:
        mask: hides secrets. It may be replaced between two calls of `write`.
        redact: what else is left out.
    """

    def __init__(self, mask: Masker, redact: Redact | None) -> None:
        self.mask = mask
        self._redact = redact
        self._disk = threading.Lock()
        self._given_up = False

    def write(self, jobs: Sequence[Job]) -> None:
        """Append every job's lines. A job that cannot be done says so in its `failure`."""
        for job in jobs:
            if self._given_up:
                return
            try:
                self._append(job)
            except OSError as error:
                job.failure = error.strerror or type(error).__name__
            except RedactionError as error:
                job.failure = self.mask.text(str(error))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with a line, no turn may notice
                job.failure = self.mask.text(f"{type(error).__name__}: {error}")
            if job.failure is not None and job.begun:
                with self._disk:
                    self._say_lost(job, job.failure)

    def give_up(self, jobs: Sequence[Job], why: str, *, patience: float) -> None:
        """Write nothing more but why, at the end of those files of `jobs` that lack lines.

        Args:
            patience: seconds to wait for a write that is under way.
        """
        self._given_up = True
        if self._disk.acquire(timeout=patience):
            try:
                for job in jobs:
                    if job.begun and job.failure is None and job.is_unwritten:
                        self._say_lost(job, why)
            finally:
                self._disk.release()

    def _append(self, job: Job) -> None:
        taken = len(job.lines)
        lines, waiting = mended([*job.waiting, *job.lines], self.mask, last=job.last)
        for piece in _pieces(lines):
            if job.begun:
                self._put(job, self._encoded(piece, job), new=False)
            else:
                self._begin(job, piece)
            if self._given_up:
                return
        # More may have come meanwhile, if the server has stopped to wait for this.
        job.lines, job.waiting = job.lines[taken:], waiting

    def _begin(self, job: Job, lines: list[Line]) -> None:
        """Write the first lines, into the turn's file or one of its own beside it.

        Everything is encoded before there is a file, so that none is left without a header.
        """
        while not (job.begun or self._given_up):
            new = _find_place(job, resumes=any(isinstance(each, Found) and each.park for each in lines))
            content = self._encoded(lines, job)
            with contextlib.suppress(FileExistsError):  # somebody was faster
                self._put(job, self._head(job) + content if new else content, new=new)

    def _put(self, job: Job, content: bytes, *, new: bool) -> None:
        with self._disk:
            if self._given_up:
                return
            # A file that was begun and is gone must not begin again in its middle.
            make = os.O_CREAT | os.O_EXCL if new else 0
            descriptor = os.open(job.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | make, 0o600)
            try:
                if os.fstat(descriptor).st_size != job.size:
                    raise OSError(0, "another program has changed the file")
                _write_all(descriptor, content)
            except _HalfWrittenError as error:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, job.size)
                if new:
                    job.path.unlink(missing_ok=True)
                raise error.why from None
            finally:
                os.close(descriptor)
            job.begun = True
            job.size += len(content)

    def _say_lost(self, job: Job, why: str) -> None:
        """Let the last line of a file that was broken off say so, if there is room for it."""
        t = max((each.t for each in (*job.waiting, *job.lines)), default=0.0) + job.moved
        lost = encode_line(Lost(t=round(t, 6), why=self.mask.text(why)))
        with contextlib.suppress(OSError):
            descriptor = os.open(job.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                if os.fstat(descriptor).st_size == job.size and os.write(descriptor, lost) < len(lost):
                    os.ftruncate(descriptor, job.size)
            finally:
                os.close(descriptor)

    def _head(self, job: Job) -> bytes:
        content = self.mask.lines(encode_line(job.header))
        return content if self._redact is None else redacted(content, self._redact, header=True)

    def _encoded(self, lines: Sequence[Line], job: Job) -> bytes:
        """Lines as they are written."""
        content = b"".join([self._run(run, job) for run in _runs(lines)])
        return content if self._redact is None else redacted(content, self._redact)

    def _run(self, lines: Sequence[Line], job: Job) -> bytes:
        """Lines of one run of `_runs`, masked."""
        if type(lines[0]) in RAW_LINES and not job.encoded_calls:
            values: list[Any] = list(lines)
            # Looked for in their texts, where there are fewer backslashes than behind them.
            clean = not self.mask.may_stand_in([each.text or "" for each in values])
        else:
            values = [encodable(_readable(line, job.encoded_calls)) for line in lines]
            clean = False
        if job.moved:
            values = [each for each in values if not (isinstance(each, Found) and each.park)]
            values = [_later(each, job.moved) for each in values]
        content = encode_lines(values)
        return content if clean else self.mask.lines(content)


def _later(value: Any, seconds: float) -> Any:
    return msgspec.structs.replace(value, t=round(value.t + seconds, 6))


def _readable(line: Line, encoded_calls: set[int]) -> Line:
    """A line. In the place of an answer's compressed content stands one byte that means as little.

    No secret would be found in that content, and no provider reads it.
    """
    if isinstance(line, Head):
        if line.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            encoded_calls.add(line.call)
    elif encoded_calls and isinstance(line, RawData | Data) and line.call in encoded_calls:
        return Data(t=line.t, call=line.call, base64=_UNREADABLE)
    return line


def _runs(lines: Sequence[Line]) -> Iterator[Sequence[Line]]:
    """Lines in runs: as many raw ones as follow each other, and each other one for itself."""
    begin = 0
    for place in [place for place, line in enumerate(lines) if type(line) not in RAW_LINES]:
        if begin < place:
            yield lines[begin:place]
        yield lines[place : place + 1]
        begin = place + 1
    if begin < len(lines):
        yield lines[begin:] if begin else lines


def _pieces(lines: list[Line]) -> Iterator[list[Line]]:
    """Lines in lists that are encoded at once."""
    begin = size = 0
    for place, line in enumerate(lines):
        # Before any other kind: nearly every line is one of these.
        raw = line if type(line) is RawData or type(line) is RawBytes else None
        more = _size(line) if raw is None else 100 + len(raw.text or "")
        if size and size + more > PIECE_BYTES:
            yield lines[begin:place]
            begin, size = place, 0
        size += more
    if begin < len(lines):
        yield lines[begin:] if begin else lines


def _size(line: Line) -> int:
    if isinstance(line, Request | CallMade) and isinstance(line.body, msgspec.Raw):
        return 300 + len(memoryview(line.body))
    return 1000


def _find_place(job: Job, *, resumes: bool) -> bool:
    """Choose the file for lines that come first; True where it is to be made.

    A turn that goes on does so in the file where its last response is, if that response is whole. One that
    another process is still writing, or that was broken off, is left alone.
    """
    stem = job.path.name.removesuffix(SUFFIX).partition(".")[0]
    before: Path | None = None
    for number in range(1, _MOST_PARTS):
        path = job.path.with_name(f"{stem}{'' if number == 1 else f'.{number}'}{SUFFIX}")
        if path.exists() or path.is_symlink():
            before = path
            continue
        joined = _join(job, before) if resumes and before is not None else False
        if not joined:
            job.path, job.size, job.moved = path, 0, 0.0
        return not joined
    raise OSError(0, f"there are {_MOST_PARTS} files of this turn")


def _join(job: Job, path: Path) -> bool:
    """Let a job go on in a file, if that ends with a response that its client has taken whole."""
    head = last = b""
    size = 0
    with path.open("rb") as file:
        for line in file:
            head = head or line
            if line.startswith(_HELD):
                return False
            last, size = line, size + len(line)
    if not last.endswith(_END):
        return False
    try:
        start = decode(head, str(path)).header.start
    except RecordingError:
        return False
    job.path, job.size = path, size
    job.moved = max(job.header.start - start, 1e-6)
    return True


class _HalfWrittenError(Exception):
    def __init__(self, why: OSError) -> None:
        super().__init__()
        self.why = why


def _write_all(descriptor: int, data: bytes) -> None:
    view: memoryview = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise _HalfWrittenError(error) from None


def prepare(folder: Path) -> None:
    """Make the folder, for its owner alone. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A name of its own: another server may be starting at this moment.
    descriptor, probe = tempfile.mkstemp(prefix=".writable-", dir=folder)
    os.close(descriptor)
    Path(probe).unlink()


__all__ = ["MASK", "Job", "Pen", "Redact", "prepare"]
