"""`python -m fuzz`: send a server what no client should, for a while; report what it does not take well.

PYTHONPATH=tests python -m fuzz --seconds 40
PYTHONPATH=tests python -m fuzz --seed 7 --number 1234
PYTHONPATH=tests python -m fuzz --case build/fuzz/7-1234.json
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import trio
from fuzz.generate import case_of
from fuzz.house import house
from fuzz.run import Report, alone, run
from fuzz.shrink import shrunk
from fuzz.steps import Case, from_json, to_json

ENOUGH_WRONG = 5
END_CHECKS_S = 6.0
"""What the start and the end take of the time that is given."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, help="follow this one; by default a new one")
    parser.add_argument(
        "--seconds", type=float, default=40.0, help="how long, all in all (default %(default)g)"
    )
    parser.add_argument("--number", type=int, help="play this case of the seed by itself")
    parser.add_argument("--case", type=Path, help="play this file by itself")
    parser.add_argument(
        "--found", type=Path, default=Path("build/fuzz"), help="where reproducers are written"
    )
    given = parser.parse_args(arguments)
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        fresh = partial(_fresh, Path(folder), count())
        if given.case is not None or given.number is not None:
            case = (
                case_of(seed, given.number or 0) if given.case is None else from_json(given.case.read_bytes())
            )
            return _told(case, alone(case, fresh()))
        print(f"fuzz: seed {seed}; again with FUZZ_SEED={seed}", flush=True)
        report = _run(seed, given.seconds, fresh())
        told = ", ".join(f"{status}: {number}" for status, number in sorted(report.statuses.items()))
        print(f"{report.cases} cases, {report.replies} answers ({told})")
        print(f"{report.probes} probes between them, the slowest took {report.slowest_probe:.3f} s")
        narrowed: set[str] = set()
        for cases, finding in report.wrong[:ENOUGH_WRONG]:
            print(f"\nWRONG: {finding}", flush=True)
            names = "".join(case.name for case in cases)
            if names not in narrowed:
                narrowed.add(names)
                _narrow(cases, given.found, fresh)
        return 1 if report.wrong else 0


def _fresh(folder: Path, numbers: count[int]) -> Path:
    return folder / str(next(numbers))


def _run(seed: int, seconds: float, folder: Path) -> Report:
    end = time.monotonic() + max(1.0, seconds - END_CHECKS_S)
    report = Report()
    with house(folder) as server:
        cases = (case_of(seed, number) for number in count())

        def go_on(so_far: Report) -> bool:
            return time.monotonic() < end and len(so_far.wrong) < ENOUGH_WRONG

        trio.run(run, cases, server, report, go_on)
        if server.exited is None:
            report.wrong += [([], finding) for finding in (*server.settled(), *server.ended())]
    return report


def _narrow(cases: list[Case], found: Path, fresh: Callable[[], Path]) -> None:
    """Find out which of the cases does it by itself, make it small, and keep it."""

    def quick(case: Case) -> bool:
        return bool(alone(case, fresh(), to_the_end=False))

    guilty = next((case for case in reversed(cases) if quick(case)), None)
    if guilty is None:
        print(f"  by itself it does not happen; cases at that time: {[case.name for case in cases]}")
        return
    small = shrunk(guilty, quick)
    found.mkdir(parents=True, exist_ok=True)
    file = found / f"{guilty.name.replace('/', '-')}.json"
    file.write_bytes(to_json(small))
    print(f"  case {guilty.name}, made smaller: python -m fuzz --case {file}")


def _told(case: Case, wrong: list[str]) -> int:
    print(to_json(case).decode())
    for finding in wrong:
        print(f"WRONG: {finding}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
