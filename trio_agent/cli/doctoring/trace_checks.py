"""Traces, where the environment asks for them: whether they can be sent, and to somebody."""

from __future__ import annotations

from trio_agent.config.problems import ConfigProblem
from trio_agent.observing.telemetry import ENDPOINTS, telemetry, wanted

from .finding import Finding, ok, problem, warning
from .premises import Premises
from .reach import place_of, why_unreachable


async def check_traces(premises: Premises) -> list[Finding]:
    """What `serve` would say of it, and whether the collector can be reached. Nothing is sent."""
    if not wanted(premises.env):
        return []
    problems: list[ConfigProblem] = []
    async with telemetry(premises.env, problems):
        pass
    if problems:
        return [problem("traces", f"{each.path}: {each.message}", each.remedy) for each in problems]
    name = next(name for name in ENDPOINTS if premises.env.get(name, "").strip())
    url = premises.env[name].strip()
    if why := await why_unreachable(url, premises.limit):
        found = f"the collector at {place_of(url)} cannot be reached: {why}"
        return [warning("traces", found, f"start it, or mend {name}: traces are lost until then")]
    return [ok("traces", f"go to {place_of(url)}, which can be reached")]
