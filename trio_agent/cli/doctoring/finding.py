"""What a check has found: how it stands, and what to do."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import force_setattr

from trio_agent.config.key_forms import without_keys

Status: TypeAlias = Literal["ok", "warning", "problem", "skipped"]


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that was looked at.

    `found` says what is so, `remedy` what to do; neither holds a secret. `seconds` is how long it took, where
    that says something. `skipped` could not be looked at, for a reason that is a finding of its own.
    """

    check: str
    status: Status
    found: str
    remedy: str = ""
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("check", "found", "remedy"):
            force_setattr(self, name, without_keys(getattr(self, name)))


def ok(check: str, found: str, *, seconds: float | None = None) -> Finding:
    """All is well."""
    return Finding(check=check, status="ok", found=found, seconds=seconds)


def warning(check: str, found: str, remedy: str, *, seconds: float | None = None) -> Finding:
    """It works, but may not stay so."""
    return Finding(check=check, status="warning", found=found, remedy=remedy, seconds=seconds)


def problem(check: str, found: str, remedy: str, *, seconds: float | None = None) -> Finding:
    """It does not work, or must not stay so."""
    return Finding(check=check, status="problem", found=found, remedy=remedy, seconds=seconds)


def skipped(check: str, found: str) -> Finding:
    """It could not be looked at."""
    return Finding(check=check, status="skipped", found=found)
