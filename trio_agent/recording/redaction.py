"""Asking the operator's function what of a line may be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from trio_agent.recording.codec import RecordingError, check_line

Redact: TypeAlias = Callable[[dict[str, Any]], dict[str, Any] | None]
"""Called in a worker thread with each line as JSON values, before it is written; returns what is to be
written, or `None` to leave the line out."""


class RedactionError(Exception):
    """The function failed, or gave what is no line. The message says which."""


def redacted(content: bytes, redact: Redact, *, header: bool = False) -> bytes:
    """Encoded lines as the function wants them.

    Raises:
        RedactionError: a recording without what the function was to change must not be written.
    """
    return b"".join(_line(line, redact, header=header) for line in content.splitlines())


def _line(line: bytes, redact: Redact, *, header: bool) -> bytes:
    try:
        wanted = redact(msgspec.json.decode(line))
    # Not the agent's end: these are the function's own, for signals go to another thread.
    except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit) as error:  # noqa: BLE001
        raise RedactionError(f"the redaction function failed: {type(error).__name__}: {error}") from None
    if wanted is None:
        if header:
            raise RedactionError("the redaction function left out the header, which a recording needs")
        return b""
    if not isinstance(wanted, dict):
        raise RedactionError(f"the redaction function returned {type(wanted).__name__}, not a dict or None")
    try:
        encoded = msgspec.json.encode(wanted)
        check_line(encoded, "the redaction function returned what is no line", header=header)
    except RecordingError as error:
        raise RedactionError(str(error)) from None
    except Exception as error:  # noqa: BLE001 - objects of any kind may stand in it
        raise RedactionError(f"the redaction function returned what is no JSON: {error}") from None
    return encoded + b"\n"
