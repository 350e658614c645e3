"""The seventh invariant in simulated runs: what was recorded plays again to the same bytes."""

from __future__ import annotations

import pytest
from simulation.generate import generate
from simulation.replaying import Replaying
from simulation.run import run_scenario


@pytest.mark.parametrize("seed", [0, 2, 3])
def test_the_turns_of_a_run_play_again(seed: int) -> None:
    """Every turn of the run leaves a recording, and each plays without a difference."""
    replaying = Replaying()
    outcome = run_scenario(generate(seed), extensions=[replaying])
    assert not outcome.violations
    assert replaying.played >= outcome.turns * 0.9
