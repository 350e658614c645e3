"""The proof that the simulator finds things: deliberate bugs, each found within a stated number of seeds."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulation import __main__ as command
from simulation.bugs_of_content import the_role_is_sent_twice
from simulation.bugs_of_ends import the_terminal_event_is_doubled
from simulation.generate import generate
from simulation.mutation import BUGS, Bug
from simulation.run import run_scenario
from simulation.scenario import Scenario
from simulation.shrink import shrink, size


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_deliberate_bug_is_found(bug: Bug) -> None:
    """One of the bug's seeds contradicts an invariant that it breaks, and does not without it."""
    for seed in bug.seeds:
        with bug.apply():
            outcome = run_scenario(generate(seed))
        if any(violation.invariant in bug.invariants for violation in outcome.violations):
            assert not run_scenario(generate(seed)).violations
            return
    pytest.fail(f"not found within {len(bug.seeds)} seeds")


def test_the_bugs_are_spread_over_the_invariants() -> None:
    """Every invariant that can be checked in a run is broken by several of the bugs."""
    for invariant in range(1, 7):
        assert sum(invariant in bug.invariants for bug in BUGS) >= 2, invariant


def test_a_scenario_is_shrunk_to_what_matters() -> None:
    """A bug that every answer shows needs one client, one request, and no fault."""
    scenario = generate(0)
    with the_terminal_event_is_doubled():
        small = shrink(scenario, lambda each: bool(run_scenario(each).violations))
        assert run_scenario(small).violations
    assert size(small) < size(scenario) / 10
    assert len(small.asks) == 1
    assert not small.disk
    assert not small.acts
    assert not small.outages


def test_shrinking_ends() -> None:
    """However the scenario is, it is run a bounded number of times."""
    runs = 0

    def stubborn(scenario: Scenario) -> bool:
        nonlocal runs
        runs += 1
        return len(scenario.clients) > 100

    scenario = generate(0)
    assert shrink(scenario, stubborn, most_runs=50) == scenario
    assert runs == 50


def test_the_command_reports_a_seed_that_can_be_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report holds the seed, the scenario as a file's content, the timeline, and what was violated."""
    with the_role_is_sent_twice():
        assert command.main(["--seeds", "0", "--no-shrink"]) == 1
        report = capsys.readouterr().out
        assert report.startswith("seed 0\n")
        assert "invariant 4: " in report
        assert "the role came twice" in report
        found = tmp_path / "found.json"
        found.write_text(report[report.index("{") : report.index("\n}\n") + 3])
        assert command.main(["--scenario", str(found)]) == 1
    assert "the role came twice" in capsys.readouterr().out
    assert command.main(["--scenario", str(found)]) == 0


def test_the_command_runs_many_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    """A soak says how many turns it ran and what they cost."""
    assert command.main(["--seeds", "0-4", "--jobs", "1"]) == 0
    assert capsys.readouterr().out.startswith("5 seeds, ")


@pytest.mark.parametrize("arguments", [["--seeds", "many"], ["--scenario", "nowhere.json"]])
def test_the_command_says_what_is_wrong_with_its_arguments(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, and what to write instead."""
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    assert arguments[1] in capsys.readouterr().err
