"""Comparing what a replay gave with what the file says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from typing import Any, TypeAlias

import msgspec

from trio_agent.recording import format as lines
from trio_agent.recording.codec import bytes_of
from trio_agent.recording.format import AnyEntry, Recording
from trio_agent.replay.result import Difference
from trio_agent.replay.script import breaks_off, numbers_of

Key: TypeAlias = tuple[Any, ...]

_encode = msgspec.json.Encoder(order="sorted").encode


class Came(msgspec.Struct, frozen=True):
    """A line of the replay, and the state it came in. `number` is that of the file's line, for its inputs."""

    entry: AnyEntry
    state: str
    number: int | None = None


def compare(recording: Recording, came: Sequence[Came]) -> list[Difference]:
    """Where the lines are not the same in the same order; outputs may have come at any time.

    A recording that breaks off says nothing of what came after that.
    """
    numbers = numbers_of(recording)
    if breaks_off(recording):
        whole = [line for line in recording.entries if not isinstance(line, lines.Lost)]
        recording = msgspec.structs.replace(recording, entries=whole, numbers=numbers[: len(whole)])
        numbers, came = recording.numbers, came[: len(whole)]
    expected = [_key(line, number) for line, number in zip(recording.entries, numbers, strict=True)]
    actual = [_key(each.entry, each.number) for each in came]
    if expected == actual:
        return []
    found: list[Difference] = []
    matcher = SequenceMatcher(None, expected, actual, autojunk=False)
    for tag, begin, end, first, last in matcher.get_opcodes():
        if tag == "equal":
            continue
        here = came[min(first, len(came) - 1)] if came else None
        near = begin if begin < len(numbers) else len(numbers) - 1
        found.append(
            Difference(
                line=numbers[near] if numbers else 1,
                t=recording.entries[begin].t if begin < end else came[first].entry.t,
                state="new" if here is None else here.state,
                expected=recording.entries[begin:end],
                actual=[each.entry for each in came[first:last]],
            )
        )
    return found


def has_outputs(entries: Iterable[AnyEntry]) -> bool:
    return any(isinstance(line, lines.Output) for line in entries)


def _key(line: AnyEntry, number: int | None) -> Key:
    """What must be equal in two lines that are the same.

    An input of the file is itself, wherever it stands. A timer that the clock fired has a time.
    """
    match line:
        case lines.TimerFired(t=t, timer=timer):
            return "timer", timer, t
        case lines.Input() if number is not None:
            return "input", number
        case lines.Bytes(text=text, base64=encoded, end=end):
            return "bytes", bytes_of(text, encoded), end
        case _:
            plain = msgspec.to_builtins(line)
            plain.pop("t", None)
            return "line", _encode(plain)
