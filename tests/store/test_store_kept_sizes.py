"""A history is given whole, or not at all where it is larger than its reader may take in."""

from __future__ import annotations

import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from store_samples import answer, conversation, entry, item, keep, node

from trio_agent.store.contract import Store
from trio_agent.store.kept import HistoryTooLarge, MissingAnswer, Order

Read = Callable[[Store, int | None], Awaitable[list[Any]]]

# A euro sign is three bytes: it is bytes that count.
SAID = (b'["' + "€".encode() * 2 + b'"]', b'["b"]', b'["cc"]')
SIZE = 10 + 5 + 6

READS: dict[str, Read] = {
    "chain": lambda store, most: store.get_chain("key_1", "2", most_bytes=most),
    "conversation": lambda store, most: store.conversation_messages("key_1", "c", most_bytes=most),
    "newest branch": lambda store, most: store.transcript("key_1", "s", most_bytes=most),
    "named branch": lambda store, most: store.transcript("key_1", "s", "n2", most_bytes=most),
}


async def fill(store: Store, said: tuple[bytes, ...] = SAID) -> None:
    """One history in each of the ways, and beside each some that is no part of it."""
    await store.put_conversation(conversation("c"))
    await store.put_conversation(conversation("other"))
    await store.add_to_conversation(entry("other", b"[9]"))
    for number, messages in enumerate(said):
        name, before = str(number), str(number - 1) if number else None
        await keep(
            store,
            f"t{name}",
            answer=answer(name, previous_id=before, messages=messages),
            conversation=entry("c", messages),
            node=node(f"n{name}", before and f"n{before}", messages=messages, created_at=float(number)),
        )
    await keep(store, "aside", answer=answer("aside", previous_id="0"), node=node("x", "n0", created_at=0.5))


@pytest.mark.parametrize("way", READS)
async def test_a_history_up_to_the_bound_is_given(any_store: Store, way: str) -> None:
    """With no bound, and with one that it just reaches; one byte less gives its size instead."""
    await fill(any_store)
    read = READS[way]
    whole = await read(any_store, None)
    assert tuple(each if isinstance(each, bytes) else each.messages for each in whole) == SAID
    assert await read(any_store, SIZE) == whole
    with pytest.raises(HistoryTooLarge) as caught:
        await read(any_store, SIZE - 1)
    assert (caught.value.size, caught.value.most) == (SIZE, SIZE - 1)
    assert await read(any_store, None) == whole  # the connection is as it was


async def test_items_up_to_the_bound_are_found(any_store: Store) -> None:
    """Those that are asked for count, in all that the key has or in one conversation, each once."""
    items = (item("i", "a", item=b"12345"), item("j", "a", position=1, item=b"678"))
    await any_store.put_conversation(conversation("c"))
    await keep(any_store, answer=answer("a"), items=items)
    assert await any_store.find_items("key_1", ["i", "j", "i"], most_bytes=8) == list(items)
    for names, size in ((["i", "j", "none"], 8), (["i"], 5)):
        with pytest.raises(HistoryTooLarge) as caught:
            await any_store.find_items("key_1", names, most_bytes=size - 1)
        assert (caught.value.size, caught.value.most) == (size, size - 1)
    await any_store.add_to_conversation(entry("c", b"[]", "i"))
    (held,) = await any_store.find_items("key_1", ["i", "j"], conversation_id="c", most_bytes=18)
    assert len(held.item) == 18
    with pytest.raises(HistoryTooLarge):
        await any_store.find_items("key_1", ["i"], conversation_id="c", most_bytes=17)
    assert await any_store.find_items("key_2", ["i"], most_bytes=0) == []


@pytest.mark.parametrize(
    ("most", "order", "found"),
    [
        (None, "asc", "0123"),
        (11, "asc", "0123"),
        (5, "asc", "0123"),
        (3, "asc", "012"),
        (0, "asc", "01"),
        (5, "desc", "32"),
        (6, "desc", "321"),
    ],
)
async def test_a_page_of_items_ends_behind_its_size(
    any_store: Store, most: int | None, order: Order, found: str
) -> None:
    """One item follows those that are too much, so that it is known that there are more."""
    sizes = (1, 3, 1, 6)
    items = tuple(item(f"{n}", "a", position=n, item=b"x" * size) for n, size in enumerate(sizes))
    await keep(any_store, answer=answer("a"), items=items)
    page = await any_store.list_items("key_1", answer_id="a", most_bytes=most, order=order)
    assert "".join(each.id for each in page) == found


async def test_items_beyond_a_page_are_not_loaded(sqlite_store: Store) -> None:
    """Of a hundred large items two are read where one fills the page."""
    items = tuple(item(f"i{n}", "a", position=n, item=b"x" * 500_000) for n in range(20))
    await keep(sqlite_store, answer=answer("a"), items=items)
    tracemalloc.start()
    try:
        assert len(await sqlite_store.list_items("key_1", answer_id="a", limit=20, most_bytes=1)) == 2
        with pytest.raises(HistoryTooLarge):
            await sqlite_store.find_items("key_1", [each.id for each in items], most_bytes=5_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


async def test_what_is_not_there_has_no_size(any_store: Store) -> None:
    """A hole in a chain is named however large the rest is; what is another key's is not measured."""
    await fill(any_store)
    await any_store.delete_answer("key_1", "0")
    with pytest.raises(MissingAnswer) as caught:
        await any_store.get_chain("key_1", "2", most_bytes=1)
    assert caught.value.id == "0"
    with pytest.raises(MissingAnswer):
        await any_store.get_chain("key_2", "2", most_bytes=1)
    assert await any_store.conversation_messages("key_2", "c", most_bytes=1) == []
    assert await any_store.transcript("key_2", "s", most_bytes=1) == []
    assert await any_store.transcript("key_1", "s", "none", most_bytes=1) == []


async def test_an_earlier_part_may_be_small_enough(any_store: Store) -> None:
    """What counts is the history that was asked for, not all that hangs on it."""
    await fill(any_store)
    assert len(await any_store.get_chain("key_1", "1", most_bytes=15)) == 2
    assert len(await any_store.transcript("key_1", "s", "n1", most_bytes=15)) == 2


@pytest.mark.parametrize("way", READS)
async def test_what_is_too_large_is_not_loaded(sqlite_store: Store, way: str) -> None:
    """Its size is known without it: no memory for it is taken."""
    await fill(sqlite_store, (b'["%s"]' % (b"x" * 2_000_000),) * 3)
    tracemalloc.start()
    try:
        with pytest.raises(HistoryTooLarge):
            await READS[way](sqlite_store, 5_000_000)
        _, peak = tracemalloc.get_traced_memory()
        assert peak < 1_000_000
        tracemalloc.reset_peak()
        await READS[way](sqlite_store, None)
        _, peak = tracemalloc.get_traced_memory()
        assert peak > 5_000_000
    finally:
        tracemalloc.stop()
