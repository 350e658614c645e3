"""Plays recordings."""

from __future__ import annotations

import msgspec
import trio

from trio_agent.providers.modules import installed_modules
from trio_agent.recording.format import Recording
from trio_agent.recording.trace import finished
from trio_agent.replay.clock import StandingClock, standing_still
from trio_agent.replay.compare import Came, compare, has_outputs
from trio_agent.replay.house import Known
from trio_agent.replay.playing import Playing
from trio_agent.replay.result import UNWRITTEN, Difference, Replayed


class Player:
    """Plays any number of recordings; what they have in common is looked up once.

    Args:
        run_tools: run the server-side tools that a recording's config names, really, and compare what they
            return with what the file says. The turn goes on with the file's result.
    """

    def __init__(self, *, run_tools: bool = False) -> None:
        self._run_tools = run_tools
        self._known = Known(installed_modules())

    def replay(self, recording: Recording, name: str) -> Replayed:
        """Play one recording, on a clock of its own.

        Args:
            name: of the file, for messages.

        Raises:
            ReplayError: it cannot be played; the message says where and why.
        """
        return trio.run(self.play, recording, name, clock=StandingClock())

    async def play(self, recording: Recording, name: str) -> Replayed:
        """`replay` inside a program that runs under a `MockClock`, which the replay moves.

        The program's other tasks must be waiting meanwhile: a replay goes on when nothing else can.

        Raises:
            ReplayError: it cannot be played.
            RuntimeError: the program's clock is a real one.
        """
        with standing_still():
            playing = Playing(recording, name, self._known, run_tools=self._run_tools)
            await playing.play()
        stage = playing.stage
        whole = {id(each.line): finished(each.line) for each in stage.noted}
        came = [Came(whole[id(each.line)], each.state, each.number) for each in stage.noted]
        differences = [*compare(recording, came), *playing.oddities.found]
        if has_outputs(whole.values()) and not has_outputs(recording.entries):
            differences = [Difference(line=1, t=0.0, state="new", message=UNWRITTEN), *playing.oddities.found]
        return Replayed(
            name=name,
            expected=recording,
            actual=[each.entry for each in came],
            differences=sorted(differences, key=lambda each: each.line),
            timeline=[
                msgspec.structs.replace(each, value=whole[id(each.value)])
                if each.what in ("in", "out")
                else each
                for each in stage.moments
            ],
            stranded=playing.oddities.stranded,
            unended=playing.oddities.unended,
        )
