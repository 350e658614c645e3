"""The fixed part of the simulation: some seeds, all findings, and that a run repeats itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from simulation.bugs_found import FINDINGS
from simulation.generate import ENDINGS, FACES, KEEPS, MANNERS, generate
from simulation.replaying import Replaying
from simulation.run import Extension, Outcome, run_scenario
from simulation.scenario import Scenario, from_json, to_json

SEEDS = range(75)
"""About 1,500 turns. `make simulate` runs many more."""
STRIDE = 25
FOLDER = Path(__file__).parent / "findings"


@pytest.mark.parametrize("first", list(SEEDS[::STRIDE]))
def test_no_seed_contradicts_an_invariant(first: int) -> None:
    """Whatever clients, upstreams, tools, disks and signals do, the invariants hold; every turn replays."""
    turns = 0
    for seed in range(first, first + STRIDE):
        outcome = run_scenario(generate(seed), extensions=[Replaying()])
        assert not outcome.violations, (
            f"python -m simulation --replay --seeds {seed}: {outcome.violations[0]}"
        )
        turns += outcome.turns
    assert turns > 12 * STRIDE


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.json")))
def test_what_was_found_stays_mended(name: str) -> None:
    """Each bug that was found has its scenario: it passes now, and shows the bug if that comes back."""
    scenario = from_json((FOLDER / f"{name}.json").read_bytes())
    assert not run_scenario(scenario).violations
    found = FINDINGS[name]
    with found.bug():
        violations = run_scenario(scenario).violations
    assert any(each.invariant == found.invariant and found.says in each.message for each in violations)
    assert all(each.invariant for each in violations)  # 0 would be a bug that is badly made


@pytest.mark.parametrize("seed", [3, 12, 37, 63])
def test_a_run_repeats_itself(seed: int) -> None:
    """The same scenario gives the same bytes at the same times, in the same order of events."""
    first, second = run_scenario(generate(seed)), run_scenario(generate(seed))
    assert first.timeline == second.timeline
    assert first.fingerprint == second.fingerprint


def test_a_run_repeats_itself_in_another_process() -> None:
    """Neither the addresses of objects nor the hashes of strings have a say."""
    program = (
        "from simulation.run import run_scenario; from simulation.generate import generate;"
        "print([run_scenario(generate(seed)).fingerprint for seed in (12, 63)])"
    )
    prints = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": hashes},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hashes in ("1", "2")
    ]
    assert prints[0] == prints[1]


def test_another_seed_is_another_order() -> None:
    """The seed alone changes the order in which tasks run, and so what happens first."""
    scenario = generate(3)
    other = from_json(to_json(scenario).replace('"seed": 3', '"seed": 4'))
    assert run_scenario(scenario).fingerprint != run_scenario(other).fingerprint


def test_a_scenario_is_data() -> None:
    """A scenario survives the way through a file."""
    for seed in range(20):
        assert from_json(to_json(generate(seed))) == generate(seed)


def test_the_author_leaves_nothing_out() -> None:
    """Within a few hundred seeds there is every kind of step, ending, fault and behaviour."""
    scenarios = [generate(seed) for seed in range(400)]
    asks = [ask for scenario in scenarios for ask in scenario.asks]
    replies = [reply for ask in asks for reply in ask.replies]
    steps = {step.kind for reply in replies for step in reply.steps}
    assert steps == {
        "text", "reasoning", "refusal", "host_call", "server_call", "sealed", "wait", "comment",
    }  # fmt: skip
    assert {reply.ending for reply in replies} == {"finish", *ENDINGS}
    assert {ask.reading for ask in asks} == {"at once", "slowly", "never"}
    assert {ask.leave.how for ask in asks if ask.leave} == {"close", "half_close"}
    assert {ask.results for ask in asks} == {"all", "some", "edited"}
    assert {act.kind for scenario in scenarios for act in scenario.acts} == {"crash", "shutdown", "kill"}
    assert {reload.bad for scenario in scenarios for reload in scenario.reloads} == {True, False}
    assert len({fault.kind for scenario in scenarios for fault in scenario.disk}) == 8
    assert {step.manner for reply in replies for step in reply.steps} == set(MANNERS)
    outages = [outage for scenario in scenarios for outage in scenario.outages]
    assert {(outage.silent, outage.deaf) for outage in outages} == {
        (False, False),
        (True, False),
        (False, True),
    }
    assert any(reply.dropped for reply in replies)
    settings = [scenario.settings for scenario in scenarios]
    assert any(each.write > each.turn for each in settings)
    assert any(each.connections < 100 for each in settings)
    clients = [client for scenario in scenarios for client in scenario.clients]
    assert {client.face for client in clients} == set(FACES)
    assert {client.keeps for client in clients} == set(KEEPS)
    assert {ask.apart > 0 for ask in asks if ask.key} == {True, False}
    assert any(client.embedded for scenario in scenarios for client in scenario.clients)


def test_an_extension_sees_the_run(tmp_path: Path) -> None:
    """What goes along with a run is asked for options at boot, and has the last word."""

    class Witness:
        asked = 0

        def agent_options(self, home: Path) -> dict[str, object]:
            assert home.is_dir()
            self.asked += 1
            return {}

        def after(self, outcome: Outcome) -> list[object]:
            return [*outcome.violations, f"{outcome.turns} turns"]

    witness = Witness()
    extensions: list[Extension] = [witness]  # type: ignore[list-item]
    outcome = run_scenario(Scenario(seed=0, clients=generate(0).clients[:1]), extensions=extensions)
    assert witness.asked == 1
    assert outcome.violations == [f"{outcome.turns} turns"]
