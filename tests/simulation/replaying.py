"""The seventh invariant: every turn of a run is recorded, and its recording plays to the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from simulation.chronicle import Violation
from simulation.run import Outcome

from trio_agent.recording.codec import load
from trio_agent.recording.format import Bytes, Lost, Output, Told
from trio_agent.replay import Player, ReplayError, render_difference


class Replaying:
    """An extension of a run that records it, and plays the recordings when it is over.

    `played` counts them.
    """

    def __init__(self) -> None:
        self._player = Player()
        self._folder = Path()
        self.played = 0

    def agent_options(self, home: Path) -> Mapping[str, Any]:
        self._folder = home / "recordings"
        return {"record": self._folder}

    def after(self, outcome: Outcome) -> Sequence[Violation]:
        scenario = outcome.scenario
        # A process that is killed has a second; a disk that hangs does not take the last lines in that.
        cut = any(act.kind == "crash" or (act.kind == "kill" and scenario.disk) for act in scenario.acts)
        paths = sorted(self._folder.rglob("*.jsonl"))
        return [violation for path in paths for violation in self._play(path, cut=cut)]

    def _play(self, path: Path, *, cut: bool) -> Sequence[Violation]:
        recording = load(path)
        if cut and not any(isinstance(line, Bytes | Told) and _ends(line) for line in recording.entries):
            # What was not on the disk when the process died is lost, and nobody was left to say so.
            if not any(isinstance(line, Output) for line in recording.entries):
                return []
            lost = Lost(why="the process died")
            recording = msgspec.structs.replace(recording, entries=[*recording.entries, lost], numbers=())
        try:
            replayed = self._player.replay(recording, path.name)
        except ReplayError as error:
            return [Violation(7, f"{path.name} cannot be played: {error}")]
        self.played += 1
        if not replayed.differences:
            return []
        return [Violation(7, f"{path.name} plays differently:\n{render_difference(replayed)}")]


def _ends(line: Bytes | Told) -> bool:
    """Whether a line is the last that a reader gets."""
    if isinstance(line, Bytes):
        return line.end
    return any(output["type"] in ("Finish", "SendError", "Reject") for output in line.outputs)
