"""What happened in a run, in order: for people a timeline, for the test of determinism a fingerprint."""

from __future__ import annotations

import hashlib
import re

import trio
from msgspec import Struct

_NAMES = re.compile(
    r"'[^']*'|\"[^\"]*\"|\[[^]]*\]|\([^)]*\)"  # what is quoted, listed or put in brackets
    r"|(?:client|program) \d+ \S+|call \S+|\S*\d\S*"  # who it is about, and figures
)


class Line(Struct, frozen=True):
    """Something that happened: when (seconds), to whom, and what."""

    at: float
    who: str
    what: str

    def __str__(self) -> str:
        return f"{self.at:9.3f}  {self.who:<14} {self.what}"


class Violation(Struct, frozen=True):
    """An invariant that did not hold: its number in docs/architecture.md, and what contradicts it."""

    invariant: int
    message: str

    @property
    def kind(self) -> tuple[int, str]:
        """What is contradicted and how, without the names and figures of one scenario."""
        return self.invariant, _NAMES.sub("…", self.message.partition("\n")[0])

    def __str__(self) -> str:
        return f"invariant {self.invariant}: {self.message}"


class Chronicle:
    """The record of one run. Everyone in it writes here, at the moment when it happens."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.violations: list[Violation] = []
        self._digest = hashlib.blake2b(digest_size=16)

    def note(self, who: str, what: str) -> None:
        self.lines.append(Line(trio.current_time(), who, what))

    def saw(self, who: str, data: bytes) -> None:
        """Bytes that went over a wire: in the fingerprint, not in the timeline."""
        self._digest.update(b"%s %r %d " % (who.encode(), trio.current_time(), len(data)))
        self._digest.update(data)

    def violate(self, invariant: int, message: str) -> None:
        violation = Violation(invariant, message)
        self.violations.append(violation)
        self.note("VIOLATION", str(violation))

    def fingerprint(self) -> str:
        """The same for two runs in which the same happened, byte for byte, at the same times."""
        whole = self._digest.copy()
        for line in self.lines:
            whole.update(f"{line.at!r} {line.who} {line.what}\n".encode())
        return whole.hexdigest()

    def timeline(self) -> str:
        return "\n".join(str(line) for line in self.lines)
