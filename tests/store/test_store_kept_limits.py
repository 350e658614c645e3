"""How long what lies beside turns is kept, and how much of it: on a given clock, with small bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from store_samples import (
    EPOCH,
    Now,
    answer,
    conversation,
    entries,
    entry,
    full_turn,
    item,
    keep,
    key,
    log,
    node,
    turn,
)

from trio_agent.store.contract import Store
from trio_agent.store.kept import Keeping
from trio_agent.store.limits import Limits
from trio_agent.store.sqlite import open_store

HOUR = 3600.0
DAY = 24 * HOUR


async def answers_of(store: Store, *ids: str) -> list[str]:
    """Which of these are there, found without using them."""
    return [each.id for each in await store.find_items("key_1", ids)]


async def put_answers(store: Store, *ids: str, **changes: Any) -> None:
    for name in ids:
        await keep(store, f"t{name}", answer=answer(name, **changes), items=(item(name, name),))


async def test_answers_are_kept_since_their_last_use(limited: Any, now: Now) -> None:
    """Reading and going on count as use; what nobody used for so long goes with its items."""
    async with limited(responses=10 * DAY) as store:
        await put_answers(store, "unused", "read", "listed", "found")
        await put_answers(store, "before")
        await put_answers(store, "after", previous_id="before")
        now.at = EPOCH + 5 * DAY
        await store.get_answer("key_1", "read")
        await store.list_items("key_1", answer_id="listed")
        await store.find_items("key_1", ["found"])
        await store.get_chain("key_1", "after")
        await put_answers(store, "young")
        await store.sweep(EPOCH + 10 * DAY + 1)
        for name in ("read", "listed", "found", "before", "after", "young"):
            assert await store.get_answer("key_1", name) is not None
        assert await store.get_answer("key_1", "unused") is None
        assert await store.find_items("key_1", ["unused"]) == []
        assert await store.get_turn("tunused") == full_turn("tunused")
        await store.sweep(EPOCH + 15 * DAY + 1)
        assert await store.get_answer("key_1", "after") is None


async def test_conversations_and_sessions_are_kept_since_their_last_use(limited: Any, now: Now) -> None:
    """Whichever way they are used; each kind has a time of its own."""
    uses = {
        "got": lambda: store.get_conversation("key_1", "got"),
        "read": lambda: store.conversation_messages("key_1", "read"),
        "listed": lambda: store.list_items("key_1", conversation_id="listed"),
        "added": lambda: store.add_to_conversation(entry("added")),
        "written": lambda: keep(store, conversation=entry("written")),
        "changed": lambda: store.put_conversation(conversation("changed")),
        "found": lambda: store.find_items("key_1", ["found"]),
    }
    sessions = {
        "told": lambda: store.transcript("key_1", "told"),
        "sought": lambda: store.find_nodes("key_1", "sought", ["d"]),
        "listed too": lambda: store.list_nodes("key_1", "listed too"),
        "gone on": lambda: keep(store, node=node("second of gone on", session_id="gone on")),
    }
    async with limited(responses=10 * DAY, sessions=3 * DAY) as store:
        for name in ("unused", *uses):
            await store.put_conversation(conversation(name))
            await store.add_to_conversation(entry(name, b"[]", name))
        for name in ("unused", *sessions):
            await keep(store, node=node(name, session_id=name))
        now.at = EPOCH + 2 * DAY
        for use in (*uses.values(), *sessions.values()):
            await use()
        await store.sweep(EPOCH + 3 * DAY + 1)
        for name in sessions:
            assert await store.transcript("key_1", name) != []
        assert await store.transcript("key_1", "unused") == []
        await store.sweep(EPOCH + 10 * DAY + 1)
        there = [
            name for name in ("unused", *uses) if await store.get_conversation("key_1", name) is not None
        ]
        assert there == list(uses)
        await store.sweep(EPOCH + 12 * DAY + 1)
        for name in uses:
            assert await store.get_conversation("key_1", name) is None
            assert await store.conversation_messages("key_1", name) == []


async def test_a_use_is_noted_once_an_hour(limited: Any, now: Now) -> None:
    """Reading stays cheap: what was used within the hour is as old as it was."""
    async with limited(responses=10 * DAY) as store:
        await put_answers(store, "soon", "later")
        now.at = EPOCH + HOUR - 1
        await store.get_answer("key_1", "soon")
        now.at = EPOCH + HOUR
        await store.get_answer("key_1", "later")
        await store.sweep(EPOCH + 10 * DAY + 1)
        assert await store.get_answer("key_1", "soon") is None
        assert await store.get_answer("key_1", "later") is not None


async def test_logs_are_kept_since_their_end(limited: Any, now: Now) -> None:
    """A log goes before its answer does, and one that is still written never goes."""
    async with limited(events=DAY) as store:
        await store.open_turn(
            turn("t"), Keeping(log=log("running", turn_id="t", ended_at=None), entries=entries(0))
        )
        await keep(store, "t2", answer=answer("old"), log=log("old", ended_at=EPOCH), entries=entries(0))
        await keep(store, "t3", log=log("young", ended_at=EPOCH + 2), entries=entries(0))
        await store.claim_key(key("k", "old"))
        await store.sweep(EPOCH + DAY + 1)
        assert await store.find_log("key_1", "old") is None
        assert await store.read_log("old", 0) == []
        assert await store.claim_key(key("k", "new")) == key("k", "new")
        assert await store.get_answer("key_1", "old") is not None
        assert await store.read_log("young", 0) == list(entries(0))
        await store.sweep(EPOCH + 100 * DAY)
        assert await store.read_log("running", 0) == list(entries(0))


async def test_any_number_of_rows_is_swept(limited: Any) -> None:
    """More than one transaction's share of each kind, and nothing that is younger."""
    async with limited(responses=DAY, sessions=DAY, events=DAY) as store:
        for number in range(45):
            name = f"a{number}"
            await keep(
                store,
                f"t{number}",
                answer=answer(name),
                log=log(name, ended_at=EPOCH),
                node=node(name, session_id=name),
            )
            await store.put_conversation(conversation(name))
            await store.claim_key(key(name, "nothing"))
        await store.sweep(EPOCH + DAY + 1)
        for number in range(45):
            name = f"a{number}"
            assert await store.get_answer("key_1", name) is None
            assert await store.find_log("key_1", name) is None
            assert await store.get_conversation("key_1", name) is None
            assert await store.transcript("key_1", name) == []
            assert (await store.claim_key(key(name, "other"))).log_id == "other"


@pytest.mark.parametrize("status", ["queued", "in_progress"])
async def test_the_answers_unused_longest_go_first(limited: Any, now: Now, status: str) -> None:
    """Over the bound, by last use and then by age; one that is being written stays."""
    async with limited(max_responses=4) as store:
        running = answer("running", turn_id="t", status=status)
        await store.open_turn(turn("t"), Keeping(answer=running))
        for number, name in enumerate(("a", "b", "c"), start=1):
            now.at = EPOCH + number * DAY
            await put_answers(store, name)
        now.at = EPOCH + 4 * DAY
        await store.get_answer("key_1", "a")
        await put_answers(store, "d")
        assert await answers_of(store, "a", "b", "c", "d") == ["a", "c", "d"]
        await put_answers(store, "a", "c", "d")
        assert await answers_of(store, "a", "c", "d") == ["a", "c", "d"]
        await put_answers(store, "e", "f")
        assert await answers_of(store, "a", "c", "d", "e", "f") == ["d", "e", "f"]
        assert await store.get_answer("key_1", "running") == running
        assert await store.get_turn("tb") == full_turn("tb")


async def test_logs_have_the_same_bound(limited: Any, now: Now) -> None:
    """Turns that keep a log and no answer cannot fill the disk; one that is being written stays."""
    async with limited(max_responses=2) as store:
        await store.open_turn(turn("t"), Keeping(log=log("running", turn_id="t", ended_at=None)))
        for number, name in enumerate(("a", "b", "c")):
            await keep(store, f"t{name}", log=log(name, ended_at=EPOCH + number), entries=entries(0))
        assert [await store.find_log("key_1", name) is not None for name in ("running", "a", "b", "c")] == [
            True, False, False, True,
        ]  # fmt: skip
        assert await store.read_log("b", 0) == []


@pytest.mark.parametrize("what", ["more", "sweep"])
async def test_what_ends_while_there_are_too_many_goes_later(limited: Any, what: str) -> None:
    """Rows go with rows that come, and with the sweep: who waits for an answer can still read it."""
    async with limited(max_responses=2) as store:
        for name in ("a", "b", "c"):
            begun = {
                "answer": answer(name, turn_id=f"t{name}", status="in_progress"),
                "log": log(name, turn_id=f"t{name}", ended_at=None),
            }
            await store.open_turn(turn(f"t{name}"), Keeping(**begun))
        await keep(store, "tb", answer=answer("b", turn_id="tb"), log=log("b", turn_id="tb"))
        assert await store.get_answer("key_1", "b") is not None
        assert await store.find_log("key_1", "b") is not None
        if what == "more":
            await keep(store, "td", answer=answer("d"), log=log("d"))
        else:
            await store.sweep(EPOCH)
        left = [name for name in "abcd" if await store.get_answer("key_1", name)]
        assert left == ["a", "c"]
        assert left == [name for name in "abcd" if await store.find_log("key_1", name)]


async def test_an_answer_that_broke_off_was_used_until_then(limited: Any, now: Now) -> None:
    """It does not go first for having begun first: its end counts as that of any other answer does."""
    async with limited(max_responses=2) as store:
        await store.open_turn(turn("ta"), Keeping(answer=answer("a", turn_id="ta", status="in_progress")))
        now.at = EPOCH + HOUR
        await put_answers(store, "b")
        now.at = EPOCH + 2 * HOUR
        await store.close_late(full_turn("ta", outcome="failed"), [])
        await put_answers(store, "c")
        assert [name for name in "abc" if await store.get_answer("key_1", name)] == ["a", "c"]


async def test_narrower_bounds_are_kept_to_by_the_next_sweep(limited: Any) -> None:
    """Of each kind, though nothing has come since."""
    async with limited() as store:
        for name in "abc":
            await keep(store, f"t{name}", answer=answer(name), log=log(name))
            await store.put_conversation(conversation(name))
            await keep(store, f"s{name}", node=node(name, session_id=name))
        store.keep_to(Limits(max_responses=2, max_conversations=2, max_sessions=2))
        await keep(store, "sb", node=node("b", session_id="b"))
        assert [name for name in "abc" if await store.list_nodes("key_1", name)] == ["a", "b", "c"]
        await store.sweep(EPOCH)
        for read in (store.get_answer, store.find_log, store.get_conversation, store.list_nodes):
            assert [name for name in "abc" if await read("key_1", name)] == ["b", "c"]


async def test_the_conversations_unused_longest_go_first(limited: Any, now: Now) -> None:
    """Over the bound, by last use; one that an answer is written to stays."""
    async with limited(max_conversations=3) as store:
        for number, name in enumerate(("claimed", "a", "b")):
            now.at = EPOCH + number * DAY
            await store.put_conversation(conversation(name))
        await store.claim_conversation("key_1", "claimed", "w")
        now.at = EPOCH + 3 * DAY
        await store.add_to_conversation(entry("a", b"[]", "i"))
        await store.put_conversation(conversation("c"))
        there = [
            await store.get_conversation("key_1", name) is not None for name in ("claimed", "a", "b", "c")
        ]
        assert there == [True, True, False, True]


async def test_the_sessions_unused_longest_go_first(limited: Any, now: Now) -> None:
    """Over the bound, by last use, with all their nodes."""
    async with limited(max_sessions=2) as store:
        for number, name in enumerate(("a", "b", "a", "c")):
            now.at = EPOCH + number * DAY
            await keep(store, node=node(f"{name}{number}", session_id=name))
        there = [await store.list_nodes("key_1", name) != [] for name in "abc"]
        assert there == [True, False, True]


async def test_old_branches_of_a_session_go_before_its_newest(limited: Any) -> None:
    """Over the bound ends of other branches go, the oldest first, then the root of the only branch."""
    async with limited(max_session_turns=4) as store:

        async def grow(name: str, parent: str | None, at: int) -> None:
            await keep(store, node=node(name, parent, created_at=EPOCH + at))

        for at, (name, parent) in enumerate([("r", None), ("x", "r"), ("y", "x"), ("z", "r")]):
            await grow(name, parent, at)
        await grow("a", "r", 4)
        assert [each.id for each in await store.list_nodes("key_1", "s")] == ["a", "z", "x", "r"]
        await grow("b", "a", 5)
        await grow("c", "b", 6)
        assert [each.id for each in await store.list_nodes("key_1", "s")] == ["c", "b", "a", "r"]
        assert [each.id for each in await store.transcript("key_1", "s")] == ["r", "a", "b", "c"]
        await grow("d", "c", 7)
        assert [each.id for each in await store.transcript("key_1", "s")] == ["a", "b", "c", "d"]


async def test_a_bound_holds_within_a_hundredth_between_sweeps(limited: Any) -> None:
    """Counting costs, so it is done for every hundredth part that is added; a sweep is exact."""
    async with limited(max_responses=200) as store:
        most = 0
        ids = [f"a{number}" for number in range(260)]
        for name in ids:
            await put_answers(store, name)
            if name in ("a210", "a233", "a259"):
                most = max(most, len(await answers_of(store, *ids)))
        assert 200 <= most <= 204
        await store.sweep(EPOCH)
        assert await answers_of(store, *ids) == ids[-200:]


async def test_what_is_new_stays_though_the_clock_goes_back(limited: Any, now: Now) -> None:
    """What has just been made is no less used for an earlier time: what came before goes for it."""
    async with limited(max_responses=3, max_conversations=3, max_sessions=3) as store:

        async def put(number: int) -> None:
            name = f"{number}"
            await keep(store, f"t{name}", answer=answer(name), log=log(name, ended_at=now.at))
            await store.put_conversation(conversation(f"c{name}"))
            await keep(store, f"s{name}", node=node(f"n{name}", session_id=f"s{name}"))

        for number in range(5):
            now.at += HOUR
            await put(number)
        now.at -= 3 * HOUR
        for number in range(5, 7):
            await put(number)
            now.at += 1
        left = {name for name in "0123456" if await store.get_answer("key_1", name)}
        assert left == {"4", "5", "6"}
        assert left == {name for name in "0123456" if await store.find_log("key_1", name)}
        assert left == {name for name in "0123456" if await store.get_conversation("key_1", f"c{name}")}
        assert left == {name for name in "0123456" if await store.list_nodes("key_1", f"s{name}")}


async def test_a_new_server_knows_the_time_of_the_last_use(tmp_path: Path, now: Now) -> None:
    """The clock went back while there was none."""
    limits = Limits(max_conversations=3)
    for at, names in ((0.0, "abc"), (-DAY, "d")):
        now.at = EPOCH + at
        async with open_store(tmp_path / "store.db", instance_id="one", now=now, limits=limits) as store:
            for name in names:
                await store.put_conversation(conversation(name))
            left = [name for name in "abcd" if await store.get_conversation("key_1", name)]
    assert left == ["b", "c", "d"]
