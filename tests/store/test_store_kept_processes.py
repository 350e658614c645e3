"""What is kept beside turns, over several processes, some of which die."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import trio
import trio.testing
from store_processes import ready
from store_samples import EPOCH, Now, answer, conversation, entries, entry, key, log, turn

from trio_agent.store.kept import Claim, Keeping
from trio_agent.store.sqlite import SqliteStore, open_store
from trio_agent.store.sqlite_logs import LOOK_AFTER_OTHERS_S

AT = EPOCH + 60


async def found(store: SqliteStore) -> dict[str, tuple[str | None, float | None, bool | None, int]]:
    """Each answer's status, the end of its log, whether that is broken, and how many entries it has."""
    names = ("running", "resumed", "parked", "done")
    return {name: await found_one(store, name) for name in names}


async def found_one(store: SqliteStore, name: str) -> tuple[str | None, float | None, bool | None, int]:
    row, kept = await store.get_answer("key_1", name), await store.find_log("key_1", name)
    return (
        None if row is None else row.status,
        None if kept is None else kept.ended_at,
        None if kept is None else kept.broken,
        len(await store.read_log(name, 0)),
    )


BEFORE = {
    "running": ("in_progress", None, False, 3),
    "resumed": ("in_progress", None, False, 1),
    "parked": ("completed", EPOCH + 1.5, False, 0),
    "done": ("completed", EPOCH + 1.5, False, 2),
}
AFTER = BEFORE | {"running": ("failed", AT, True, 3), "resumed": ("failed", AT, True, 1)}


async def is_free(store: SqliteStore, name: str) -> bool:
    taken = key(name, "a later one")
    return await store.claim_key(taken) == taken


async def test_what_a_killed_process_was_saying_has_failed(database: Path, now: Now) -> None:
    """After `kill -9` running answers have failed, logs are broken, keys and conversations free; no more."""
    async with ready("speaking", database) as child:
        await child.kill()
    now.at = AT
    async with open_store(database, instance_id="next", now=now) as store:
        assert await found(store) == AFTER
        assert len(await store.find_items("key_1", ["asked of running", "asked of resumed"])) == 2
        free = {name: await is_free(store, name) for name in ("running", "resumed", "nothing yet", "done")}
        assert free == {"running": True, "resumed": True, "nothing yet": True, "done": False}
        assert await store.add_to_conversation(entry("later")) is True
        claim = await store.claim_conversation("key_1", "c", "next")
        assert claim == Claim(conversation("c", writer="next"))
        (park,) = await store.find_parks("key_1", ["call-resumed"])
        assert park.turn_id == "resumed"


async def test_the_living_keep_what_they_write(sqlite_store: SqliteStore, database: Path, now: Now) -> None:
    """A process that sweeps or asks changes nothing of one that is alive, only of one that is dead."""
    mine = Keeping(
        answer=answer("mine", turn_id="t", status="in_progress"), log=log("mine", turn_id="t", ended_at=None)
    )
    await sqlite_store.open_turn(turn("t"), mine)
    async with ready("speaking", database) as child:
        now.at = AT
        await sqlite_store.sweep(AT)
        assert await found(sqlite_store) == BEFORE
        assert not await is_free(sqlite_store, "running")
        assert not await is_free(sqlite_store, "nothing yet")
        claim = await sqlite_store.claim_conversation("key_1", "c", "me")
        assert claim == Claim(conversation("c", writer="running"), "running", "running")
        assert await sqlite_store.add_to_conversation(entry("c")) is False
        await child.kill()
    await sqlite_store.sweep(AT)
    assert await found(sqlite_store) == AFTER
    row, kept = await sqlite_store.get_answer("key_1", "mine"), await sqlite_store.find_log("key_1", "mine")
    assert (row, kept) == (mine.answer, mine.log)


async def test_a_key_of_a_dead_process_is_free_at_once(sqlite_store: SqliteStore, database: Path) -> None:
    """Its client repeats the request to a living one and does not wait for the hourly sweep."""
    async with ready("speaking", database) as child:
        await child.kill()
    free = {name: await is_free(sqlite_store, name) for name in ("running", "nothing yet", "done")}
    assert free == {"running": True, "nothing yet": True, "done": False}


async def test_a_conversation_of_a_dead_process_is_free_at_once(
    sqlite_store: SqliteStore, database: Path
) -> None:
    """For the next answer, and for what a client adds."""
    async with ready("speaking", database) as child:
        await child.kill()
    claim = await sqlite_store.claim_conversation("key_1", "c", "me")
    assert claim == Claim(conversation("c", writer="me"))
    assert await sqlite_store.add_to_conversation(entry("later")) is True


async def test_a_reader_sees_that_the_writer_of_a_log_died(
    sqlite_store: SqliteStore, database: Path, now: Now, mock_clock: trio.testing.MockClock
) -> None:
    """Whoever follows another process's log learns of its end within seconds."""
    now.at = AT
    async with ready("speaking", database) as child:
        kept = await sqlite_store.find_log("key_1", "running")
        assert kept is not None
        assert kept.ended_at is None
        await child.kill()
    kept = await sqlite_store.find_log("key_1", "running")
    assert kept is not None
    assert kept.ended_at is None, "it was looked into only now"
    mock_clock.jump(LOOK_AFTER_OTHERS_S)
    kept = await sqlite_store.find_log("key_1", "running")
    assert kept is not None
    assert (kept.broken, kept.ended_at) == (True, AT)
    assert await sqlite_store.read_log("running", 0) == list(entries(0, 1, 2))


async def test_one_process_gets_the_key_and_one_the_conversation(
    sqlite_store: SqliteStore, database: Path
) -> None:
    """Claimants race over two processes; one of them all gets each."""
    await sqlite_store.put_conversation(conversation("c"))
    keys, conversations = [], []

    async def once(number: int) -> None:
        mine = key("k", f"parent {number}")
        keys.append(await sqlite_store.claim_key(mine) == mine)
        claim = await sqlite_store.claim_conversation("key_1", "c", mine.log_id)
        assert claim is not None
        conversations.append(claim.busy is None)

    async with ready("claim", database) as child:
        child.go()
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(once, number)
        theirs = [int(count) for count in (await child.line()).split()]
        assert [sum(keys) + theirs[0], sum(conversations) + theirs[1]] == [1, 1]
        child.go()


async def test_a_kill_in_the_middle_of_writing_tears_no_answer(database: Path, now: Now) -> None:
    """Whatever was being committed, an answer is whole, with all that is kept with it, or it has failed."""
    async with ready("answers", database) as child:
        await child.kill()
    async with open_store(database, instance_id="next", now=now) as store:
        rows = [row for row in await store.list_turns(limit=100_000) if row.outcome == "completed"]
        assert len(rows) > 10
        said = {
            name.decode()
            for lane in range(5)
            for name in await store.conversation_messages("key_1", f"c{lane}")
        }
        assert said == {row.id for row in rows}
        for row in rows[:200]:
            assert await found_one(store, row.id) == ("completed", EPOCH + 1.5, False, 3)
            assert len(await store.find_items("key_1", [row.id])) == 1
        for row in await store.list_turns(outcome="abandoned"):
            status, ended, broken, _ = await found_one(store, row.id)
            assert (status, ended, broken) == ("failed", EPOCH, True)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
