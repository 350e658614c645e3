"""The proof that the simulator finds things: deliberate bugs, each found within a stated number of seeds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import trio
from simulation import __main__ as command
from simulation import (  # noqa: F401 - they enter their bugs into the list
    bugs_of_faces,
    bugs_of_keeping,
    bugs_of_money,
    bugs_of_recording,
    kernel,
)
from simulation.bugs_of_content import the_role_is_sent_twice
from simulation.bugs_of_ends import the_terminal_event_is_doubled
from simulation.chronicle import Violation
from simulation.generate import generate
from simulation.kernel import replaced
from simulation.mutation import BUGS, Bug
from simulation.replaying import Replaying
from simulation.run import Extension, Outcome, run_scenario
from simulation.scenario import Scenario
from simulation.shrink import shrink, size

from trio_agent.turn.timers import Timers


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_deliberate_bug_is_found(bug: Bug) -> None:
    """One of the bug's seeds has the complaint that it is named for, and has none without it.

    What the log complains of counts only where the bug is meant to bring it about: a bug that is badly made
    breaks the server in other ways, too.
    """
    for seed in bug.seeds:
        with bug.apply():
            violations = run_scenario(generate(seed), extensions=_extensions(bug)).violations
        if any(each.invariant == 0 for each in violations) and 0 not in bug.invariants:
            continue
        if any(shows(each, bug.invariants, bug.says) for each in violations):
            assert not run_scenario(generate(seed), extensions=_extensions(bug)).violations
            return
    pytest.fail(f"not found within {len(bug.seeds)} seeds")


def shows(violation: Violation, invariants: Iterable[int], words: Iterable[str]) -> bool:
    """Whether this is the complaint, and none of a run that has come to nothing."""
    return (
        violation.invariant in invariants
        and any(each in violation.message for each in words)
        and "the run itself" not in violation.message
    )


def _extensions(bug: Bug) -> list[Extension]:
    return [Replaying()] if 7 in bug.invariants else []


def test_the_bugs_are_spread_over_the_invariants() -> None:
    """Every invariant that can be checked in a run is broken by several of the bugs."""
    for invariant in range(1, 9):
        assert sum(invariant in bug.invariants for bug in BUGS) >= 2, invariant


def test_a_scenario_is_shrunk_to_what_matters() -> None:
    """A bug that every answer shows needs one client, one request, and no fault."""
    scenario = generate(95)  # one of the smaller ones that have all of it
    assert scenario.disk
    assert scenario.acts
    assert scenario.outages
    with the_terminal_event_is_doubled():
        small = shrink(scenario, lambda each: bool(run_scenario(each).violations))
        assert run_scenario(small).violations
    assert size(small) < size(scenario) / 10
    assert len(small.asks) == 1
    assert not small.disk
    assert not small.acts
    assert not small.outages


def test_shrinking_does_not_change_the_subject() -> None:
    """A smaller scenario must show the same complaint, and not another one of the same invariant."""
    found = Outcome(Scenario(seed=0, clients=()), [Violation(5, "turn_1: cost is 3")], "", "", 0, [], [])
    other = Violation(5, "turn_1: the figures of call a1-0 are in no row")
    assert found.violations[0].kind == Violation(5, "turn_27: cost is 12").kind != other.kind
    with the_role_is_sent_twice():
        outcome = run_scenario(generate(0))
        assert command.same_fault(outcome, 2)(generate(2))
        assert not command.same_fault(found, 2)(generate(2))


def test_a_run_that_goes_round_and_round_is_ended() -> None:
    """Neither a loop that the clock cannot end nor one that never yields hangs the simulator."""
    with replaced((kernel, "MOST_PASSES", 3000), (Timers, "run", _round_and_round)):
        (violation, *_) = run_scenario(generate(0)).violations
    assert violation.invariant == 0
    assert "goes round and round" in violation.message
    with replaced((kernel, "MOST_SECONDS", 0.2), (Timers, "set", _for_ever)):
        (violation, *_) = run_scenario(generate(0)).violations
    assert "goes round and round" in violation.message
    assert not run_scenario(generate(1)).violations


async def _round_and_round(timers: object, fire: object) -> None:
    while True:
        await trio.lowlevel.checkpoint()


def _for_ever(timers: object, timer: object, seconds: float) -> None:
    while True:
        pass


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


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seeds", "many"],
        ["--seeds", "5-3"],
        ["--seeds", "5-"],
        ["--jobs", "0"],
        ["--jobs", "-1"],
        ["--scenario", "nowhere.json"],
    ],
)
def test_the_command_says_what_is_wrong_with_its_arguments(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, and what to write instead."""
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    assert arguments[1] in capsys.readouterr().err
