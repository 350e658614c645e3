"""A measured process: its start, its CPU time, its memory, its end."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STOP_SECONDS = 10.0
READY_SECONDS = 90.0
_KB = 1024


def family(pid: int) -> list[int]:
    """A process and its descendants. A server that forks workers is measured whole."""
    found = [pid]
    for each in found:
        for task in Path(f"/proc/{each}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # a thread that has just ended
                found += [int(child) for child in task.read_text().split()]
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process family, with threads that have ended, to the nanosecond.

    The id of another process's CPU clock is made as in clock_getcpuclockid(3) on Linux.
    """
    return sum(time.clock_gettime((~each << 3) | 2) for each in family(pid))


def memory_bytes(pid: int) -> int:
    """Proportional set size of a process family: pages shared with others count in part (proc(5))."""
    total = 0
    for each in family(pid):
        for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * _KB
    return total


def stop(process: subprocess.Popen[str]) -> None:
    """End a process of ours, in order if it can."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def running(
    arguments: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process for as long as the block lasts; what it says on standard error goes to `log`."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            arguments,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            yield process
        finally:
            stop(process)


def module(name: str, *arguments: str) -> list[str]:
    """The command line of one of this package's processes."""
    return [sys.executable, "-m", f"benchmarks.{name}", *arguments]


def first_line(process: subprocess.Popen[str]) -> str:
    """The line by which a process says that it is ready. Raises RuntimeError when it ends instead."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args!r} ended with status {process.wait()} before it was ready")
    return line
