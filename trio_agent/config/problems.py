"""What can be wrong with a configuration, and how it is told: always everything, each with its remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import force_setattr

from .key_forms import without_keys

KeyPath: TypeAlias = tuple[str | int, ...]
"""Where in the configuration: object keys as strings, list positions as integers."""

ProblemCode: TypeAlias = Literal[
    "config_unreadable",
    "config_malformed_json",
    "config_duplicate_key",
    "config_unknown_key",
    "config_missing_key",
    "config_invalid_type",
    "config_invalid_value",
    "config_missing_variable",
    "config_invalid_provider_module",
    "config_insecure_binding",
    "config_weak_key",
    "config_home_unusable",
    "config_needs_restart",
    "reload_failed",
    "config_unknown_model",
    "home_in_use",
    "state_unusable",
    "address_unusable",
    "credentials_unusable",
    "provider_unusable",
    "store_unusable",
    "recording_unusable",
    "telemetry_unusable",
    "tool_unusable",
    "worker_unusable",
]
"""The codes of configuration problems. Codes are contract; messages may improve."""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")


class ConfigProblem(Struct, frozen=True):
    """One thing that is wrong, where, and what to do about it.

    `code` is a `ProblemCode`, or the code of a problem that only booting a provider could find.
    `path` is the place in the configuration, such as `providers.openai.confg` or `host_tools[0].name`,
    empty for the file as a whole. `expected` says what would have been right, `suggestion` is what was
    probably meant, `remedy` is what to do. Empty means that there is nothing to say. No field ever
    holds a secret: what looks like a vendor's key is left out, wherever it stood in the file.
    """

    code: str
    path: str
    message: str
    expected: str = ""
    suggestion: str = ""
    remedy: str = ""

    def __post_init__(self) -> None:
        for name in ("path", "message", "expected", "suggestion", "remedy"):
            force_setattr(self, name, without_keys(getattr(self, name)))


class ConfigError(Exception):
    """A configuration that cannot be used. `problems` holds all that was found, never none."""

    def __init__(self, problems: Sequence[ConfigProblem]) -> None:
        super().__init__(render_problems(problems))
        self.problems = list(problems)


def render_problems(problems: Iterable[ConfigProblem]) -> str:
    """What a terminal shows: one block a problem, in the order given, without a final newline."""
    return "\n\n".join(_block(problem) for problem in problems)


def render_path(path: KeyPath) -> str:
    """A path as people write it; a key with unusual characters stands quoted in brackets."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN_KEY.fullmatch(step):
            text += f".{step}" if text else step
        else:
            text += f"[{quote(step)}]"
    return text


def quote(text: str, limit: int = 60) -> str:
    """A string as JSON, fit for a terminal: escaped where it is not ASCII, cut where it is long."""
    return json.dumps(text if len(text) <= limit else text[:limit] + "…")


def _block(problem: ConfigProblem) -> str:
    lines = [f"{problem.path or 'configuration'}: {problem.message} [{problem.code}]"]
    if problem.expected:
        lines.append(f"  expected: {problem.expected}")
    if problem.suggestion:
        lines.append(f"  did you mean: {problem.suggestion}")
    if problem.remedy:
        lines.append(f"  fix: {problem.remedy}")
    return "\n".join(_printable(line) for line in lines)


def _printable(line: str) -> str:
    """Control characters could rewrite the operator's terminal; lone surrogates could not be written."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)
