"""Where in a recording a fork begins: the line that was named, or the model call that it stands in."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from trio_agent.recording import format as lines
from trio_agent.replay.result import Moment, Replayed, ReplayError
from trio_agent.replay.script import numbers_of
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev

_OPENING = (ev.Begin, ev.Resume)
_CLOSING = (fx.CloseTurn, fx.Park, fx.Repark, fx.CallHost)


class ForkError(ReplayError):
    """What was asked for cannot be forked. The message says why, and what could be."""


class Border(Struct, frozen=True):
    """What of a recording is played.

    `inputs` counts the lines that come in before time is real; `None`: as many as it takes until the model
    call `call` is asked for. That call (the turn's, from 1) is in any case the first one that is live.
    `line` is the file's line that this is at, `named` the one that was asked for, `place` where in the
    replay's timeline.
    """

    line: int
    named: int | None
    call: int
    inputs: int | None
    place: int

    @property
    def went_back(self) -> bool:
        """Whether the line that was named stands inside the answer of the call at `line`."""
        return self.named is not None and self.named > self.line


def border_at(replayed: Replayed, named: int | None) -> Border:
    """The border at a line of the file; without one, at the first model call.

    Args:
        replayed: the recording, replayed as it is.
        named: the line's number in the file. All that comes in up to it, it included, is played.

    Raises:
        ForkError: no turn can go on from there; the message says why.
    """
    timeline = replayed.timeline
    numbers = _numbers(replayed)
    last = max((number for number in numbers if number is not None), default=1)
    if named is not None and not 1 <= named <= last:
        raise ForkError(f"{replayed.name}: there is no line {named}; its last one is line {last}")
    end = _end_of(timeline, numbers, named)
    part = timeline[:end]
    starts = [place for place, each in enumerate(part) if isinstance(each.value, fx.StartCall)]
    if not any(isinstance(each.value, _OPENING) for each in part):
        # Nothing is asked yet, or nothing has become a turn: the first call there is.
        first = _first_call(replayed)
        return Border(_call_line(timeline, numbers, first), named, 1, None, first + 1)
    latest = None if not starts else _call_line(timeline, numbers, starts[-1])
    _check_open(replayed, end, numbers, named or 1, latest)
    over = [place for place, each in enumerate(part) if isinstance(each.value, fx.RecordCall)]
    if starts and (not over or starts[-1] > over[-1]):
        line = _call_line(timeline, numbers, starts[-1])
        return Border(line, named, len(starts), None, starts[-1] + 1)
    inputs = sum(each.what == "in" for each in part)
    return Border(named or 1, named, len(starts) + 1, inputs, end)


def _numbers(replayed: Replayed) -> list[int | None]:
    """The file's line of each moment; `None` for what is no line, or none of the file's."""
    expected = replayed.expected
    known = list(numbers_of(expected))
    fed = {id(line): number for line, number in zip(expected.entries, known, strict=True)}
    same = iter(known) if replayed.ok else None
    found: list[int | None] = []
    for moment in replayed.timeline:
        if moment.what not in ("in", "out"):
            found.append(None)
        elif same is not None:
            found.append(next(same))
        else:
            found.append(fed.get(id(moment.value)))
    return found


def _end_of(timeline: Sequence[Moment], numbers: Sequence[int | None], named: int | None) -> int:
    """Up to where the timeline is played: to the next thing that comes in behind the line."""
    if named is None:
        return 0
    reached = [place for place, number in enumerate(numbers) if number is not None and number <= named]
    begin = reached[-1] + 1 if reached else 0
    return next(
        (place for place in range(begin, len(timeline)) if timeline[place].what == "in"), len(timeline)
    )


def _first_call(replayed: Replayed) -> int:
    places = (place for place, each in enumerate(replayed.timeline) if isinstance(each.value, fx.StartCall))
    first = next(places, None)
    if first is None:
        raise ForkError(f"{replayed.name}: no model is called in it, so there is nothing to make anew")
    return first


def _call_line(timeline: Sequence[Moment], numbers: Sequence[int | None], start: int) -> int:
    """The line at which a call was made; in a file without outputs, the input that made the machine ask."""
    for place in range(start, len(timeline)):
        number = numbers[place]
        if timeline[place].what == "in":
            break
        if isinstance(timeline[place].value, lines.CallMade | lines.CallAsked) and number is not None:
            return number
    return next((number for number in reversed(numbers[:start]) if number is not None), 1)


def _check_open(
    replayed: Replayed, end: int, numbers: Sequence[int | None], named: int, latest: int | None
) -> None:
    """See that a turn is under way at `end`, one alone; `latest` is where a model was last called.

    Raises:
        ForkError: none is, or several are.
    """
    part, rest = replayed.timeline[:end], replayed.timeline[end:]
    running, most = 0, 0
    closing: object = None
    for moment in part:
        if isinstance(moment.value, _OPENING):
            running, closing = running + 1, None
        elif isinstance(moment.value, _CLOSING):
            running, closing = max(0, running - 1), moment.value
        elif isinstance(moment.value, ev.HostToolsReturned):
            running, closing = 1, None
        most = max(most, running) if running else 0
    where = f"{replayed.name}:{named}"
    if running and most > 1:
        # Whose call is whose cannot be told from the timeline alone.
        raise ForkError(f"{where}: this turn runs beside another one; a fork goes on with one that is alone")
    if running:
        return
    what = "has ended" if isinstance(closing, fx.CloseTurn) else "waits for its caller's tools"
    following = next(
        (
            number
            for moment, number in zip(rest, numbers[end:], strict=True)
            if number is not None
            and isinstance(moment.value, lines.Request | lines.Embedded | lines.HostReturned)
        ),
        None,
    )
    hints = [] if latest is None else [f"line {latest} to make the last model call anew"]
    hints += [] if following is None else [f"line {following} to go on from what came next"]
    raise ForkError(f"{where}: the turn {what} here; name {' or '.join(hints) or 'an earlier line'}")


__all__ = ["Border", "ForkError", "border_at"]
