"""A log that never waits for its reader.

A pipe holds some 64 KiB. A program that writes more into one that nobody reads waits in the write, and all
its turns with it. So entries for a pipe or a socket wait in memory instead, up to a bound; beyond it they are
dropped and counted.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TextIO, TypeAlias

import trio

MOST_BYTES: Final = 4 << 20
"""Bytes of entries that may wait."""
FLUSH_SECONDS: Final = 0.25
"""How often what waits is tried again."""
LAST_FLUSH_SECONDS: Final = 1.0
"""How long the end of the process waits for a reader to take the rest."""

Send: TypeAlias = Callable[[bytes], int]
"""Writes what goes without waiting, and returns how many bytes went. Raises BlockingIOError for none."""


class UnhurriedHandler(logging.Handler):
    """Writes entries to a descriptor as its reader takes them.

    Args:
        descriptor: a pipe's or a socket's; it stays open, and as blocking as it was.
        most_bytes: what may wait.

    Raises:
        OSError: it can't be written to without waiting. What it leads to must be neither.
    """

    def __init__(self, descriptor: int, *, most_bytes: int = MOST_BYTES) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._most_bytes = most_bytes
        self._send, self._let_go = _opened(descriptor)
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._take(self.format(record))
        except Exception:  # noqa: BLE001 - as every handler of the library does
            self.handleError(record)

    def say(self, text: str) -> None:
        """Write a line that is no entry, in its order among them."""
        with self._held():
            self._take(text)

    def flush(self) -> None:
        """Write what the reader takes now."""
        with self._held():
            self._push()
            self._tell_dropped()

    def close(self) -> None:
        """Wait a moment for the reader to take the rest."""
        until = time.monotonic() + LAST_FLUSH_SECONDS
        self.flush()
        while self._waiting and (left := until - time.monotonic()) > 0:
            _wait_writable(self._descriptor, left)
            self.flush()
        self._let_go()
        super().close()

    @contextmanager
    def _held(self) -> Iterator[None]:
        # Entries come from worker threads, too.
        self.acquire()
        try:
            yield
        finally:
            self.release()

    def _take(self, line: str) -> None:
        self._tell_dropped()
        data = f"{line}\n".encode("utf-8", "backslashreplace")
        if self._bytes + len(data) > self._most_bytes:
            self._dropped += 1
            return
        self._waiting.append(data)
        self._bytes += len(data)
        self._push()

    def _push(self) -> None:
        try:
            while self._waiting:
                data = self._waiting[0]
                sent = self._send(data)
                self._bytes -= sent
                if sent == len(data):
                    self._waiting.popleft()
                else:
                    self._waiting[0] = data[sent:]
        except BlockingIOError:
            pass
        except OSError:
            # The reader has gone. Nobody is left to be told.
            self._waiting.clear()
            self._bytes = 0

    def _tell_dropped(self) -> None:
        if not self._dropped or self._waiting:
            return
        dropped, self._dropped = self._dropped, 0
        text = f"{dropped} entries of the log were dropped, since nobody read it for too long"
        record = logging.LogRecord("trio_agent.log", logging.WARNING, "", 0, text, (), None)
        self._take(self.format(record))


def unhurried(stream: TextIO) -> UnhurriedHandler | None:
    """A handler for a stream whose reader may be slow; `None` for a file, a terminal and the like."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            return UnhurriedHandler(stream.fileno())
    except (OSError, ValueError):
        pass  # without a descriptor, or a system that opens no second way into a pipe
    return None


async def keep_flushing() -> None:
    """Write what waits in the log of this process, until it is cancelled."""
    handlers = [each for each in logging.getLogger().handlers if isinstance(each, UnhurriedHandler)]
    while handlers:
        await trio.sleep(FLUSH_SECONDS)
        for handler in handlers:
            handler.flush()


def _opened(descriptor: int) -> tuple[Send, Callable[[], None]]:
    """How to write to it without waiting, and how to let go of it."""
    if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        sender = socket.socket(fileno=os.dup(descriptor))
        return lambda data: sender.send(data, socket.MSG_DONTWAIT), sender.close
    # A description of its own: to make the shared one non-blocking would surprise all who have it, too.
    own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return lambda data: os.write(own, data), lambda: os.close(own)


def _wait_writable(descriptor: int, seconds: float) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll(seconds * 1000)


__all__ = ["UnhurriedHandler", "keep_flushing", "unhurried"]
