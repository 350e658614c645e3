"""Other processes: told apart from strangers that have their number now, and signalled without a race."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct


class ProcessName(Struct, frozen=True):
    """A process and no other one. `started` is the kernel's time of its start; empty where there is no /proc.

    Numbers are given again after a process has ended, and mean something else in another container.
    """

    pid: int
    started: str = ""


def this_process() -> ProcessName:
    """The process that asks."""
    return ProcessName(os.getpid(), _start_of(os.getpid()))


class Process:
    """A process that was there when it was looked for (`open_process`)."""

    def __init__(self, name: ProcessName, descriptor: int | None) -> None:
        self.name = name
        self._descriptor = descriptor

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; says whether the process was still there. Raises PermissionError."""
        try:
            if self._descriptor is None:
                os.kill(self.name.pid, number)
            else:
                signal.pidfd_send_signal(self._descriptor, number)
        except ProcessLookupError:
            return False
        return True


@contextmanager
def open_process(name: ProcessName) -> Iterator[Process | None]:
    """The process of that name, or `None` where it has ended or is not to be seen from here.

    Where the kernel has pidfds, a signal can only reach this process, even if it ends in between.
    """
    descriptor: int | None = None
    with suppress(OSError, AttributeError):  # it has ended; this system has none
        descriptor = os.pidfd_open(name.pid)
    try:
        there = _is_listed(name.pid) if descriptor is None else True
        # Looked at after the descriptor was opened: what it stands for is what is compared.
        yield Process(name, descriptor) if there and _start_of(name.pid) == name.started else None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _is_listed(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _start_of(pid: int) -> str:
    """Field 22 of proc(5)'s `stat`; the name before it may hold anything, but for its last parenthesis."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


__all__ = ["Process", "ProcessName", "open_process", "this_process"]
