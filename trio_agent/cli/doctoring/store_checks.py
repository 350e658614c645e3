"""The store: there, ours, whole, and fit to be written. Beside a server that runs it is only read."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Final

import trio

from trio_agent.cli.database import find_database
from trio_agent.config.problems import ConfigError
from trio_agent.private_files import is_locked
from trio_agent.store.contract import StoreError
from trio_agent.store.failures import explain
from trio_agent.store.files import Gate, gate_path, instance_ids, instance_lock_path
from trio_agent.store.schema import check_ours, connect_onlooker, connect_writer, load_migrations

from .finding import Finding, ok, problem, skipped
from .premises import Premises

_STEPS: Final = 100_000
"""Instructions of SQLite's between two looks at the clock."""
_MENDED: Final = (3, 51, 3)


async def check_store(premises: Premises) -> list[Finding]:
    """The database that a server would open."""
    version = _check_version()
    try:
        path = _database(premises)
    except ConfigError as error:
        return [*(problem("store", each.message, each.remedy) for each in error.problems), version]
    if path is None:
        return [skipped("store", "it is not known where it is"), version]
    if not path.exists():
        return [_check_folder(path), version]
    findings, schema = await trio.to_thread.run_sync(_read, path, premises.limit, abandon_on_cancel=True)
    if schema is not None:
        findings.append(await _check_writing(premises, path))
    return [*findings, version]


def _database(premises: Premises) -> Path | None:
    draft = premises.draft
    if draft is not None and (draft.config is None or draft.lacks("store")):
        return None
    if premises.home is None and (draft is None or draft.config is None or draft.config.store.path is None):
        return None
    return find_database(None if draft is None else premises.config_path, premises.workspace)


def _check_folder(path: Path) -> Finding:
    there = next(each for each in path.parents if each.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return ok("store", f"{path} is not there yet; a server makes it")
    return problem("store", f"{path} cannot be made: {there} cannot be written to", "mend its rights")


def _read(path: Path, limit: float) -> tuple[list[Finding], int | None]:
    """What can be learnt from the file alone, and its schema where it may be tried to write."""
    try:
        with closing(connect_onlooker(path, limit)) as database:
            newest = len(load_migrations())
            schema = check_ours(database, newest)
            findings = [_check_schema(path, schema, newest), _check_pages(database, limit)]
            return findings, schema if schema == newest else None
    except StoreError as error:
        return [
            problem("store", f"{path}: {error}", "name another file in store.url, or move this one away")
        ], None
    except sqlite3.Error as error:
        remedy = "run this as the user whom the server runs as; see docs/store.md, When it fails"
        return [problem("store", f"{path} cannot be read: {explain(error)}", remedy)], None


def _check_schema(path: Path, schema: int, newest: int) -> Finding:
    sizes = [each.stat().st_size for each in (path, path.with_name(f"{path.name}-wal")) if each.exists()]
    found = f"{path}, schema {schema}, {sum(sizes) / (1 << 20):.1f} MiB"
    if schema < newest:
        return ok("store", f"{found}; a server of this version brings it to schema {newest}")
    return ok("store", found)


def _check_pages(database: sqlite3.Connection, limit: float) -> Finding:
    """SQLite's own check of all pages, for as long as there is time."""
    end = time.monotonic() + limit
    database.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
    try:
        (said,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_INTERRUPT:
            raise
        return skipped("store", f"it is too large to be read through in {limit:g} s")
    if said == "ok":
        return ok("store", "its pages are whole")
    remedy = "stop the server, move the file away with its -wal and -shm, and restore a backup"
    return problem("store", f"it is damaged: {str(said)[:200]}", remedy)


async def _check_writing(premises: Premises, path: Path) -> Finding:
    """Whether it could be written. Not tried while somebody has it open: they are not to be disturbed."""
    if premises.running is not None or _is_open(path):
        return ok("store", "a process has it open, so it was only read")
    began = trio.current_time()
    try:
        await trio.to_thread.run_sync(_begin_writing, path, premises.limit, abandon_on_cancel=True)
    except (StoreError, sqlite3.Error, OSError) as error:
        why = error if isinstance(error, StoreError) else explain(error)
        return problem(
            "store", f"it cannot be written: {why}", "mend that, or name another file in store.url"
        )
    return ok("store", "can be written", seconds=round(trio.current_time() - began, 3))


def _begin_writing(path: Path, limit: float) -> None:
    """Begin to write and change nothing, behind the gate that all writers pass."""
    gate = Gate(gate_path(path), limit)
    try:
        with gate.held(), closing(connect_writer(path, limit)) as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")
    finally:
        gate.close()


def _is_open(path: Path) -> bool:
    return any(is_locked(instance_lock_path(path, each)) for each in instance_ids(path))


def _check_version() -> Finding:
    """https://www.sqlite.org/wal.html#walresetbug: two connections that write together can lose pages."""
    found = f"SQLite {sqlite3.sqlite_version}"
    if sqlite3.sqlite_version_info >= _MENDED:
        return ok("sqlite", found)
    return ok(
        "sqlite",
        f"{found} can lose pages when two connections write (mended in 3.51.3). trio-agent writes with one "
        "at a time, so this does no harm unless another program writes to its database",
    )
