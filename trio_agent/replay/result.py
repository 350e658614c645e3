"""What comes out of a replay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct

from trio_agent.recording.format import AnyEntry, Recording

UNWRITTEN: Final = "the file says nothing yet of what should come out: replay it with --update"
What: TypeAlias = Literal["in", "out", "event", "effect"]


class ReplayError(Exception):
    """A recording cannot be played. The message names the file and, where there is one, the line."""


class Difference(Struct, frozen=True, kw_only=True):
    """One place at which a replay did not do what the file says.

    `line` is the line of the file at which it begins, `t` the time there in seconds, `state` the state that
    the machine was in. `expected` are lines of the file that did not come, `actual` what came instead. A
    difference with a `message` is a line that nothing waited for, or a turn that never ended.
    """

    line: int
    t: float
    state: str
    expected: Sequence[AnyEntry] = ()
    actual: Sequence[AnyEntry] = ()
    message: str | None = None


class Moment(Struct, frozen=True):
    """One thing that happened: a line of the recording, or what the machine took and asked for.

    `t` is in seconds, `state` the machine's state when it happened. `value` is a line (`in`, `out`), an
    event, or an effect.
    """

    t: float
    state: str
    what: What
    value: Any


class Replayed(Struct, frozen=True, kw_only=True):
    """One file, replayed.

    `actual` has all lines as they came, `differences` where they are others than the file's, `timeline`
    what happened in the machine besides. `stranded` are the line numbers of inputs that had no effect.
    `unended` says that a turn waited for more when the file was over.
    """

    name: str
    expected: Recording
    actual: list[AnyEntry]
    differences: list[Difference]
    timeline: list[Moment]
    stranded: list[int] = []
    unended: bool = False

    @property
    def ok(self) -> bool:
        """Whether everything was as the file says."""
        return not self.differences
