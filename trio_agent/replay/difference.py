"""Differences for people: what the file says and what came, line by line."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Final

from trio_agent.replay.result import Difference, Replayed
from trio_agent.replay.script import numbers_of
from trio_agent.replay.shown import brief, shown

_MOST_LINES: Final = 80
_WIDEST: Final = 160  # characters of one line
_AROUND: Final = 40  # characters shown on both sides of what differs in a long line


def render_difference(replayed: Replayed) -> str:
    """All differences of a replay, or as many as are pleasant to read; empty where there are none.

    A line that begins with `-` is in the file and did not come, one with `+` came and is not in the file.
    """
    if replayed.ok:
        return ""
    written: list[str] = []
    for count, difference in enumerate(replayed.differences):
        block = list(_block(replayed, difference))
        if len(written) + len(block) > _MOST_LINES:
            left = len(replayed.differences) - count
            written += block[: max(0, _MOST_LINES - len(written))]
            cut = "difference is" if left == 1 else f"{left} differences are"
            written.append(f"… the last {cut} cut short; --show prints all that happened")
            break
        written += block
    return "\n".join(written) + "\n"


def _block(replayed: Replayed, difference: Difference) -> Iterator[str]:
    where = f"{replayed.name}:{difference.line}"
    yield f"{where}: t = {difference.t:g} s, state {difference.state}"
    if difference.message is not None:
        yield f"  {difference.message}"
        return
    before = _before(replayed, difference.line)
    if before is not None:
        yield f"  {_cut(before)}"
    yield from _lines(difference)


def _before(replayed: Replayed, number: int) -> str | None:
    numbers = list(numbers_of(replayed.expected))
    place = numbers.index(number) if number in numbers else 0
    return brief(replayed.expected.entries[place - 1]) if place > 0 else None


def _lines(difference: Difference) -> Iterator[str]:
    gone = [line for entry in difference.expected for line in shown(entry)]
    come = [line for entry in difference.actual for line in shown(entry)]
    for tag, begin, end, first, last in SequenceMatcher(None, gone, come, autojunk=False).get_opcodes():
        old, new = gone[begin:end], come[first:last]
        if tag == "equal":
            yield from (f"  {_cut(line)}" for line in old)
            continue
        pairs = list(zip(old, new, strict=False))
        narrow = [_narrowed(one, other) for one, other in pairs]
        yield from (f"- {line}" for line, _ in narrow)
        yield from (f"- {_cut(line)}" for line in old[len(pairs) :])
        yield from (f"+ {line}" for _, line in narrow)
        yield from (f"+ {_cut(line)}" for line in new[len(pairs) :])


def _narrowed(old: str, new: str) -> tuple[str, str]:
    """Two lines around what differs in them."""
    if max(len(old), len(new)) <= _WIDEST:
        return old, new
    front = _common(old, new)
    back = _common(old[front:][::-1], new[front:][::-1])
    begin = max(0, front - _AROUND)
    return _window(old, begin, len(old) - back + _AROUND), _window(new, begin, len(new) - back + _AROUND)


def _common(old: str, new: str) -> int:
    """How many characters the two begin with alike."""
    pairs = enumerate(zip(old, new, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(old), len(new)))


def _window(text: str, begin: int, end: int) -> str:
    inner = text[begin:end]
    if len(inner) > 2 * _WIDEST:
        inner = f"{inner[:_WIDEST]} … {inner[-_WIDEST:]}"
    return ("… " if begin else "") + inner + (" …" if end < len(text) else "")


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else f"{text[:_WIDEST]} … ({len(text)} characters)"
