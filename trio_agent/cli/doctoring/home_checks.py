"""The home and its files: whose they are, who may read them, and whether the disk has room."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from trio_agent.providers.credential_source import source_of
from trio_agent.providers.credentials import FILE_NAME, Credentials, CredentialsError

from .finding import Finding, ok, problem, skipped, warning
from .premises import Premises

ROOM_NEEDED: Final = 100 << 20
"""Bytes of disk below which a server will soon fail."""
ROOM_WANTED: Final = 1 << 30
_OTHERS: Final = 0o077
_FILES_MOST: Final = 2000


def check_home(premises: Premises) -> list[Finding]:
    """The folder's owner and mode, and those of what is in it."""
    home = premises.home
    if home is None:
        return [skipped("home", "it is not known where it is")]
    try:
        status = home.stat()
    except FileNotFoundError:
        there = next(each for each in home.parents if each.exists())
        if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
            return [ok("home", f"{home} is not there yet; a server makes it, for its user alone")]
        remedy = "set TRIO_AGENT_HOME to a folder that you can write to"
        return [problem("home", f"{home} cannot be made: {there} cannot be written to", remedy)]
    except OSError as error:
        return [problem("home", f"{home} cannot be used: {error.strerror}", "mend its rights")]
    if not stat.S_ISDIR(status.st_mode):
        return [problem("home", f"{home} is not a folder", "remove it, or set TRIO_AGENT_HOME")]
    findings: list[Finding] = []
    if os.geteuid() not in (0, status.st_uid):
        remedy = "run this as that user, or set TRIO_AGENT_HOME to a folder of your own"
        findings.append(problem("home", f"{home} belongs to another user", remedy))
    mode = stat.S_IMODE(status.st_mode)
    if mode & _OTHERS:
        remedy = f"run: chmod 700 {home}"
        findings.append(problem("home", f"{home} is open to others (mode {mode:04o})", remedy))
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        findings.append(problem("home", f"{home} cannot be written to", "mend its rights, or its disk"))
    findings += _open_files(home)
    return findings or [ok("home", f"{home} is closed to others, and so is what is in it")]


def check_room(premises: Premises) -> list[Finding]:
    """Free space where the home is, and where the store is."""
    folders = [] if premises.home is None else [premises.home]
    if premises.config is not None and premises.config.store.path is not None:
        folders.append(premises.config.store.path.parent)
    findings: dict[int, Finding] = {}
    for folder in folders:
        there = next(each for each in (folder, *folder.parents) if each.exists())
        free = shutil.disk_usage(there).free
        found = f"{free / (1 << 30):.1f} GiB free at {there}"
        finding = ok("disk", found)
        if free < ROOM_NEEDED:
            finding = problem("disk", found, "free some space: turns are refused when the store is full")
        elif free < ROOM_WANTED:
            finding = warning("disk", found, "free some space, or let the store keep less (store.retention)")
        findings[there.stat().st_dev] = finding
    return list(findings.values())


def check_credentials(premises: Premises) -> list[Finding]:
    """Whether each provider has a key, and where from."""
    credentials, findings = credentials_of(premises)
    config = premises.config
    if config is None:
        return findings or [skipped("credentials", "without a configuration no provider is known")]
    for name, each in config.providers.items():
        source = source_of(name, each.module, each.config, credentials)
        check = f"credentials: {name}"
        if source.lacking:
            remedy = f"set {source.variables[0]}, or run: trio-agent auth set {source.variables[0]}"
            findings.append(problem(check, "there is no key", remedy))
        elif source.source == "unknown":
            findings.append(ok(check, "the module does not ship with trio-agent, and knows itself"))
        elif source.source == "none":
            findings.append(ok(check, "none, and none is required"))
        else:
            findings.append(ok(check, f"from {_PLACES[source.source]} ({source.name})"))
    return findings


def credentials_of(premises: Premises) -> tuple[Credentials, list[Finding]]:
    """What providers may find; of a file that cannot be used, the reason."""
    if premises.home is None:
        return Credentials(premises.env), []
    try:
        return Credentials.open(premises.env, premises.home), []
    except CredentialsError as error:
        return Credentials(premises.env), [problem("credentials", error.message, error.remedy)]


_PLACES: Final = {"environment": "the environment", "file": FILE_NAME, "config": "the configuration"}


def _open_files(home: Path) -> Iterator[Finding]:
    """Files that others could read, were the home open to them."""
    for folder, _, names in islice(os.walk(home), _FILES_MOST):
        for name in names[:_FILES_MOST]:
            path = Path(folder) / name
            try:
                status = path.lstat()
            except OSError:
                continue
            mode = stat.S_IMODE(status.st_mode)
            if stat.S_ISREG(status.st_mode) and mode & _OTHERS and name != FILE_NAME:
                yield warning("home", f"{path} has mode {mode:04o}", f"run: chmod 600 {path}")
