"""What is asked of each coding agent: to write a file, also where the upstream fails in between.

The model behind the server is a script, so the file, the agent's last words and the server's own rows are
known beforehand.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from support.serving import Served, serving

from interop.agents import AGENTS, Agent, Place, Start
from interop.cases import Case, Findings, Group
from interop.installing import Cache
from interop.programs import Finished, run_client

Calls: TypeAlias = list[list[dict[str, Any]]]

LIMIT_S = 90.0
ENOUGH = 3
"""Turns after which an agent that never gives up is ended."""
GREETING = "Hello, wörld\n"
CLOSING = "The greeting is written."
NO_REASON = "This model takes no greetings."


@dataclass(frozen=True)
class Plan:
    """A model's script, and what must come of it: `outcomes` are its turns, with their reasons."""

    name: str
    calls: Calls
    writes: bool
    outcomes: list[tuple[str, str]]
    says: str
    repeated: bool = False
    endless: bool = False


def plans(agent: Agent, path: Path) -> dict[str, Plan]:
    """What one agent is put through, by the name of the model that does it."""
    told = [{"reasoning": ["A file ", "it is."]}, {"text": ["I will ", "write it."]}]
    call = {"tool_call": agent.write(path, GREETING)}
    closing = [{"text": ["The greeting ", "is written."]}]
    done = ("completed", "stop")
    unavailable = {"fail": {"kind": "unavailable", "status": 503, "times": 1}}
    cut = {"fail": {"kind": "truncated", "times": 1}}
    broke = ("failed", "truncated")
    broken_off: Calls = [[told[-1], cut, call], closing]
    after_cut = Plan("the stream breaks once", broken_off, True, [broke, done], CLOSING)
    if not agent.repeats_cut:
        after_cut = Plan("the stream breaks", broken_off, False, [broke], "truncated")
    failed = ("failed", "upstream_error")
    named = {
        "write": Plan("writes a file", [[*told, call], closing], True, [done], CLOSING),
        "wait": Plan(
            "the upstream fails once", [[unavailable, *told, call], closing], True, [failed, done], CLOSING
        ),
        "cut": after_cut,
        "after": Plan(
            "the upstream fails once after the result",
            [[*told, call], [unavailable, *closing]],
            True,
            [done],
            CLOSING,
        ),
        "reject": Plan(
            "the model refuses",
            [[{"fail": {"kind": "rejected", "status": 400, "message": NO_REASON}}]],
            False,
            [("failed", "upstream_rejected")],
            NO_REASON,
        ),
        "broken": Plan(
            "the upstream stays broken" + ("" if agent.gives_up else f", asked {ENOUGH} times"),
            [[{"fail": {"kind": "unavailable", "status": 503}}]],
            False,
            [failed],
            "502" if agent.gives_up else "",
            repeated=True,
            endless=not agent.gives_up,
        ),
    }
    known = {
        name: Plan(
            f"writes a file as {name}",
            [[{"tool_call": write(path, GREETING)}], closing],
            True,
            [done],
            CLOSING,
        )
        for name, write in agent.known.items()
    }
    return {f"{agent.name}-{agent.face}-{name}": plan for name, plan in named.items()} | known


def coding_agent(*agents: Agent) -> Group:
    """A group for an agent, over each face that it can speak to."""

    def group(cache: Cache) -> Generator[Case]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for agent in agents:
                start = agent.start(agent.install(cache))
                yield from _cases(agent, start, folder / agent.face)

    return group


def _cases(agent: Agent, start: Start, folder: Path) -> Iterator[Case]:
    work = folder / "work"
    work.mkdir(parents=True)
    path = work / "greeting.txt"
    planned = plans(agent, path)
    scripts = {model: {"calls": plan.calls} for model, plan in planned.items()}
    config = {"providers": {"replay": {"config": {"max_retries": 0, "scripts": scripts}}}}
    with serving(folder / "server", config, "--log-level", "error") as served:
        place = Place(folder / "home", work, served.url)
        for model, plan in planned.items():
            run = partial(_run, agent, start, place, served, model, plan)
            yield Case(f"{agent.face} face, {plan.name}", run)


def _run(
    agent: Agent, start: Start, place: Place, served: Served, model: str, plan: Plan, findings: Findings
) -> None:
    path = place.work / "greeting.txt"
    path.unlink(missing_ok=True)
    launch = start(place, model)

    def enough() -> bool:
        return plan.endless and len(turns(served, model)) >= ENOUGH

    ended = run_client(launch.command, place.work, launch.env, LIMIT_S, enough)
    if plan.endless:
        findings.expect("its end", ended.code, None)
    else:
        findings.expect(f"its success (exit code {ended.code})", ended.code == 0, plan.writes)
    findings.expect(
        "the file", path.read_text() if path.exists() else None, GREETING if plan.writes else None
    )
    findings.expect_in("its output", plan.says, _readable(ended))
    findings.expect_in("its log", agent.shows, ended.errors)
    rows = turns(served, model)
    outcomes = [(row["outcome"], row["reason"]) for row in rows]
    if plan.writes:
        findings.expect("how its turns ended", outcomes, plan.outcomes)
    else:
        findings.expect("how its turns ended", set(outcomes), set(plan.outcomes))
    findings.expect("the face of its turns", {row["face"] for row in rows}, {agent.face})
    if plan.writes and rows:
        _look_at(rows[-1], findings)
    elif plan.repeated:
        findings.expect_true("that it asked again", len(rows) > 1)


def _look_at(row: dict[str, Any], findings: Findings) -> None:
    """The turn that wrote the file: it waited for the agent's tool, went on, and was counted."""
    states = [state["state"] for state in json.loads(row["states"])]
    waited = [state for state in states if state in ("host_tool_wait", "resumed")]
    findings.expect("how its turn waited", waited[:2], ["host_tool_wait", "resumed"])
    usage = json.loads(row["usage"])
    findings.expect_true("usage", min(usage["input_tokens"], usage["output_tokens"]) > 0)
    findings.expect_true("a session", row["session_id"])


def turns(served: Served, model: str) -> list[dict[str, Any]]:
    """The server's rows of the turns with this model, oldest first."""
    with closing(sqlite3.connect(f"file:{served.home}/store.sqlite3?mode=ro", uri=True)) as store:
        store.row_factory = sqlite3.Row
        found = store.execute("SELECT * FROM turns WHERE model = ? ORDER BY created_at, id", (model,))
        return [dict(row) for row in found]


def _readable(ended: Finished) -> str:
    """All that the agent printed, JSON within its strings, too."""
    return (ended.output + ended.errors).replace('\\"', '"')


CODING_AGENTS: dict[str, Group] = {
    name: coding_agent(*(agent for agent in AGENTS if agent.name == name))
    for name in dict.fromkeys(agent.name for agent in AGENTS)
}
