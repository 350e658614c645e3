"""Conversations and the transcripts of sessions: what every store does with them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
import trio
from store_samples import (
    EPOCH,
    answer,
    call,
    conversation,
    entry,
    full_turn,
    item,
    keep,
    log,
    node,
    park,
    turn,
)

from trio_agent.store.contract import Store
from trio_agent.store.kept import Claim, Keeping, Writer

changed = msgspec.structs.replace
STRANGE = ["a\0b", "a\0", '"', "'; --", "%", "ä😀", " a", "", "\ud800"]


async def test_a_conversation_comes_back_field_by_field(any_store: Store) -> None:
    """It begins empty and free; writing it again changes the metadata and nothing else."""
    await any_store.put_conversation(conversation("c", writer="nobody"))
    assert await any_store.get_conversation("key_1", "c") == conversation("c")
    await any_store.claim_conversation("key_1", "c", "w")
    await any_store.put_conversation(conversation("c", metadata=b"{}", created_at=1.0))
    assert await any_store.get_conversation("key_1", "c") == conversation("c", metadata=b"{}", writer="w")
    assert await any_store.conversation_messages("key_1", "c") == []


async def test_nobody_finds_another_keys_conversation(any_store: Store) -> None:
    """Reading, adding, claiming, changing and deleting are its owner's."""
    await any_store.put_conversation(conversation("c"))
    assert await any_store.add_to_conversation(entry("c", b"[1]", "i"))
    for other in ("key_2", ""):
        await any_store.put_conversation(conversation("c", owner=other, metadata=b"mine now"))
        assert await any_store.get_conversation(other, "c") is None
        assert await any_store.conversation_messages(other, "c") == []
        assert await any_store.list_items(other, conversation_id="c") == []
        assert await any_store.add_to_conversation(entry("c", owner=other)) is False
        assert await any_store.claim_conversation(other, "c", "w") is None
        assert await any_store.delete_conversation(other, "c") is False
        await keep(any_store, conversation=entry("c", owner=other))
    assert await any_store.get_conversation("key_1", "c") == conversation("c")
    assert await any_store.conversation_messages("key_1", "c") == [b"[1]"]


@pytest.mark.parametrize("strange", STRANGE)
async def test_a_strange_id_finds_no_other_conversation(any_store: Store, strange: str) -> None:
    """Whatever a client sends as an id is compared whole, and is no reason to fail."""
    await any_store.put_conversation(conversation("a"))
    await keep(any_store, node=node("a", session_id="a", digest="a"))
    assert await any_store.get_conversation("key_1", strange) is None
    assert await any_store.conversation_messages("key_1", strange) == []
    assert await any_store.add_to_conversation(entry(strange)) is False
    assert await any_store.claim_conversation("key_1", strange, "w") is None
    assert await any_store.delete_conversation("key_1", strange) is False
    assert await any_store.find_nodes("key_1", "a", [strange]) == []
    assert await any_store.find_nodes("key_1", strange, ["a"]) == []
    assert await any_store.transcript("key_1", strange) == []
    assert await any_store.transcript("key_1", "a", strange) == []
    assert await any_store.list_nodes("key_1", strange) == []


async def test_messages_and_items_are_added_at_the_end(any_store: Store) -> None:
    """By clients and by turns, in the order in which it was done; items can be paged through."""
    await any_store.put_conversation(conversation("c"))
    await any_store.put_conversation(conversation("other"))
    assert await any_store.add_to_conversation(entry("c", b"[1]", "i1", "i2")) is True
    assert await any_store.add_to_conversation(entry("other", b"[9]", "i1")) is True
    said = (item("o1", "a"), item("o2", "a", position=1))
    await keep(
        any_store,
        answer=answer("a", conversation_id="c"),
        items=said,
        conversation=changed(entry("c", b"[2,3]"), items=said),
    )
    assert await any_store.add_to_conversation(entry("c", b"[4]", "i3")) is True
    assert await any_store.conversation_messages("key_1", "c") == [b"[1]", b"[2,3]", b"[4]"]
    listed = await any_store.list_items("key_1", conversation_id="c")
    assert [(each.id, each.answer_id, each.position) for each in listed] == [
        ("i1", None, 0), ("i2", None, 1), ("o1", "a", 2), ("o2", "a", 3), ("i3", None, 4),
    ]  # fmt: skip
    assert {each.conversation_id for each in listed} == {"c"}
    page = await any_store.list_items("key_1", conversation_id="c", after="o1", limit=2, order="desc")
    assert [each.id for each in page] == ["i2", "i1"]


async def test_an_end_that_is_written_twice_is_said_once(any_store: Store) -> None:
    """When it was not known whether a write took effect, the second one replaces what the first one added."""
    await any_store.put_conversation(conversation("c"))
    await any_store.open_turn(turn("t"), Keeping(answer=answer("a"), conversation=entry("c", b"[0]")))
    for messages in (b"[1]", b"[1,2]"):
        await keep(any_store, answer=answer("a"), conversation=entry("c", messages, "i"))
    await keep(any_store, answer=answer("b"), conversation=entry("c", b"[3]", "j"))
    assert await any_store.conversation_messages("key_1", "c") == [b"[0]", b"[1,2]", b"[3]"]
    assert [each.id for each in await any_store.list_items("key_1", conversation_id="c")] == ["i", "j"]


async def test_answer_and_conversation_have_their_own_items(any_store: Store) -> None:
    """Deleting either one leaves to the other what is in both."""
    said = (item("i", "a"),)
    for name in ("kept", "gone"):
        await any_store.put_conversation(conversation(name))
    await keep(any_store, answer=answer("a"), items=said, conversation=changed(entry("kept"), items=said))
    await keep(any_store, answer=answer("b"), conversation=changed(entry("gone"), items=said))
    assert await any_store.delete_conversation("key_1", "gone") is True
    assert await any_store.delete_conversation("key_1", "gone") is False
    assert await any_store.get_conversation("key_1", "gone") is None
    assert await any_store.conversation_messages("key_1", "gone") == []
    assert await any_store.list_items("key_1", conversation_id="gone") == []
    assert await any_store.get_answer("key_1", "b") == answer("b")
    assert await any_store.list_items("key_1", answer_id="a") == list(said)
    assert await any_store.delete_answer("key_1", "a") is True
    assert await any_store.list_items("key_1", answer_id="a") == []
    held = changed(said[0], conversation_id="kept")
    assert await any_store.list_items("key_1", conversation_id="kept") == [held]
    assert await any_store.find_items("key_1", ["i"]) == [held]


async def test_an_item_is_found_in_its_conversation(any_store: Store) -> None:
    """Where a newer answer or another conversation has an item with the same id, it is not meant."""
    for name in ("c", "other"):
        await any_store.put_conversation(conversation(name))
    await any_store.add_to_conversation(entry("c", b"[]", "i", "j"))
    await any_store.add_to_conversation(entry("other", b"[]", "i", "k"))
    await keep(any_store, answer=answer("a"), items=(item("i", "a"), item("k", "a")))
    found = await any_store.find_items("key_1", ["k", "j", "i"], conversation_id="c")
    assert [(each.id, each.conversation_id) for each in found] == [("j", "c"), ("i", "c")]
    for owner, name in (("key_2", "c"), ("key_1", "nothing"), ("key_1", "\ud800"), ("key_1", "")):
        assert await any_store.find_items(owner, ["i"], conversation_id=name) == []


async def test_what_is_said_to_a_deleted_conversation_goes_nowhere(any_store: Store) -> None:
    """The turn that was writing ends well all the same, and its answer is there."""
    await any_store.put_conversation(conversation("c"))
    await any_store.claim_conversation("key_1", "c", "a")
    assert await any_store.delete_conversation("key_1", "c") is True
    await keep(any_store, answer=answer("a"), conversation=entry("c", b"[1]", "i"), release=Writer("c", "a"))
    assert await any_store.get_answer("key_1", "a") == answer("a")
    assert await any_store.find_items("key_1", ["i"]) == []


async def test_a_conversation_has_one_writer(any_store: Store) -> None:
    """While one writes, others learn who, and a client's items must wait too; then the next one may."""
    await any_store.put_conversation(conversation("c"))
    mine = conversation("c", writer="a")
    assert await any_store.claim_conversation("key_1", "c", "a") == Claim(mine)
    assert await any_store.claim_conversation("key_1", "c", "a") == Claim(mine)
    assert await any_store.claim_conversation("key_1", "c", "b") == Claim(mine, "a")
    await any_store.open_turn(turn("t"), Keeping(answer=answer("a", turn_id="t", status="in_progress")))
    assert await any_store.claim_conversation("key_1", "c", "b") == Claim(mine, "a", "t")
    assert await any_store.add_to_conversation(entry("c")) is False
    await any_store.release_conversation("c", "b")
    assert await any_store.claim_conversation("key_1", "c", "b") == Claim(mine, "a", "t")
    await keep(any_store, answer=answer("a"), conversation=entry("c"), release=Writer("c", "a"))
    assert await any_store.claim_conversation("key_1", "c", "b") == Claim(conversation("c", writer="b"))
    await any_store.release_conversation("c", "b")
    assert await any_store.add_to_conversation(entry("c")) is True


async def test_the_writers_turn_is_known_from_its_log_too(any_store: Store) -> None:
    """A turn that is not stored as an answer may still have a log."""
    await any_store.put_conversation(conversation("c"))
    await any_store.claim_conversation("key_1", "c", "a")
    await any_store.open_turn(turn("t"), Keeping(log=log("a", turn_id="t", ended_at=None)))
    claim = await any_store.claim_conversation("key_1", "c", "b")
    assert claim is not None
    assert (claim.busy, claim.busy_turn) == ("a", "t")


@pytest.mark.parametrize("status", ["completed", "incomplete", "failed", "cancelled"])
async def test_an_answer_that_has_ended_writes_no_more(any_store: Store, status: str) -> None:
    """A writer that could not free the conversation, say for a full disk, does not hold it for ever."""
    await any_store.put_conversation(conversation("c"))
    await any_store.claim_conversation("key_1", "c", "a")
    await keep(any_store, answer=answer("a", status=status))
    assert await any_store.add_to_conversation(entry("c")) is True
    assert await any_store.claim_conversation("key_1", "c", "b") == Claim(conversation("c", writer="b"))


async def test_a_parked_turn_frees_its_conversation(any_store: Store) -> None:
    """The wait for the caller's tools is no writing: their results come with another answer."""
    await any_store.put_conversation(conversation("c"))
    await any_store.claim_conversation("key_1", "c", "a")
    kept = Keeping(answer=answer("a"), conversation=entry("c", b"[1]"), release=Writer("c", "a"))
    await any_store.park_turn(turn("t"), [call("t")], park("t", "x"), [], kept)
    assert await any_store.conversation_messages("key_1", "c") == [b"[1]"]
    assert await any_store.claim_conversation("key_1", "c", "b") == Claim(conversation("c", writer="b"))


async def test_one_of_twenty_racing_claimants_wins(open_any: Any) -> None:
    """However many requests come at once, over two stores on one database, one writes."""
    won: Counter[str] = Counter()

    async def claim(store: Store, writer: str) -> None:
        found = await store.claim_conversation("key_1", "c", writer)
        assert found is not None
        won[found.busy or writer] += 1

    async with open_any("one") as one, open_any("two") as two:
        await one.put_conversation(conversation("c"))
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(claim, one, f"one {number}")
                nursery.start_soon(claim, two, f"two {number}")
        assert list(won.values()) == [20]


# --- transcripts ----------------------------------------------------------------------------------


async def tree(store: Store) -> None:
    """A root with two branches, of which the first one goes on last; beside it another session."""
    for number, (name, parent) in enumerate([("r", None), ("a", "r"), ("b", "r"), ("c", "a")]):
        await keep(store, node=node(name, parent, created_at=EPOCH + number, length=number))
    await keep(store, node=node("x", session_id="other", digest="digest of a", created_at=EPOCH + 9))
    await keep(store, node=node("y", owner="key_2", digest="digest of a", created_at=EPOCH + 9))


async def test_a_transcript_is_the_path_to_a_node(any_store: Store) -> None:
    """From the root to the newest node, or to the one asked for, messages included."""
    await tree(any_store)
    newest = await any_store.transcript("key_1", "s")
    assert newest == [
        node("r", length=0),
        node("a", "r", length=1, created_at=EPOCH + 1),
        node("c", "a", length=3, created_at=EPOCH + 3),
    ]
    assert [each.id for each in await any_store.transcript("key_1", "s", "b")] == ["r", "b"]
    assert [each.id for each in await any_store.transcript("key_2", "s")] == ["y"]
    assert await any_store.transcript("key_1", "s", "x") == []
    assert await any_store.transcript("key_1", "nothing") == []


async def test_all_nodes_of_a_session_are_listed(any_store: Store) -> None:
    """The newest first, without their messages."""
    await tree(any_store)
    nodes = await any_store.list_nodes("key_1", "s")
    assert [(each.id, each.parent_id) for each in nodes] == [("c", "a"), ("b", "r"), ("a", "r"), ("r", None)]
    assert {each.messages for each in nodes} == {b"[]"}
    assert await any_store.list_nodes("key_1", "nothing") == []


async def test_nodes_are_found_by_digest(any_store: Store) -> None:
    """In their own session only, the newest first, of one moment the last that came."""
    await tree(any_store)
    await keep(any_store, node=node("d", "b", digest="digest of a", created_at=EPOCH + 1))
    found = await any_store.find_nodes("key_1", "s", ["digest of a", "digest of c", "unknown", "digest of a"])
    assert [(each.id, each.messages) for each in found] == [("c", b"[]"), ("d", b"[]"), ("a", b"[]")]
    assert await any_store.find_nodes("key_1", "s", []) == []


async def test_a_node_written_again_is_replaced(any_store: Store) -> None:
    """A turn's end that is written twice is one node."""
    for messages in (b"[1]", b"[2]"):
        await any_store.close_turn(full_turn("t"), [], keeping=Keeping(node=node("n", messages=messages)))
    assert await any_store.transcript("key_1", "s") == [node("n", messages=b"[2]")]
