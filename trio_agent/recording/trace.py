"""The lines of a recording as they come, before anything is made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from trio_agent.providers.contract import ProviderRequest
from trio_agent.recording.codec import text_or_base64
from trio_agent.recording.format import (
    AnyEntry,
    Bytes,
    CallAsked,
    CallMade,
    Data,
    Hold,
    Outcome,
    Request,
)
from trio_agent.recording.plain import plain
from trio_agent.store.contract import CallRow, TurnRow


class RawData(Struct, gc=False):
    """A `Data` line to be. A chunk must cost little while the turn runs."""

    t: float
    call: int
    content: bytes


class RawBytes(Struct, gc=False):
    """A `Bytes` line to be."""

    t: float
    content: bytes
    end: bool


class RawAsked(Struct, gc=False):
    """A `CallAsked` line to be."""

    t: float
    call: int
    provider: str
    request: ProviderRequest


class RawOutcome(Struct, gc=False):
    """An `Outcome` line to be."""

    t: float
    row: TurnRow
    calls: tuple[CallRow, ...]


Line: TypeAlias = AnyEntry | RawData | RawBytes | RawAsked | RawOutcome

_ROW_ONLY: Final = ("id", "face", "model", "created_at", "ended_at", "owner", "states", "tools")
_CALL_ROW_ONLY: Final = ("turn_id", "started_at", "ended_at")


class Trace:
    """Lines in the order in which things happened.

    A write to the client that is under way counts as happening until it is done: if it never is, the client
    held it up, and a `hold` line goes before it. Until then no line from there on is `settled`.

    Args:
        clock: seconds; `t = 0` is set with `start`.
        grown: called after a line was added.
    """

    def __init__(self, clock: Callable[[], float], grown: Callable[[], None] = lambda: None) -> None:
        self.lines: list[Line] = []
        self.size = 0
        """Bytes that the lines hold, roughly."""
        self.held = False
        """Whether it is known that the client takes nothing; a write that never ends is no news then."""
        self.put: set[bytes] = set()
        """Blobs that went into the store and may come out of it again: where they do, that is no news."""
        self._clock = clock
        self._zero = clock()
        self._grown = grown
        self._writing: int | None = None
        self._stopped = False
        self._calls = 0
        self._operations: Counter[str] = Counter()

    # --- time and numbers -------------------------------------------------------------------------

    def start(self, at: float) -> None:
        """Say what moment of the clock is `t = 0`."""
        self._zero = at

    def now(self) -> float:
        return round(self._clock() - self._zero, 6)

    def since(self, at: float) -> float:
        """The `t` of a moment of the clock."""
        return round(at - self._zero, 6)

    def next_call(self) -> int:
        """The number of the next exchange with an upstream, from 1."""
        self._calls += 1
        return self._calls

    def next_operation(self, op: str) -> int:
        """How often the store has been asked for `op`, this time included."""
        self._operations[op] += 1
        return self._operations[op]

    # --- lines --------------------------------------------------------------------------------------

    def add(self, line: Line, size: int = 200) -> None:
        if self._stopped:
            return
        self.lines.append(line)
        self.size += size
        self._grown()

    def begin_write(self, line: Line, size: int) -> None:
        """Add a line for a write that begins now."""
        if self._writing is None:
            self._writing = len(self.lines)
        self.add(line, size)

    def end_write(self) -> None:
        """The write was taken."""
        self._writing = None
        self._grown()

    def tear_write(self) -> None:
        """The write was given up before it was taken."""
        place, self._writing = self._writing, None
        if place is not None and not self.held:
            self.held = True
            self.lines.insert(place, Hold(t=self.lines[place].t))
        self._grown()

    def take_settled(self) -> list[Line]:
        """The lines that are certain, which leave the trace."""
        settled = self.lines[: self._writing]
        del self.lines[: self._writing]
        if self._writing is not None:
            self._writing = 0
        self.size = 200 * len(self.lines)
        return settled

    def stop(self) -> None:
        """Let go of all lines, and take no more."""
        self._stopped = True
        self._writing = None
        self.lines.clear()
        self.size = 0

    @property
    def entries(self) -> list[AnyEntry]:
        """All lines, as the format has them."""
        return [finished(line) for line in self.lines]


def finished(line: Line) -> AnyEntry:
    """A line as the format has it. This takes time, and is not done while the turn waits."""
    match line:
        case RawData(t, call, content):
            text, encoded = text_or_base64(content)
            return Data(t=t, call=call, text=text, base64=encoded)
        case RawBytes(t, content, end):
            text, encoded = text_or_base64(content)
            return Bytes(t=t, text=text or None, base64=encoded, end=end)
        case RawAsked(t, call, provider, request):
            asked = plain(request)
            asked.pop("nonce", None)
            return CallAsked(t=t, call=call, provider=provider, request=asked)
        case RawOutcome(t, row, calls):
            return Outcome(t=t, turn=_turn(row), calls=[_without(each, _CALL_ROW_ONLY) for each in calls])
        case Request() | CallMade() if isinstance(line.body, msgspec.Raw):
            return _with_body(line, bytes(line.body))
        case _:
            return line


def _turn(row: TurnRow) -> dict[str, Any]:
    turn = _without(row, _ROW_ONLY)
    turn["states"] = [each.state for each in row.states]
    if row.tools:
        turn["tools"] = [{key: each[key] for key in each if key != "seconds"} for each in row.tools]
    return turn


def _without(row: TurnRow | CallRow, names: Sequence[str]) -> dict[str, Any]:
    said: dict[str, Any] = plain(row)
    return {name: value for name, value in said.items() if name not in names}


def _with_body(line: Request | CallMade, body: bytes) -> Request | CallMade:
    try:
        return msgspec.structs.replace(line, body=msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    text, encoded = text_or_base64(body)
    if isinstance(line, Request):
        return msgspec.structs.replace(line, body=None, text=text, base64=encoded)
    return msgspec.structs.replace(line, body=None, text=text if encoded is None else repr(body))
