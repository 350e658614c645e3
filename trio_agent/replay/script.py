"""The file's inputs, checked and in order: what the player feeds next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from trio_agent.recording import format as lines
from trio_agent.recording.codec import RecordingError
from trio_agent.recording.format import AnyEntry, AnyInput, Recording
from trio_agent.replay.checks import check_line
from trio_agent.replay.result import ReplayError

_BY_EVENTS = (lines.Events, lines.CallEnded)
_BY_HTTP = (lines.Head, lines.Data, lines.End, lines.Broke)


class Cue(Struct, frozen=True):
    """An input and its line in the file. `requests` come before it, `outputs` since the input above it; these
    are the kinds of the lines. `recorded` says that the response has an outcome behind this line."""

    line: AnyInput
    number: int
    requests: int
    outputs: tuple[type, ...]
    recorded: bool


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
        requests = 0
        outputs: list[type] = []
        last_outcomes = _last_outcomes(recording.entries)
        for place, (line, number) in enumerate(zip(recording.entries, numbers, strict=True)):
            if isinstance(line, AnyInput) and not (by_clock and isinstance(line, lines.TimerFired)):
                self.cues.append(
                    Cue(line, number, requests, tuple(outputs), last_outcomes.get(requests, -1) > place)
                )
                outputs.clear()
                requests += isinstance(line, lines.Request | lines.Embedded)
            elif isinstance(line, lines.Output):
                outputs.append(type(line))
        self.last_outputs = tuple(outputs)
        """Those behind the last input."""
        latest = 0.0
        for line, number in zip(recording.entries, numbers, strict=True):
            try:
                check_line(line)
            except (RecordingError, msgspec.ValidationError) as error:
                raise ReplayError(f"{name}:{number}: {error}") from None
        for cue in self.cues:
            if cue.line.t < latest:
                if by_clock:
                    before = f"the line above it ({latest:g})" if cue.line.t >= 0 else "the first request (0)"
                    raise ReplayError(f"{name}:{cue.number}: t is {cue.line.t:g}, before {before}")
            else:
                latest = cue.line.t
        if not requests:
            raise ReplayError(f"{name}: nothing is asked in it; its inputs begin with a `request` line")
        self._place = 0
        self._passed: set[int] = set()

    @property
    def next(self) -> Cue | None:
        """The line to be fed next."""
        while self._place < len(self.cues) and self.cues[self._place].number in self._passed:
            self._place += 1
        return self.cues[self._place] if self._place < len(self.cues) else None

    @property
    def coming(self) -> Sequence[Cue]:
        """The lines that are left, in order."""
        return self.cues[self._place :]

    def pass_over(self, cue: Cue) -> None:
        """Feed no such line, for what it says has happened."""
        self._passed.add(cue.number)

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


def _last_outcomes(entries: Iterable[AnyEntry]) -> dict[int, int]:
    """The place of the last outcome behind so many requests, and before the next one."""
    requests = 0
    found: dict[int, int] = {}
    for place, line in enumerate(entries):
        requests += isinstance(line, lines.Request | lines.Embedded)
        if isinstance(line, lines.Outcome):
            found[requests] = place
    return found
