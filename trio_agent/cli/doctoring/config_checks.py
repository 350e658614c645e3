"""The configuration, and the address and key that it would be served with."""

from __future__ import annotations

import stat
from typing import Any

from trio_agent.cli.unbooted import unbooted_problems
from trio_agent.config.binding import check_binding, key_in_force
from trio_agent.config.mask import MASK, masked
from trio_agent.config.problems import ConfigProblem

from .finding import Finding, ok, problem, warning
from .premises import Premises


def check_config(premises: Premises) -> list[Finding]:
    """Found, right, and closed to others where it holds a secret."""
    draft, path = premises.draft, premises.config_path
    if draft is None or path is None:
        remedy = "pass --config PATH, or set TRIO_AGENT_CONFIG, to have the providers looked at"
        return [warning("config", "no configuration was named", remedy)]
    problems = [*draft.problems, *unbooted_problems(draft)]
    if problems:
        return [problem("config", _words(each), each.remedy) for each in problems]
    findings = [ok("config", f"{path} is right")]
    if draft.config is not None and not draft.config.providers:
        remedy = 'add one, such as "providers": {"replay": {}}'
        findings = [problem("config", f"{path} declares no provider", remedy)]
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return findings
    if mode & 0o044 and draft.config is not None and _holds_secret(masked(draft.config)):
        found = f"{path} holds secrets, and other users can read it (mode {mode:04o})"
        findings.append(warning("config", found, f"write them as ${{NAME}}, or run: chmod 600 {path}"))
    return findings


def check_address(premises: Premises) -> list[Finding]:
    """Whether the address may be served with this key."""
    config = premises.config
    key = key_in_force(premises.api_key, config.server.api_key if config else None)
    problems = check_binding(premises.bind, key)
    if problems:
        return [problem("key", each.message, each.remedy) for each in problems]
    if key is None:
        return [ok("key", f"none, and none is needed: {premises.bind} is reached from this machine alone")]
    return [ok("key", f"callers must bring one; fit for {premises.bind}")]


def _words(each: ConfigProblem) -> str:
    near = f"; did you mean {each.suggestion}?" if each.suggestion else ""
    return f"{each.path}: {each.message}{near}" if each.path else f"{each.message}{near}"


def _holds_secret(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_secret, value.values()))
    if isinstance(value, list):
        return any(map(_holds_secret, value))
    return isinstance(value, str) and MASK in value
