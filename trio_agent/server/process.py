"""Other processes: told apart from strangers that have their number now, and signalled without a race."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
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


@contextmanager
def open_children(parent: ProcessName, pids: Iterable[int]) -> Iterator[list[Process]]:
    """Those of these processes that are children of that one, as far as it can be known (proc(5))."""
    with ExitStack() as opened:
        children: list[Process] = []
        for pid in pids:
            process = opened.enter_context(open_process(ProcessName(pid, _start_of(pid))))
            if process is not None and _parent_of(pid) == parent.pid:
                children.append(process)
        yield children


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
    return _stat_of(pid, 22)


def _parent_of(pid: int) -> int:
    return int(_stat_of(pid, 4) or 0)


def _stat_of(pid: int, field: int) -> str:
    """A field of proc(5)'s `stat` behind the name, which may hold anything; empty where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return fields[field - 3] if len(fields) > field - 3 else ""


__all__ = ["Process", "ProcessName", "open_children", "open_process", "this_process"]
