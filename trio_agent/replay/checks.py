"""What a line must be so that it can be played, beyond what its types say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from trio_agent.recording import format as lines
from trio_agent.recording.codec import RecordingError, bytes_of
from trio_agent.recording.format import AnyEntry
from trio_agent.replay.client import body_of
from trio_agent.replay.store import READS, WRITES, rows_of
from trio_agent.replay.tools import result_of
from trio_agent.replay.upstream import checked_call_line
from trio_agent.statemachine.conversation import Message
from trio_agent.statemachine.events import Timer
from trio_agent.turn.request import TurnRequest

_TIMERS: Final = frozenset(timer.value for timer in Timer)
_REASONS: Final = ("client_disconnected", "cancelled", "shutdown")
# RFC 9110, sections 5.1 and 5.6.2; section 5.5 for what a value cannot hold.
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NEVER_IN_HEADERS: Final = re.compile(r"[\r\n\0]")
# RFC 9110, section 15: three digits; those below 200 are no answer yet.
_STATUSES: Final = range(200, 1000)

_KEPT: Final[Mapping[str, Any]] = {"session": tuple[Message, ...]}


def check_line(line: AnyEntry) -> None:
    """See that a line can be played, before anything is.

    Raises:
        RecordingError: it cannot; the message says what is wrong, not where.
        msgspec.ValidationError: the same.
    """
    match line:
        case lines.Request():
            _check_request(line)
        case lines.Found(kept=kept):
            rows_of(line)
            _check_kept(kept)
        case lines.StoreFailed(op=op, nth=nth):
            if op not in READS | WRITES:
                raise RecordingError(f"a turn asks the store for no {op!r}; {_one_of(READS | WRITES)}")
            _check_from_one("nth", nth)
        case lines.Embedded(request=request):
            msgspec.convert(request, TurnRequest)
        case lines.ToolReturned(result=result) | lines.HostReturned(result=result):
            result_of(result)
        case lines.TimerFired(timer=timer) if timer not in _TIMERS:
            raise RecordingError(f"no timer is named {timer!r}; {_one_of(_TIMERS)}")
        case lines.Disconnect(reason=reason) | lines.Stop(reason=reason) if reason not in _REASONS:
            raise RecordingError(f"no reason is named {reason!r}; {_one_of(_REASONS)}")
        case lines.Bytes(text=text, base64=encoded):
            bytes_of(text, encoded)
        case lines.Output():
            pass
        case _:
            _check_call_line(line)


def _check_kept(kept: Mapping[str, Any]) -> None:
    for kind, value in kept.items():
        if kind not in _KEPT:
            raise RecordingError(f"nothing that a server keeps is named {kind!r}; {_one_of(_KEPT)}")
        msgspec.convert(value, _KEPT[kind])


def _check_request(line: lines.Request) -> None:
    given = [name for name in ("body", "text", "base64") if getattr(line, name) is not None]
    if len(given) > 1:
        raise RecordingError(f"request has {' and '.join(given)}; give one of them")
    if not line.path.startswith("/"):
        raise RecordingError(f"path is {line.path!r}; it begins with a slash")
    _check_headers(line.headers)
    for name, value in line.headers.items():
        try:
            value.encode("latin-1")
        except UnicodeEncodeError:
            raise RecordingError(
                f"the header {name} has {value!r}; a header's characters are bytes (U+0000 to U+00FF). "
                "Write other ones as their UTF-8 bytes, one character for each"
            ) from None
    body_of(line)


def _check_call_line(line: lines.AnyInput) -> None:
    call = getattr(line, "call", None)
    if call is not None:
        _check_from_one("call", call)
    if isinstance(line, lines.Head):
        if line.status not in _STATUSES:
            raise RecordingError(
                f"status is {line.status}; an answer has one from {_STATUSES.start} to {_STATUSES.stop - 1}"
            )
        _check_headers(line.headers)
    checked_call_line(line)


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise RecordingError(f"no header can be named {name!r}; names are letters, digits and dashes")
        if _NEVER_IN_HEADERS.search(value):
            raise RecordingError(f"the header {name} has {value!r}; a header's value is one line")


def _check_from_one(name: str, number: int) -> None:
    if number < 1:
        raise RecordingError(f"{name} is {number}; it counts from 1")


def _one_of(names: Iterable[str]) -> str:
    return f"there are {', '.join(sorted(names))}"


__all__ = ["check_line"]
