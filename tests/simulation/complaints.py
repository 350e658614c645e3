"""What the server's log holds that no fault of a run excuses."""

from __future__ import annotations

import logging
from collections.abc import Callable


class Complaints(logging.Handler):
    """What the server's log holds that no fault of a run excuses: failures of its own making."""

    own = (
        "the server failed",
        "could not be told",
        "connection closed after an error",
        "the application failed",
        "no response was made",
        "crashed",
        "broke its contract",
        "failed while it",
    )

    def __init__(self, complain: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._complain = complain

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if any(words in message for words in self.own):
            cause = record.exc_info[1] if record.exc_info else None
            self._complain(message if cause is None else f"{message}: {cause!r}")
