"""Progress of long work: a line at the foot of a terminal, gone when the work is done. Silent anywhere else.

    with progress() as line:
        for number, path in enumerate(paths, 1):
            line.say(f"{number}/{len(paths)} {path.name}")
            ...

Who prints while a line is shown calls `clear` first, because standard output may be the same terminal;
the log does by itself. For what is only waited for, under Trio, there is `trio_agent.cli.waiting`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TextIO

from trio_agent.cli.terminal import columns_of, is_live
from trio_agent.cli.text_width import clipped
from trio_agent.observing.formats import one_line

_ERASE: Final = "\r\x1b[K"


class Progress:
    """A line that is drawn over and over. On a stream that is no terminal nothing is ever written."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._live = is_live(stream)
        self._shown = False

    def say(self, text: str) -> None:
        """Show this in the place of what was shown; it is cut to the width of the terminal."""
        if not self._live:
            return
        columns = columns_of(self._stream) or 0
        self._shown = True  # first, for Ctrl-C may come right after the write
        # A full last column would wrap on some terminals, and the line could not be erased any more.
        self._write(_ERASE + clipped(one_line(text), columns - 1))

    def clear(self) -> None:
        """Erase what is shown."""
        if self._shown:
            self._write(_ERASE)
            self._shown = False

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # the terminal has gone; the work has not
            self._live = False


@contextmanager
def _clearing_for_the_log(line: Progress) -> Iterator[None]:
    """While it lasts, an entry of the log first erases the line that it would be appended to."""

    def clear(record: logging.LogRecord) -> bool:
        line.clear()
        return True

    handlers = list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(clear)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(clear)


@contextmanager
def progress(stream: TextIO | None = None) -> Iterator[Progress]:
    """A line on standard error (or this stream) for the length of the block, erased however that ends."""
    line = Progress(stream or sys.stderr)
    with _clearing_for_the_log(line):
        try:
            yield line
        finally:
            line.clear()
