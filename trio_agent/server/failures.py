"""How failures appear in the server's log: what and where, never with what a client sent."""

from __future__ import annotations

import logging
import os
import traceback
from typing import Final

log = logging.getLogger("trio_agent.server")

_FRAMES: Final = 4


def describe_errors(error: BaseException) -> str:
    """Types and places of an error or group, in one line, the innermost frame first.

    No messages: they can repeat a request. Whoever needs them logs `exc_info` at level DEBUG.
    """
    if isinstance(error, BaseExceptionGroup):
        return ", ".join(describe_errors(child) for child in error.exceptions)
    frames = reversed(traceback.extract_tb(error.__traceback__)[-_FRAMES:])
    places = " < ".join(f"{os.path.basename(frame.filename)}:{frame.lineno}" for frame in frames)  # noqa: PTH119
    return f"{type(error).__name__} at {places}" if places else type(error).__name__
