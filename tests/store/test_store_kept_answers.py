"""Answers, their items, event logs and keys: what every store does with them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from store_samples import (
    EPOCH,
    Now,
    answer,
    call,
    entries,
    entry,
    full_turn,
    item,
    keep,
    key,
    log,
    park,
    span,
    turn,
)

from trio_agent.store.contract import Store
from trio_agent.store.kept import AnswerRow, Keeping, MissingAnswer

changed = msgspec.structs.replace
HOUR = 3600.0
STRANGE = ["a\0b", "a\0", '"', "'; --", "%", "ä😀", " a", "", "\ud800"]


async def chain(store: Store, *ids: str) -> list[AnswerRow]:
    """Answers of which each goes on from the one before."""
    rows = [
        answer(name, previous_id=before, created_at=EPOCH + number)
        for number, (before, name) in enumerate(zip((None, *ids), ids, strict=False))
    ]
    for row in rows:
        await keep(store, f"turn of {row.id}", answer=row)
    return rows


async def test_an_answer_comes_back_field_by_field(any_store: Store) -> None:
    """Nothing of an answer is lost, whether it was written when its turn began, parked or ended."""
    running = answer("a", status="queued", background=False)
    await any_store.open_turn(turn("t"), Keeping(answer=running))
    assert await any_store.get_answer("key_1", "a") == running
    parked = answer("a", previous_id="p", conversation_id="c", body=bytes(range(256)), messages=b"[]")
    await any_store.park_turn(turn("t"), [call("t")], park("t", "c"), [], Keeping(answer=parked))
    assert await any_store.get_answer("key_1", "a") == parked
    await keep(any_store, answer=answer("a", status="failed"))
    assert await any_store.get_answer("key_1", "a") == answer("a", status="failed")


async def test_what_is_kept_stands_or_falls_with_the_turn(any_store: Any) -> None:
    """A turn whose end is refused leaves nothing of what was to be kept with it."""
    kept = Keeping(
        answer=answer("a"), items=(item("i", "a"),), log=log("a"), entries=entries(0), conversation=entry("c")
    )
    with pytest.raises(ValueError, match="do not belong"):
        await any_store.close_turn(full_turn("t"), [call("other")], keeping=kept)
    assert await any_store.get_answer("key_1", "a") is None
    assert await any_store.find_log("key_1", "a") is None
    assert await any_store.find_items("key_1", ["i"]) == []


def test_what_has_no_place_cannot_be_kept() -> None:
    """Entries go with their log and items with their answer; anything else is the caller's bug."""
    with pytest.raises(ValueError, match="with the log"):
        Keeping(entries=entries(0))
    with pytest.raises(ValueError, match="name their answer"):
        Keeping(items=(item("i"),))


async def test_nobody_finds_what_is_another_keys(any_store: Store) -> None:
    """Answers, items and logs are there for their owner alone, and so is taking them away."""
    kept = Keeping(answer=answer("a"), items=(item("i", "a"),), log=log("a"))
    await any_store.close_turn(full_turn("t"), [], keeping=kept)
    for other in ("key_2", ""):
        assert await any_store.get_answer(other, "a") is None
        assert await any_store.find_log(other, "a") is None
        assert await any_store.find_items(other, ["i"]) == []
        assert await any_store.list_items(other, answer_id="a") == []
        assert await any_store.delete_answer(other, "a") is False
        with pytest.raises(MissingAnswer):
            await any_store.get_chain(other, "a")
    assert await any_store.get_answer("key_1", "a") == answer("a")


@pytest.mark.parametrize("strange", STRANGE)
async def test_a_strange_id_finds_no_other_answer(any_store: Store, strange: str) -> None:
    """Whatever a client sends as an id is compared whole, and is no reason to fail."""
    await keep(any_store, answer=answer("a"), items=(item("a", "a"),), log=log("a"), entries=entries(0))
    assert await any_store.get_answer("key_1", strange) is None
    assert await any_store.delete_answer("key_1", strange) is False
    assert await any_store.find_items("key_1", [strange]) == []
    assert await any_store.list_items("key_1", answer_id=strange) == []
    assert await any_store.list_items("key_1", conversation_id=strange) == []
    assert await any_store.list_items("key_1", answer_id="a", after=strange) == []
    assert await any_store.find_log("key_1", strange) is None
    assert await any_store.read_log(strange, 0) == []
    with pytest.raises(MissingAnswer) as caught:
        await any_store.get_chain("key_1", strange)
    assert caught.value.id == strange


async def test_parks_and_reasoning_bear_half_a_surrogate_pair(any_store: Store) -> None:
    """An id that no text can hold is in no row; asking for it together with others finds those."""
    await any_store.park_turn(turn("t"), [], park("t", "a"), [])
    assert [found.turn_id for found in await any_store.find_parks("key_1", ["\ud800", "a"])] == ["t"]


async def test_a_chain_comes_from_its_beginning(any_store: Store) -> None:
    """All that an answer goes on from, oldest first; only the answer itself brings its body."""
    rows = await chain(any_store, "a", "b", "c")
    bare = [changed(row, body=b"{}") for row in rows]
    assert await any_store.get_chain("key_1", "c") == [bare[0], bare[1], rows[2]]
    assert await any_store.get_chain("key_1", "a") == [rows[0]]


async def test_a_hole_in_a_chain_is_named(any_store: Store) -> None:
    """What was deleted, or never was, or belongs to somebody else, breaks the chain at its place."""
    await chain(any_store, "a", "b", "c")
    assert await any_store.delete_answer("key_1", "b") is True
    await keep(any_store, answer=answer("theirs", owner="key_2"))
    await keep(any_store, answer=answer("mine", previous_id="theirs"))
    for asked, missing in (("c", "b"), ("b", "b"), ("mine", "theirs")):
        with pytest.raises(MissingAnswer) as caught:
            await any_store.get_chain("key_1", asked)
        assert caught.value.id == missing


async def test_a_chain_may_be_long_but_not_endless(any_store: Store) -> None:
    """Ten thousand answers can be gone on from; one more is as if it were not there."""
    await chain(any_store, *(f"a{number}" for number in range(30)))
    assert len(await any_store.get_chain("key_1", "a29")) == 30
    await keep(any_store, answer=answer("round", previous_id="round"))
    with pytest.raises(MissingAnswer) as caught:
        await any_store.get_chain("key_1", "round")
    assert caught.value.id == "round"


async def test_deleting_an_answer_leaves_its_turn(any_store: Store) -> None:
    """Answer, items, log and key are gone, and the record of what was done and paid stays."""
    await any_store.claim_key(key("k", "a"))
    await keep(any_store, answer=answer("a"), items=(item("i", "a"),), log=log("a"), entries=entries(0, 1))
    assert await any_store.delete_answer("key_1", "a") is True
    assert await any_store.delete_answer("key_1", "a") is False
    assert await any_store.get_answer("key_1", "a") is None
    assert await any_store.find_log("key_1", "a") is None
    assert await any_store.read_log("a", 0) == []
    assert await any_store.find_items("key_1", ["i"]) == []
    assert await any_store.get_turn("t") == full_turn("t")
    assert await any_store.claim_key(key("k", "other")) == key("k", "other")


async def test_items_come_in_pages_both_ways(any_store: Store) -> None:
    """Pages follow one another without gap or overlap, inputs and outputs together or apart."""
    asked = [item(f"in{n}", "a", position=n, direction="input") for n in range(3)]
    said = [item(f"out{n}", "a", position=3 + n) for n in range(3)]
    await any_store.open_turn(turn("t"), Keeping(answer=answer("a"), items=tuple(asked)))
    await keep(any_store, answer=answer("a"), items=tuple(said))
    await keep(any_store, answer=answer("b"), items=(item("in1", "b"), item("more", "b")))

    async def pages(**asking: Any) -> list[str]:
        seen: list[str] = []
        while page := await any_store.list_items(
            "key_1", answer_id="a", limit=2, after=seen[-1] if seen else None, **asking
        ):
            assert len(page) <= 2
            seen += [each.id for each in page]
        return seen

    whole = ["in0", "in1", "in2", "out0", "out1", "out2"]
    assert await pages() == whole
    assert await pages(order="desc") == whole[::-1]
    assert await pages(direction="input") == whole[:3]
    assert await pages(direction="output", order="desc") == whole[:2:-1]
    assert await any_store.list_items("key_1", answer_id="a", after="more") == []
    assert await any_store.list_items("key_1", answer_id="a", limit=0) == []
    assert await any_store.list_items("key_1", answer_id="a", limit=100) == [*asked, *said]


async def test_items_are_of_one_answer_or_of_one_conversation(any_store: Store) -> None:
    """Asking for neither or for both is the caller's bug."""
    with pytest.raises(ValueError, match="one answer or of one conversation"):
        await any_store.list_items("key_1")
    with pytest.raises(ValueError, match="one answer or of one conversation"):
        await any_store.list_items("key_1", answer_id="a", conversation_id="c")


async def test_items_written_again_are_replaced(any_store: Store) -> None:
    """An item has one row in an answer, whose newest content counts."""
    await keep(any_store, answer=answer("a"), items=(item("i", "a"), item("j", "a", position=1)))
    newer = item("i", "a", item=b'{"status":"completed"}')
    await keep(any_store, answer=answer("a"), items=(newer,))
    assert await any_store.list_items("key_1", answer_id="a") == [newer, item("j", "a", position=1)]


async def test_items_are_found_by_id_in_the_order_asked(any_store: Store) -> None:
    """Each once; missing ones are left out, and of two with one id the newest is meant."""
    await keep(any_store, answer=answer("a"), items=(item("i", "a"), item("j", "a")))
    await keep(any_store, answer=answer("b"), items=(item("i", "b", item=b"{}"),))
    found = await any_store.find_items("key_1", ["j", "x", "i", "j"])
    assert found == [item("j", "a"), item("i", "b", item=b"{}")]
    await any_store.delete_answer("key_1", "b")
    assert await any_store.find_items("key_1", ["i"]) == [item("i", "a")]


async def test_a_log_is_read_from_any_number(any_store: Store) -> None:
    """Entries written as the turn goes and with its end come back once each, in order."""
    running = log("l", turn_id="t", ended_at=None)
    await any_store.open_turn(turn("t"), Keeping(log=running, entries=entries(0)))
    await any_store.append_log("l", entries(1, 2))
    await any_store.append_log("l", entries(2, 3))
    assert await any_store.find_log("key_1", "l") == running
    await keep(any_store, log=log("l"), entries=entries(2, 3, 4))
    assert await any_store.find_log("key_1", "l") == log("l")
    for start in range(6):
        assert await any_store.read_log("l", start) == list(entries(*range(start, 5)))
    assert await any_store.read_log("l", 1, limit=2) == list(entries(1, 2))


async def test_an_end_that_is_written_again_may_be_another_one(any_store: Store) -> None:
    """Of a first end, of which it was not known whether it took effect, nothing is left in the log."""
    await any_store.open_turn(turn("t"), Keeping(log=log("l", turn_id="t", ended_at=None)))
    await any_store.append_log("l", entries(0, 1))
    for end in (b"completed", b"failed"):
        await keep(any_store, log=log("l"), entries=(*entries(1), span(2, 1, end)))
    await any_store.append_log("l", [span(2, 1, b"late")])
    assert await any_store.read_log("l", 0) == [*entries(0, 1), span(2, 1, b"failed")]


async def test_batches_that_were_written_together_are_found_by_each_number(any_store: Store) -> None:
    """Whoever begins amid an entry is given it; behind the last one there is nothing."""
    spans = [span(0, 1), span(1, 4), span(5, 2)]
    await any_store.open_turn(turn("t"), Keeping(log=log("l", turn_id="t", ended_at=None)))
    await any_store.open_turn(turn("u"), Keeping(log=log("m", turn_id="u", ended_at=None)))
    await any_store.append_log("m", [span(0, 90)])
    for each in spans:
        await any_store.append_log("l", [each])
    for start, found in enumerate([spans, *[spans[1:]] * 4, *[spans[2:]] * 2, [], []]):
        assert await any_store.read_log("l", start) == found
        assert await any_store.read_log("l", start, limit=1) == found[:1]


async def test_what_begins_before_the_end_of_a_log_is_there_already(any_store: Store) -> None:
    """A write that comes late, after the end of the turn has taken its batches along, adds nothing twice."""
    await any_store.open_turn(turn("t"), Keeping(log=log("l", turn_id="t", ended_at=None)))
    await any_store.append_log("l", [span(0, 2)])
    await keep(any_store, log=log("l"), entries=(span(2, 5),))
    for late in (span(0, 9), span(1), span(2, 2), span(4, 3), span(6)):
        await any_store.append_log("l", [late])
    assert await any_store.read_log("l", 0) == [span(0, 2), span(2, 5)]


async def test_the_end_of_a_turn_takes_the_place_of_what_was_written_behind_it(any_store: Store) -> None:
    """However it was cut: of what the log had from there on, nothing is left."""
    await any_store.open_turn(turn("t"), Keeping(log=log("l", turn_id="t", ended_at=None)))
    await any_store.append_log("l", [span(0, 3), span(3, 2), span(5), span(6)])
    await keep(any_store, log=log("l"), entries=(span(3, 1), span(4, 2)))
    assert await any_store.read_log("l", 0) == [span(0, 3), span(3, 1), span(4, 2)]


async def test_a_log_that_is_gone_takes_nothing_more(any_store: Store) -> None:
    """Its turn may still be at it; nothing is written that nobody could find."""
    await any_store.open_turn(turn("t"), Keeping(answer=answer("l"), log=log("l", ended_at=None)))
    await any_store.delete_answer("key_1", "l")
    await any_store.append_log("l", entries(0))
    assert await any_store.read_log("l", 0) == []


async def test_a_key_is_held_by_the_first(any_store: Store) -> None:
    """Owner, scope and key together are one key; whoever comes later learns who has it."""
    first = key("k", "first")
    assert await any_store.claim_key(first) == first
    assert await any_store.claim_key(key("k", "second", fingerprint="another")) == first
    for other in (key("k2", "x"), key("k", "x", owner="key_2"), key("k", "x", scope="POST /v1/messages")):
        assert await any_store.claim_key(other) == other


async def test_a_key_is_freed_by_its_holder_only(any_store: Store) -> None:
    """Forgetting is by the holder's log: one that came too late frees nobody else's key."""
    first = key("k", "first")
    await any_store.claim_key(first)
    await any_store.forget_key(key("k", "second"))
    assert await any_store.claim_key(key("k", "second")) == first
    await any_store.forget_key(first)
    assert await any_store.claim_key(key("k", "second")) == key("k", "second")
    await keep(any_store, forget_key=first)
    assert await any_store.claim_key(key("k", "third")) == key("k", "second")
    await keep(any_store, forget_key=key("k", "second"))
    assert await any_store.claim_key(key("k", "third")) == key("k", "third")


async def test_a_key_is_good_for_a_day(any_store: Any, now: Now) -> None:
    """After 24 hours it can be taken anew, swept or not."""
    await any_store.claim_key(key("k", "first"))
    later = key("k", "second", created_at=EPOCH + 24 * HOUR)
    assert await any_store.claim_key(later) == key("k", "first")
    later = key("k", "second", created_at=EPOCH + 24 * HOUR + 1)
    assert await any_store.claim_key(later) == later
    await any_store.sweep(EPOCH + 48 * HOUR + 2)
    assert await any_store.claim_key(key("k", "third")) == key("k", "third")


async def test_a_refused_turn_can_take_its_answer_away(any_store: Store) -> None:
    """What was written as it began is forgotten with its end, in whatever order they are said."""
    opening = Keeping(
        answer=answer("a", status="queued"), items=(item("i", "a"),), log=log("a", ended_at=None)
    )
    await any_store.open_turn(turn("t"), opening)
    await keep(any_store, log=log("a"), entries=entries(0), forget_answer="a")
    assert await any_store.get_answer("key_1", "a") is None
    assert await any_store.find_items("key_1", ["i"]) == []
    assert await any_store.find_log("key_1", "a") is None
    assert await any_store.read_log("a", 0) == []


async def test_megabytes_come_back_whole(any_store: Store) -> None:
    """Images travel as data URLs; nothing is cut, and a page of small items is read past them."""
    large = bytes(range(256)) * 12_000
    await keep(
        any_store,
        answer=answer("a", body=large, messages=large),
        items=(item("i", "a", item=large), item("j", "a", position=1)),
        log=log("a", head=large),
    )
    assert await any_store.get_answer("key_1", "a") == answer("a", body=large, messages=large)
    assert await any_store.find_items("key_1", ["i"]) == [item("i", "a", item=large)]
    assert await any_store.list_items("key_1", answer_id="a", after="i") == [item("j", "a", position=1)]
