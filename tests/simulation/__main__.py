"""`python -m simulation`: run seeds, report the first that contradicts an invariant, shrunk; or run a file.

PYTHONPATH=tests python -m simulation --seeds 0-499 --jobs 2
PYTHONPATH=tests python -m simulation --seeds 1443 --timeline
PYTHONPATH=tests python -m simulation --scenario shrunk.json
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from msgspec import Struct, ValidationError
from simulation.generate import generate
from simulation.replaying import Replaying
from simulation.run import Extension, Outcome, run_scenario
from simulation.scenario import Scenario, from_json, to_json
from simulation.shrink import shrink

STRIDE = 25
"""Seeds that a job runs before it reports."""
REPLAYED = 2
"""Each seed that this divides has its turns recorded and replayed."""

# Broken disks and killed processes are the point here; what the server's log says of them is no news.
logging.getLogger("trio_agent").addHandler(logging.NullHandler())


class Report(Struct):
    """What came of some seeds. Times are seconds of CPU."""

    seeds: int = 0
    turns: int = 0
    cpu: float = 0.0
    wrong: list[int] = []


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", default="0-499", help="one, or first-last (default %(default)s)")
    parser.add_argument("--jobs", type=_jobs, default=min(2, os.cpu_count() or 1), help="processes")
    parser.add_argument("--scenario", type=Path, help="run this file instead of seeds")
    parser.add_argument("--timeline", action="store_true", help="print what happened, also where all is well")
    parser.add_argument("--no-shrink", action="store_true", help="report a scenario as it is")
    parser.add_argument(
        "--replay",
        action="store_true",
        help="replay the turns of every seed (invariant 7), not of every second",
    )
    parser.add_argument("--keep-going", action="store_true", help="run all seeds, then report the first")
    given = parser.parse_args(arguments)
    every = 1 if given.replay else REPLAYED
    if given.scenario is not None:
        try:
            scenario = from_json(given.scenario.read_bytes())
        except (OSError, ValidationError) as error:
            parser.error(f"{given.scenario}: {error}")
        return show(scenario, every, timeline=True, shrinking=False)
    try:
        seeds = _seeds(given.seeds)
    except ValueError:
        parser.error(
            f"--seeds {given.seeds}: write a number, or two with a dash between, the smaller one first"
        )
    if len(seeds) == 1:
        return show(generate(seeds[0]), every, timeline=given.timeline, shrinking=not given.no_shrink)
    return soak(seeds, given.jobs, every, shrinking=not given.no_shrink, keep_going=given.keep_going)


def _seeds(text: str) -> range:
    """Raises ValueError where the text names no seed."""
    first, dash, last = text.partition("-")
    seeds = range(int(first), int(last if dash else first) + 1)
    if not seeds:
        raise ValueError(text)
    return seeds


def _jobs(text: str) -> int:
    jobs = int(text) if text.isascii() and text.isdigit() else 0
    if jobs < 1:
        raise argparse.ArgumentTypeError(f"{text}: write how many processes, at least 1")
    return jobs


def soak(seeds: range, jobs: int, every: int, *, shrinking: bool, keep_going: bool) -> int:
    """Run many seeds; 1 if one of them contradicts an invariant."""
    began = time.monotonic()
    total = Report()
    strides = [seeds[start : start + STRIDE] for start in range(0, len(seeds), STRIDE)]
    with ProcessPoolExecutor(jobs) as pool:
        for report in pool.map(partial(run_seeds, every=every), strides):
            total.seeds += report.seeds
            total.turns += report.turns
            total.cpu += report.cpu
            total.wrong += report.wrong
            if sys.stderr.isatty():
                print(f"\r{total.seeds}/{len(seeds)} seeds, {total.turns} turns", end="", file=sys.stderr)
            if total.wrong and not keep_going:
                pool.shutdown(cancel_futures=True)
                break
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(
        f"{total.seeds} seeds, {total.turns} turns in {time.monotonic() - began:.1f} s "
        f"({1000 * total.cpu / max(1, total.turns):.1f} ms of CPU a turn); "
        f"{len(total.wrong)} seeds contradict an invariant"
    )
    if total.wrong:
        print(f"seeds: {' '.join(map(str, total.wrong))}\n")
        return show(generate(total.wrong[0]), every, timeline=True, shrinking=shrinking)
    return 0


def run_seeds(seeds: Iterable[int], *, every: int = REPLAYED) -> Report:
    """Run some seeds in this process."""
    report = Report(wrong=[])
    began = time.process_time()
    for seed in seeds:
        outcome = run_scenario(generate(seed), extensions=_extensions(seed, every))
        report.seeds += 1
        report.turns += outcome.turns
        if outcome.violations:
            report.wrong.append(seed)
    report.cpu = time.process_time() - began
    return report


def _extensions(seed: int, every: int) -> list[Extension]:
    return [Replaying()] if seed % every == 0 else []


def show(scenario: Scenario, every: int, *, timeline: bool, shrinking: bool) -> int:
    """Run one scenario and say what came of it; one that contradicts an invariant is shrunk first."""
    outcome = run_scenario(scenario, extensions=_extensions(scenario.seed, every))
    if outcome.violations and shrinking:
        smaller = shrink(scenario, same_fault(outcome, every))
        outcome = run_scenario(smaller, extensions=_extensions(scenario.seed, every))
    if outcome.violations:
        print(f"seed {scenario.seed}\n\n{to_json(outcome.scenario)}\n")
    if outcome.violations or timeline:
        print(f"{outcome.timeline}\n")
    for violation in outcome.violations:
        print(violation)
    if not outcome.violations:
        print(f"seed {scenario.seed}: {outcome.turns} turns, no invariant contradicted")
    return 1 if outcome.violations else 0


def same_fault(outcome: Outcome, every: int) -> Callable[[Scenario], bool]:
    """Whether a scenario violates an invariant in the way in which the first one did."""
    kinds = {violation.kind for violation in outcome.violations}

    def violates(scenario: Scenario) -> bool:
        again = run_scenario(scenario, extensions=_extensions(scenario.seed, every))
        return any(each.kind in kinds for each in again.violations)

    return violates


if __name__ == "__main__":
    sys.exit(main())
