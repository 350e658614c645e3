"""The file's inputs, checked and in order: what the player feeds next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from trio_agent.recording import format as lines
from trio_agent.recording.codec import RecordingError
from trio_agent.recording.format import AnyInput, Recording
from trio_agent.replay.client import body_of
from trio_agent.replay.result import ReplayError
from trio_agent.replay.store import READS, WRITES, rows_of
from trio_agent.replay.tools import result_of
from trio_agent.replay.upstream import checked_call_line
from trio_agent.statemachine.events import Timer
from trio_agent.turn.request import TurnRequest

_TIMERS = frozenset(timer.value for timer in Timer)
_REASONS = ("client_disconnected", "cancelled", "shutdown")
_BY_EVENTS = (lines.Events, lines.CallEnded)
_BY_HTTP = (lines.Head, lines.Data, lines.End, lines.Broke)


class Cue(Struct, frozen=True):
    """An input and its line in the file. `requests` come before it, `outputs` since the input above it."""

    line: AnyInput
    number: int
    requests: int
    outputs: int


class Script:
    """The inputs of a recording that are fed, in order.

    Where the clock fires the timers, `timer` lines only report, and are none of them.

    Raises:
        ReplayError: a line cannot be played.
    """

    def __init__(self, recording: Recording, name: str) -> None:
        by_clock = recording.header.timers == "clock"
        numbers = numbers_of(recording)
        self.cues: list[Cue] = []
        requests = outputs = 0
        for line, number in zip(recording.entries, numbers, strict=True):
            if isinstance(line, AnyInput) and not (by_clock and isinstance(line, lines.TimerFired)):
                self.cues.append(Cue(line, number, requests, outputs))
                outputs = 0
                requests += isinstance(line, lines.Request | lines.Embedded)
            elif isinstance(line, lines.Output):
                outputs += 1
        latest = 0.0
        for cue in self.cues:
            where = f"{name}:{cue.number}"
            try:
                _check(cue.line)
            except (RecordingError, msgspec.ValidationError) as error:
                raise ReplayError(f"{where}: {error}") from None
            if cue.line.t < latest:
                if by_clock:
                    raise ReplayError(f"{where}: t is {cue.line.t:g}, before the line above it ({latest:g})")
            else:
                latest = cue.line.t
        if not requests:
            raise ReplayError(f"{name}: nothing is asked in it; its inputs begin with a `request` line")
        self._place = 0

    @property
    def next(self) -> Cue | None:
        """The line to be fed next."""
        return self.cues[self._place] if self._place < len(self.cues) else None

    def advance(self) -> Cue:
        """Take the next line."""
        cue = self.cues[self._place]
        self._place += 1
        return cue

    @property
    def store_failures(self) -> list[Cue]:
        return [cue for cue in self.cues if isinstance(cue.line, lines.StoreFailed)]


def numbers_of(recording: Recording) -> Sequence[int]:
    """The line numbers of the entries; where there is no file, as if there were one without other lines."""
    if len(recording.numbers) == len(recording.entries):
        return recording.numbers
    return range(2, len(recording.entries) + 2)


def breaks_off(recording: Recording) -> bool:
    """Whether the recorder could not write down the whole turn."""
    return any(isinstance(line, lines.Lost) for line in recording.entries)


def providers_by_events(recording: Recording) -> set[str]:
    """The providers whose calls are told event by event."""
    asked = {line.provider for line in recording.entries if isinstance(line, lines.CallAsked)}
    if asked or not any(isinstance(line, _BY_EVENTS) for line in recording.entries):
        return asked
    # No outputs yet that would say whose calls these are.
    if any(isinstance(line, _BY_HTTP) for line in recording.entries):
        return set(recording.header.providers)
    providers = recording.header.config.get("providers", {})
    return set(providers) if isinstance(providers, dict) else set()


def _check(line: AnyInput) -> None:
    match line:
        case lines.Request():
            body_of(line)
        case lines.Found():
            rows_of(line)
        case lines.StoreFailed(op=op) if op not in READS | WRITES:
            raise RecordingError(f"a turn asks the store for no {op!r}; {_one_of(READS | WRITES)}")
        case lines.Embedded(request=request):
            msgspec.convert(request, TurnRequest)
        case lines.ToolReturned(result=result) | lines.HostReturned(result=result):
            result_of(result)
        case lines.TimerFired(timer=timer) if timer not in _TIMERS:
            raise RecordingError(f"no timer is named {timer!r}; {_one_of(_TIMERS)}")
        case lines.Disconnect(reason=reason) | lines.Stop(reason=reason) if reason not in _REASONS:
            raise RecordingError(f"no reason is named {reason!r}; {_one_of(_REASONS)}")
        case _:
            checked_call_line(line)


def _one_of(names: Iterable[str]) -> str:
    return f"there are {', '.join(sorted(names))}"
