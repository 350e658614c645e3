"""One thing that is tried, what was expected of it, and what differs."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TypeAlias

from interop.installing import Cache


@dataclass
class Findings:
    """What a case has looked at so far. `differences` is empty when all was as expected."""

    checks: int = 0
    differences: list[str] = field(default_factory=list)

    def expect(self, what: str, found: object, wanted: object) -> None:
        self.checks += 1
        if found != wanted:
            self.differences.append(f"{what}: {shown(found)} instead of {shown(wanted)}")

    def expect_in(self, what: str, part: str, whole: str) -> None:
        self.checks += 1
        if part not in whole:
            self.differences.append(f"{what}: {shown(part)} is not in {shown(whole)}")

    def expect_true(self, what: str, found: object) -> None:
        self.expect(what, bool(found), True)


@dataclass(frozen=True)
class Case:
    """`name` ends a summary line; `run` looks, and raises only where nothing more can be looked at."""

    name: str
    run: Callable[[Findings], None]


Group: TypeAlias = Callable[[Cache], Generator[Case]]
"""Cases that share what they need: it runs while the generator is open."""


def shown(value: object, limit: int = 1500) -> str:
    """A value in a line of the report, cut in the middle where it is long."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit // 2]} … {text[-limit // 2 :]}"


def run_case(group: str, case: Case) -> bool:
    """Run one case and print its line, then what differs. True if nothing does."""
    findings = Findings()
    began = time.monotonic()
    try:
        case.run(findings)
    except Exception as error:  # noqa: BLE001  a client may raise anything, and the next case is to run
        findings.differences.append(f"{type(error).__name__}: {shown(str(error))}")
    took = time.monotonic() - began
    fine = not findings.differences
    checks = f"{findings.checks} check{'' if findings.checks == 1 else 's'}"
    print(f"{'ok  ' if fine else 'FAIL'}  {group}: {case.name} ({checks}, {took:.1f} s)", flush=True)
    for line in findings.differences:
        print(f"      {line}", flush=True)
    return fine
