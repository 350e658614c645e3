"""The audit log: added to by everybody, changed by nobody."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from store_samples import EPOCH, Now

from trio_agent.store.audit import AUDIT_KINDS, AuditEntry
from trio_agent.store.contract import Store, StoreError
from trio_agent.store.schema import load_migrations, migrate
from trio_agent.store.sqlite import SqliteStore, open_store
from trio_agent.store.writer import Writer

DETAILS: dict[str, Any] = {"providers": ["lab", "ä"], "nested": {"a": [1, None, 2.5, True]}}


async def test_an_entry_comes_back_as_it_was_written(any_store: Store, now: Now) -> None:
    """With the time of the store's clock, who did it, and every detail."""
    await any_store.audit("credential.set", DETAILS, actor="somebody")
    (entry,) = await any_store.list_audit()
    instance = entry.instance
    assert instance
    assert entry == AuditEntry(
        number=1, at=EPOCH, instance=instance, kind="credential.set", actor="somebody", details=DETAILS
    )


async def test_entries_come_newest_first_and_in_pages(any_store: Store, now: Now) -> None:
    """By number, not by time: a clock that goes back changes nothing. Pages are stable while entries come."""
    for index in range(5):
        now.at = EPOCH - index
        await any_store.audit("server.started", {"index": index})
    first = await any_store.list_audit(limit=2)
    await any_store.audit("server.stopped", {})
    second = await any_store.list_audit(limit=2, after=first[-1].number)
    last = await any_store.list_audit(limit=2, after=second[-1].number)
    assert [[entry.details["index"] for entry in page] for page in (first, second, last)] == [
        [4, 3], [2, 1], [0],
    ]  # fmt: skip
    assert await any_store.list_audit(limit=0) == []
    assert await any_store.list_audit(after=1) == []


async def test_one_kind_can_be_looked_for(any_store: Store) -> None:
    """Every kind that there is can be written, and found again by itself."""
    for kind in AUDIT_KINDS:
        await any_store.audit(kind, {"its": kind})
    for kind in AUDIT_KINDS:
        assert [entry.details for entry in await any_store.list_audit(kind=kind)] == [{"its": kind}]


async def test_what_json_cannot_say_is_refused(any_store: Store) -> None:
    """Nothing is written then."""
    with pytest.raises((StoreError, TypeError)):
        await any_store.audit("config.loaded", {"what": object()})
    assert await any_store.list_audit() == []


async def test_nothing_is_swept(any_store: Store, now: Now) -> None:
    """The log is kept for ever."""
    await any_store.audit("server.started", {})
    now.at += 100 * 365 * 24 * 3600.0
    await any_store.sweep(now.at)
    assert len(await any_store.list_audit()) == 1


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE audit SET actor = 'nobody'",
        "DELETE FROM audit",
        "INSERT OR REPLACE INTO audit VALUES (1, 0, 'i', 'server.started', 'nobody', '{}')",
        "INSERT INTO audit VALUES (1, 0, 'i', 'server.started', 'nobody', '{}')"
        " ON CONFLICT (number) DO UPDATE SET actor = 'nobody'",
    ],
)
async def test_no_statement_changes_it(sqlite_store: SqliteStore, sql: str) -> None:
    """The schema refuses, whoever asks, and the entry is as it was."""
    await sqlite_store.audit("server.started", {})
    before = await sqlite_store.list_audit()
    writer: Writer = sqlite_store._writer
    with pytest.raises(StoreError, match="only added to"):
        await writer.submit(lambda db: db.execute(sql))
    assert await sqlite_store.list_audit() == before


async def test_the_log_goes_on_after_a_restart(database: Path, now: Now) -> None:
    """Each opening of the store has a name of its own in it; numbers go on."""
    for name in ("one", "two"):
        async with open_store(database, instance_id=name, now=now) as store:
            await store.audit("server.started", {})
            found = await store.list_audit()
    assert [(entry.number, entry.instance) for entry in found] == [(2, "two"), (1, "one")]


def test_pages_of_the_log_read_no_more_than_they_show(tmp_path: Path) -> None:
    """Both ways of reading it go along an index, without sorting."""
    with closing(sqlite3.connect(tmp_path / "plain.db")) as db:
        db.isolation_level = None
        migrate(db, load_migrations())
        for where, index in (("number < 9", "PRIMARY KEY"), ("number < 9 AND kind = 'x'", "audit_by_kind")):
            plan = db.execute(
                f"EXPLAIN QUERY PLAN SELECT * FROM audit WHERE {where} ORDER BY number DESC LIMIT 5"
            ).fetchall()
            assert index in plan[0][3]
            assert len(plan) == 1
