"""What is kept is written whole or not at all, and not when the caller was told that it failed."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing
from store_blocks import Block
from store_samples import (
    EPOCH,
    Now,
    answer,
    call,
    conversation,
    entries,
    entry,
    full_turn,
    item,
    keep,
    key,
    log,
    node,
    park,
    turn,
)

from trio_agent.store.contract import StoreError
from trio_agent.store.kept import Keeping, Writer
from trio_agent.store.sqlite import SqliteStore, open_store

DAY = 24 * 3600.0
EVERYTHING = Keeping(
    answer=answer("a", turn_id="t"),
    items=(item("i", "a"),),
    log=log("a", turn_id="t"),
    entries=entries(0),
    conversation=entry("c", b"[1]", "i"),
    node=node("n"),
    forget_key=key("k", "a"),
    release=Writer("c", "a"),
)
TABLES = (
    "answers", "items", "logs", "log_entries", "conversation_entries", "conversations", "sessions", "nodes",
)  # fmt: skip


async def prepared(store: SqliteStore) -> None:
    for name in ("c", "free"):
        await store.put_conversation(conversation(name))
    await store.claim_conversation("key_1", "c", "a")
    await store.claim_key(key("k", "a"))


async def rows_of(store: SqliteStore) -> dict[str, int]:
    def count(db: sqlite3.Connection) -> dict[str, int]:
        return {table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}

    return await store._writer.submit(count)


NOTHING = dict.fromkeys(TABLES, 0) | {"conversations": 2}
ALL = dict.fromkeys(TABLES, 1) | {"items": 2, "conversations": 2}


async def is_untouched(store: SqliteStore) -> None:
    assert await rows_of(store) == NOTHING
    assert await store.get_conversation("key_1", "c") == conversation("c", writer="a")
    assert await store.claim_key(key("k", "other")) == key("k", "a")


async def is_done(store: SqliteStore) -> None:
    assert await rows_of(store) == ALL
    assert await store.get_conversation("key_1", "c") == conversation("c")
    assert await store.claim_key(key("k", "other")) == key("k", "other")


@pytest.mark.parametrize("ending", ["close", "park"])
@pytest.mark.parametrize(
    ("what", "table"),
    [
        *(("INSERT", table) for table in TABLES if table != "conversations"),
        ("UPDATE", "conversations"),
        ("DELETE", "idempotency_keys"),
    ],
)
async def test_an_end_is_kept_whole_or_not_at_all(
    sqlite_store: SqliteStore, what: str, table: str, ending: str
) -> None:
    """Whichever of the writes fails, the turn runs on as it was and nothing of its answer is there."""

    async def end() -> None:
        if ending == "close":
            await sqlite_store.close_turn(full_turn("t"), [call("t")], keeping=EVERYTHING)
        else:
            await sqlite_store.park_turn(turn("t"), [call("t")], park("t", "x"), [], EVERYTHING)

    await prepared(sqlite_store)
    await sqlite_store.open_turn(turn("t"))
    trigger = f"CREATE TRIGGER broken BEFORE {what} ON {table} BEGIN SELECT raise(ABORT, 'broken'); END"
    await sqlite_store._writer.submit(lambda db: db.execute(trigger))
    with pytest.raises(StoreError, match="broken"):
        await end()
    await sqlite_store._writer.submit(lambda db: db.execute("DROP TRIGGER broken"))
    row = await sqlite_store.get_turn("t")
    assert row is not None
    assert row.outcome == "running"
    assert await sqlite_store.list_calls("t") == []
    await is_untouched(sqlite_store)
    await end()
    await is_done(sqlite_store)


async def test_an_answer_that_does_not_fit_is_refused_whole(sqlite_store: SqliteStore) -> None:
    """A full disk leaves the turn running and nothing of the answer; with room again it is kept."""

    def limit(pages: int) -> Callable[[sqlite3.Connection], object]:
        def set_limit(db: sqlite3.Connection) -> None:
            (used,) = db.execute("PRAGMA page_count").fetchone()
            db.execute(f"PRAGMA max_page_count = {used + pages}")

        return set_limit

    await prepared(sqlite_store)
    await sqlite_store.open_turn(turn("t"))
    large = msgspec.structs.replace(EVERYTHING, answer=answer("a", turn_id="t", body=bytes(1_000_000)))
    await sqlite_store._writer.submit(limit(8))
    with pytest.raises(StoreError, match="disk of the store is full"):
        await sqlite_store.close_turn(full_turn("t"), [call("t")], keeping=large)
    with pytest.raises(StoreError, match="disk of the store is full"):
        await sqlite_store.put_conversation(conversation("c2", metadata=bytes(1_000_000)))
    await is_untouched(sqlite_store)
    await sqlite_store._writer.submit(limit(1000))
    await sqlite_store.close_turn(full_turn("t"), [call("t")], keeping=large)
    await is_done(sqlite_store)


async def test_reading_goes_on_when_nothing_can_be_written(sqlite_store: SqliteStore, now: Now) -> None:
    """That a use cannot be noted is no reason not to answer."""
    await keep(sqlite_store, answer=answer("a"))
    now.at = EPOCH + DAY
    trigger = "CREATE TRIGGER broken BEFORE UPDATE ON answers BEGIN SELECT raise(ABORT, 'broken'); END"
    await sqlite_store._writer.submit(lambda db: db.execute(trigger))
    assert await sqlite_store.get_answer("key_1", "a") == answer("a")
    assert await sqlite_store.get_chain("key_1", "a") == [answer("a")]


Step = Callable[[SqliteStore], Awaitable[object]]


@pytest.mark.parametrize(
    "step",
    [
        lambda store: store.open_turn(
            turn("t"),
            Keeping(
                answer=answer("a2", turn_id="t", status="queued"),
                items=(item("i", "a2"),),
                log=log("a2", turn_id="t", ended_at=None),
                entries=entries(0),
            ),
        ),
        lambda store: store.open_turn(
            turn("t"), Keeping(conversation=entry("c", b"[1]", "i"), node=node("n"))
        ),
        lambda store: store.put_conversation(conversation("c2")),
        lambda store: store.put_conversation(conversation("c", metadata=b"{}")),
        lambda store: store.claim_key(key("k2", "x")),
        lambda store: store.claim_conversation("key_1", "free", "x"),
        lambda store: store.add_to_conversation(entry("free", b"[1]", "i")),
    ],
    ids=["answer", "said", "conversation", "metadata", "key", "claim", "items"],
)
async def test_what_failed_for_its_caller_does_not_stand(
    database: Path, now: Now, mock_clock: trio.testing.MockClock, step: Step
) -> None:
    """A late commit is taken back: nobody waits for an answer, a key or a writer that nobody knows of."""
    first, second = Block(), Block()
    async with open_store(database, instance_id="one", now=now) as store:
        await prepared(store)

        async def failing(work: Callable[[], Awaitable[object]]) -> None:
            with pytest.raises(StoreError, match="not known"):
                await work()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(store._writer.submit, first)
            await first.inside()
            nursery.start_soon(failing, lambda: store._writer.submit(second))
            nursery.start_soon(failing, lambda: step(store))
            await trio.testing.wait_all_tasks_blocked()
            first.let_go()
            await second.inside()
            mock_clock.jump(10.5)
        second.let_go()
        await store.open_turn(turn("after"))
        await is_untouched(store)
        assert await store.get_conversation("key_1", "free") == conversation("free")
        assert await store.claim_key(key("k2", "y")) == key("k2", "y")
