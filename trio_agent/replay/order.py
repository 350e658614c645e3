"""What comes first in one moment of a replay: the file's next line, or what the turn does by itself."""

from __future__ import annotations

from math import inf

import trio

from trio_agent.recording import format as lines
from trio_agent.replay.script import Cue, Script
from trio_agent.replay.stage import Stage
from trio_agent.turn.timers import ENDING

# How long a write may take that somebody who left had begun to wait for, in seconds.
WRITE_SECONDS = 1.0
# How long a model call may take to be made once the machine has asked for it, in seconds.
CALL_SECONDS = 0.1


class Order:
    """Holds what happens in a replay against the place that it has in the file.

    Args:
        script: the file's lines that are still to be fed.
        stage: what has come so far.
        whole: whether the file says what went out.
    """

    def __init__(self, script: Script, stage: Stage, *, whole: bool) -> None:
        self._script = script
        self._stage = stage
        self._is_whole = whole

    def interrupted(self) -> bool:
        """Whether the file's next line comes amid what is being written: nothing more goes out before it."""
        cue = self._script.next
        if cue is None or self._stage.outputs < len(cue.outputs):
            return False
        for later in self._script.coming[1:]:
            if not isinstance(cue.line, lines.Head) or later.outputs:
                break
            cue = later  # the head of an answer comes beside the turn, and makes no difference to a write
        soon = self._stage.now() + WRITE_SECONDS
        match cue.line:
            case lines.Hold():
                return True
            case lines.Disconnect(t=t) | lines.Stop(t=t) | lines.Drain(t=t):
                return t <= soon or self._is_amid(cue)
            case _:
                return False

    def _is_amid(self, cue: Cue) -> bool:
        """Whether the end of a turn stands in the file between what went out and what is yet to come, so that
        the turn was at that all the while, however long the disk took."""
        return self._is_whole and isinstance(cue.line, lines.Disconnect | lines.Stop)

    async def answered(self) -> None:
        """Return when a request may be told what the store holds for it.

        A client that leaves amid that has no outcome; where there is one, the answer was there before.
        """
        cue = self._script.next
        if cue is None or not (cue.recorded and isinstance(cue.line, lines.Disconnect)):
            await self._stage.written()

    def too_early(self) -> bool:
        """Whether a model call that the machine has asked for is to be made later in this moment: in the file
        something else comes before it."""
        cue = self._script.next
        outputs = self._script.last_outputs if cue is None else cue.outputs
        if self._stage.outputs < len(outputs):
            return outputs[self._stage.outputs] not in (lines.CallMade, lines.CallAsked)
        return self.line_is_first()

    def line_is_first(self) -> bool:
        """Whether the file's next line comes before whatever goes out next, in this moment."""
        cue = self._script.next
        return (
            cue is not None
            and getattr(cue.line, "call", 0) <= self._stage.made
            and self._stage.outputs >= len(cue.outputs)
            and (cue.line.t <= self._stage.now() + CALL_SECONDS or self._is_amid(cue))
        )

    def turn_ends(self) -> float:
        """When the file has the turn run out of time, on Trio's clock."""
        ends = {timer.value for timer in ENDING}
        for cue in self._script.coming:
            if isinstance(cue.line, lines.TimerFired) and cue.line.timer in ends:
                at = self._stage.begun + cue.line.t
                # In the very moment of the end, what the file has before it is done before it.
                return at if at > trio.current_time() else inf
        return inf
