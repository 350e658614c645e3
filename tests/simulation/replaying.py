"""The seventh invariant: every turn of a run is recorded, and its recording plays to the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simulation.chronicle import Violation
from simulation.run import Outcome

from trio_agent.recording.codec import load
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
        del outcome
        return [violation for path in sorted(self._folder.rglob("*.jsonl")) for violation in self._play(path)]

    def _play(self, path: Path) -> Sequence[Violation]:
        recording = load(path)
        try:
            replayed = self._player.replay(recording, path.name)
        except ReplayError as error:
            return [Violation(7, f"{path.name} cannot be played: {error}")]
        self.played += 1
        if not replayed.differences:
            return []
        return [Violation(7, f"{path.name} plays differently:\n{render_difference(replayed)}")]
