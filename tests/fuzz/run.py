"""Many cases at once against one server, with a client beside them that must always be served."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import trio
from fuzz.client import Reply, play
from fuzz.house import House, house
from fuzz.oracles import findings
from fuzz.steps import Case, Http

WORKERS = 16
PROBE_S = 0.05
PROBE_LIMIT_S = 5.0


@dataclass
class Report:
    """What came of a run. `wrong` has what is wrong, each with the cases that may have done it."""

    cases: int = 0
    replies: int = 0
    probes: int = 0
    slowest_probe: float = 0.0
    statuses: dict[int, int] = field(default_factory=dict)
    wrong: list[tuple[list[Case], str]] = field(default_factory=list)

    def note(self, replies: list[Reply]) -> None:
        self.cases += 1
        self.replies += len(replies)
        for reply in replies:
            self.statuses[reply.status] = self.statuses.get(reply.status, 0) + 1


async def run(
    cases: Iterator[Case], server: House, report: Report, goes_on: Callable[[Report], bool]
) -> None:
    """Play cases until there are none or `goes_on` says no."""
    recent: list[Case] = []

    async def work() -> None:
        while goes_on(report) and server.exited is None:
            case = next(cases, None)
            if case is None:
                return
            recent.append(case)
            del recent[:-WORKERS]
            played = await play(case, server.port)
            report.note(played.replies)
            report.wrong += [([case], finding) for finding in findings(played)]
            report.wrong += [(list(recent), alarm) for alarm in server.alarms()]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_probe, server, report)
        async with trio.open_nursery() as workers:
            for _ in range(WORKERS):
                workers.start_soon(work)
        nursery.cancel_scope.cancel()
    if server.exited is not None:
        report.wrong.append((recent, server.exited))


async def _probe(server: House, report: Report) -> None:
    """A client that does nothing wrong, over and over again."""
    case = Case("probe", (Http("GET", "/v1/models"),))
    while True:
        began = time.monotonic()
        with trio.move_on_after(PROBE_LIMIT_S) as waiting:
            played = await play(case, server.port)
            if server.exited is None and [reply.status for reply in played.replies] != [200]:
                report.wrong.append(([], f"another client was not served: {played.replies}"))
        took = time.monotonic() - began
        if waiting.cancelled_caught:
            report.wrong.append(([], f"another client was not served within {PROBE_LIMIT_S:g} s"))
        report.probes += 1
        report.slowest_probe = max(report.slowest_probe, took)
        await trio.sleep(PROBE_S)


def alone(case: Case, folder: Path, *, to_the_end: bool = True) -> list[str]:
    """What is wrong when this case is played by itself, on a server of its own.

    Args:
        to_the_end: whether what is left behind counts.
    """
    report = Report()
    with house(folder) as server:
        trio.run(run, iter([case]), server, report, lambda _: True)
        wrong = [finding for _, finding in report.wrong]
        if to_the_end and server.exited is None:
            wrong += [*server.settled(), *server.ended()]
    return wrong
