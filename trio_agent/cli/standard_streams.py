"""Standard streams that whoever started the program has closed (`2>&-`): they lead nowhere then."""

from __future__ import annotations

import os
import sys
from typing import Final, Literal, TextIO

_Mode = Literal["r", "w"]
_STREAMS: Final[tuple[tuple[str, _Mode], ...]] = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_missing() -> None:
    """Open those of the three descriptors that are closed, before anything else can get their numbers.

    Else the first file that is opened would be what others write their complaints into: a database, or a
    client's connection. Python has None for such a stream, which few who write to one expect.
    """
    for descriptor, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest number that is free, so this one. Processes that are started have it, too.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, _stream(descriptor, mode))


def _stream(descriptor: int, mode: _Mode) -> TextIO:
    # Kept open for as long as the process lives.
    return os.fdopen(descriptor, mode, encoding="utf-8", errors="backslashreplace", closefd=False)


__all__ = ["open_missing"]
