"""What the upstream is to answer: carried in the prompt, so that every gateway passes it on unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields

WORD_DIGITS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One answer.

    Attributes:
        chunks: how many content chunks it has.
        every_us: microseconds between two writes; 0 writes everything at once.
        burst: content chunks in one write.
        phase_us: microseconds before the first write, to keep parallel streams apart.
        hold: 1 leaves the stream open and silent after the last chunk, until the client leaves.
    """

    chunks: int = 1
    every_us: int = 0
    burst: int = 1
    phase_us: int = 0
    hold: int = 0

    def prompt(self) -> str:
        return " ".join(f"{name}={value}" for name, value in asdict(self).items())

    @classmethod
    def parse(cls, prompt: str) -> Plan:
        """The plan in a prompt. Raises ValueError."""
        known = {field.name for field in fields(cls)}
        given = dict(pair.split("=", 1) for pair in prompt.split())
        if not given.keys() <= known:
            raise ValueError(f"unknown in a plan: {sorted(given.keys() - known)}")
        return cls(**{name: int(value) for name, value in given.items()})

    def words(self) -> Iterator[str]:
        """The chunks' texts, each of them different, so that a lost or doubled one shows."""
        return (f" {number:0{WORD_DIGITS}d}" for number in range(self.chunks))

    def text(self) -> str:
        return "".join(self.words())
