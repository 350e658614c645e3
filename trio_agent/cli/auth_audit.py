"""What `trio-agent auth` leaves in the audit log: which key was set or removed, by whom; never the key."""

from __future__ import annotations

import os
import pwd
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import trio

from trio_agent.store.audit import AuditKind
from trio_agent.store.contract import StoreError
from trio_agent.store.schema import connect_onlooker, load_migrations
from trio_agent.store.sqlite import open_store
from trio_agent.world import RealWorld

_SECONDS = 10.0


def write_entry(database: Path, kind: AuditKind, details: Mapping[str, Any]) -> str:
    """Add an entry to the log in this database, which exists.

    Returns why the log lacks the entry, or an empty string. The credentials have changed by then, whatever
    becomes of the entry. A database of another version is left alone: only a server brings it up to date.

    Args:
        details: JSON values, without secrets.
    """
    try:
        if (found := _schema_of(database)) != (ours := len(load_migrations())):
            return f"the store's schema is {found}, and this program's is {ours}"
        trio.run(partial(_write, database, kind, details))
    except (StoreError, sqlite3.Error) as error:
        return str(error)
    except trio.TooSlowError:
        return f"the store did not answer within {_SECONDS:g} s"
    return ""


def _schema_of(database: Path) -> int:
    with closing(connect_onlooker(database, _SECONDS)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


async def _write(database: Path, kind: AuditKind, details: Mapping[str, Any]) -> None:
    world = RealWorld()
    with trio.fail_after(_SECONDS):
        async with open_store(database, instance_id=world.new_id("inst_"), now=world.now) as store:
            await store.audit(kind, details, actor=_actor())


def _actor() -> str:
    """The user who runs the command."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    return f"user:{name}"
