"""What was odd about a replay, besides what came out differently."""

from __future__ import annotations

from trio_agent.recording.format import Recording
from trio_agent.replay.inbox import Key
from trio_agent.replay.result import Difference
from trio_agent.replay.script import Cue, breaks_off, numbers_of
from trio_agent.replay.stage import Stage


class Oddities:
    """Lines that nobody waited for, turns that never ended, and what else was not as it should be.

    `found` is all of it; `stranded` are the numbers of such lines, `unended` says that there are such turns.
    """

    def __init__(self, recording: Recording, stage: Stage) -> None:
        self._recording = recording
        self._stage = stage
        self.found: list[Difference] = []
        self.stranded: list[int] = []
        self.unended = False

    def strand(self, cue: Cue, why: str) -> None:
        """Nothing came of a line, because of `why`."""
        self.stranded.append(cue.number)
        waiting = self._waiting()
        told = f"nothing came of `{cue.line.__struct_config__.tag}`: {why}"
        self.note(cue.number, f"{told}. {waiting}" if waiting else told)

    def note_waiting(self) -> None:
        """The file is over, and something still waits."""
        self.unended = True
        if breaks_off(self._recording):
            return
        numbers = numbers_of(self._recording)
        self.note(
            numbers[-1] if numbers else 1,
            f"the file is over, and a turn has not ended. {self._waiting()}".rstrip(),
        )

    def note(self, number: int, message: str) -> None:
        """Something was not as it should be at the line of this number."""
        self.found.append(
            Difference(line=number, t=self._stage.now(), state=self._stage.state, message=message)
        )

    def _waiting(self) -> str:
        waits = [named(key) for key in self._stage.inbox.waited_for]
        if self._stage.held:
            waits.append("the client to take what is sent (`release`)")
        return f"What runs waits for {' and '.join(waits)}." if waits else ""


def named(key: Key) -> str:
    """What waits for this in the inbox, in words."""
    kind, which = key
    match kind:
        case "call":
            return f"the answer of model call {which}"
        case "tool":
            return f"the tool call {which}"
        case _:
            return f"the host's answer to {which}"
