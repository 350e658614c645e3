"""The lines of a recording as they come, before anything is made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from trio_agent.config.mask import bare_url
from trio_agent.providers.contract import ProviderRequest
from trio_agent.providers.http_failure import bare_location
from trio_agent.recording.codec import text_or_base64
from trio_agent.recording.format import (
    AnyEntry,
    Bytes,
    CallAsked,
    CallMade,
    Data,
    Head,
    Hold,
    Outcome,
    Request,
)
from trio_agent.recording.plain import fields_of, plain
from trio_agent.store.contract import CallRow, TurnRow


class RawData(Struct, gc=False, tag_field="in", tag="data"):
    """A `Data` line of text. A chunk must cost little: this is made in less time, and encoded as it is."""

    t: float
    call: int
    text: str


class RawBytes(Struct, gc=False, tag_field="out", tag="bytes", omit_defaults=True):
    """A `Bytes` line of text, likewise."""

    t: float
    text: str | None = None
    end: bool = False


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

RAW_LINES: Final[frozenset[type]] = frozenset({RawData, RawBytes})
"""The kinds of lines that are encoded as they are, and hold a text and nothing else that anybody said."""

STEP_BYTES: Final = 16 << 10
"""How much a trace that has told of its growth grows before it tells again."""

_ROW_ONLY: Final = frozenset({"id", "face", "model", "created_at", "ended_at", "owner", "states", "tools"})
_CALL_ROW_ONLY: Final = frozenset({"turn_id", "started_at", "ended_at"})


class Trace:
    """Lines in the order in which things happened.

    A write to the client that is under way counts as happening until it is done: if it never is, the client
    held it up, and a `hold` line goes before it. Until then no line from there on is `settled`.

    Args:
        clock: seconds; `t = 0` is set with `start`.
        grown: called when there are settled lines again, and each time that `STEP_BYTES` more have come.
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
        self._announce_at = 0
        self._writing: int | None = None
        self._settled_size = 0
        self._stopped = False
        self._calls = 0
        self._operations: Counter[str] = Counter()

    # --- time and numbers -------------------------------------------------------------------------

    def start(self, at: float) -> None:
        """Say what moment of the clock is `t = 0`. What is here already came with it."""
        self._zero = at
        for line in self.lines:
            line.t = 0.0

    def now(self) -> float:
        # `round(…, 6)` costs four times as much, and this is asked for twice a chunk.
        return int((self._clock() - self._zero) * 1e6 + 0.5) / 1e6

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
        if self.size >= self._announce_at:
            self._announce()

    def begin_write(self, line: Line, size: int) -> None:
        """Add a line for a write that begins now."""
        if self._stopped:
            return
        if self._writing is None:
            self._writing = len(self.lines)
            self._settled_size = self.size
        # As `add` does: this is for every chunk.
        self.lines.append(line)
        self.size += size
        if self.size >= self._announce_at:
            self._announce()

    @property
    def is_writing(self) -> bool:
        """Whether a write is under way."""
        return self._writing is not None

    def end_write(self) -> None:
        """The write was taken."""
        self._writing = None
        if not self._announce_at:
            self._announce()  # a write that has waited for long: its lines can be taken now

    def tear_write(self) -> None:
        """The write was given up before it was taken."""
        place, self._writing = self._writing, None
        if place is not None and not self.held:
            self.held = True
            self.lines.insert(place, Hold(t=self.lines[place].t))
        self._announce()

    def take_settled(self) -> list[Line]:
        """The lines that are certain, which leave the trace."""
        self._announce_at = 0
        place = self._writing
        if place is None:
            settled, self.lines, self.size = self.lines, [], 0
            return settled
        settled = self.lines[:place]
        del self.lines[:place]
        self._writing = 0
        self.size -= self._settled_size
        self._settled_size = 0
        return settled

    def stop(self) -> None:
        """Let go of all lines, and take no more."""
        self._stopped = True
        self._writing = None
        self.lines = []
        self.size = 0

    def _announce(self) -> None:
        self._announce_at = self.size + STEP_BYTES
        self._grown()

    @property
    def entries(self) -> list[AnyEntry]:
        """All lines, as the format has them."""
        return [finished(line) for line in self.lines]


def data_line(t: float, call: int, content: bytes) -> RawData | Data:
    """The line for content of an upstream's answer."""
    try:
        return RawData(t, call, content.decode())
    except UnicodeDecodeError:
        return Data(t=t, call=call, base64=text_or_base64(content)[1])


def bytes_line(t: float, content: bytes, end: bool) -> RawBytes | Bytes:
    """The line for a write of the response's body."""
    try:
        return RawBytes(t, content.decode() or None, end)
    except UnicodeDecodeError:
        return Bytes(t=t, base64=text_or_base64(content)[1], end=end)


def encodable(line: Line) -> AnyEntry | RawData | RawBytes:
    """What is encoded for a line: itself where that is the same as what `finished` gives.

    A body that is JSON on one line is copied. One with escapes that JSON does not ask for is not: a secret
    that is written with them would not be found in it. Addresses stand without credentials.
    """
    match line:
        case RawData() | RawBytes():
            return line
        case CallMade(url=url) if "?" in url or "@" in url:
            return finished(msgspec.structs.replace(line, url=bare_url(url)))
        case Head(headers={"location": location}):
            return msgspec.structs.replace(line, headers=line.headers | {"location": bare_location(location)})
        case Request() | CallMade() if isinstance(line.body, msgspec.Raw) and _is_plain(bytes(line.body)):
            return line
        case _:
            return finished(line)


def finished(line: Line) -> AnyEntry:
    """A line as the format has it. This takes time, and is not done while the turn waits."""
    match line:
        case RawData(t, call, text):
            return Data(t=t, call=call, text=text)
        case RawBytes(t, text, end):
            return Bytes(t=t, text=text, end=end)
        case RawAsked(t, call, provider, request):
            asked = plain(request)
            asked.pop("nonce", None)
            return CallAsked(t=t, call=call, provider=provider, request=asked)
        case RawOutcome(t, row, calls):
            return Outcome(t=t, turn=_turn(row), calls=[fields_of(each, _CALL_ROW_ONLY) for each in calls])
        case Request() if isinstance(line.body, msgspec.Raw) and _is_plain(bytes(line.body)):
            return line
        case Request() | CallMade() if isinstance(line.body, msgspec.Raw):
            return _with_body(line, bytes(line.body))
        case _:
            return line


def _turn(row: TurnRow) -> dict[str, Any]:
    turn = fields_of(row, _ROW_ONLY)
    turn["states"] = [each.state for each in row.states]
    if row.tools:
        turn["tools"] = [
            {key: each[key] for key in each if key not in ("at", "seconds")} for each in row.tools
        ]
    return turn


_SPELLED: Final = b'"tool_use"'
"""In a client's body: there are arguments of a call in it that go to models as they are spelled."""


def _is_plain(body: bytes) -> bool:
    if b"\n" in body or b"\r" in body or b"\\u" in body or b"\\/" in body:
        return False
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _with_body(line: Request | CallMade, body: bytes) -> Request | CallMade:
    if isinstance(line, CallMade) or _SPELLED not in body:
        try:
            return msgspec.structs.replace(line, body=msgspec.json.decode(body))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    text, encoded = text_or_base64(body)
    if isinstance(line, Request):
        return msgspec.structs.replace(line, body=None, text=text, base64=encoded)
    return msgspec.structs.replace(line, body=None, text=text if encoded is None else repr(body))
