"""What every store does, whatever it is made of."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import trio
from store_samples import EPOCH, Now, call, full_turn, park, reasoning, turn

from trio_agent.store.contract import Store, StoreError, TurnRow

changed = msgspec.structs.replace
DAY = 24 * 3600.0


async def parked(store: Store, turn_id: str, *call_ids: str, **changes: Any) -> TurnRow:
    row = turn(turn_id, owner=changes.get("owner", "key_1"), state="HOST_TOOL_WAIT", reason="tool_calls")
    await store.open_turn(row)
    await store.park_turn(row, [call(turn_id)], park(turn_id, *call_ids, **changes), [])
    return row


async def test_a_turn_comes_back_field_by_field(any_store: Store) -> None:
    """Nothing of a turn's row is lost or rounded."""
    row = full_turn("t")
    await any_store.close_turn(row, [])
    assert await any_store.get_turn("t") == row


async def test_defaults_come_back_as_they_were(any_store: Store) -> None:
    """Absent values stay absent: no zero, no empty string in their place."""
    await any_store.open_turn(turn("t"))
    assert await any_store.get_turn("t") == turn("t")


@pytest.mark.parametrize("amount", ["0", "0.10", "1E-12", "-3.5", "123456789.000000000000000000123456789"])
async def test_money_is_exact(any_store: Store, amount: str) -> None:
    """A cost comes back with the same digits and the same exponent."""
    await any_store.close_turn(
        full_turn("t", cost_usd=Decimal(amount)), [call("t", cost_usd=Decimal(amount))]
    )
    row = await any_store.get_turn("t")
    (made,) = await any_store.list_calls("t")
    assert row is not None
    assert str(row.cost_usd) == str(made.cost_usd) == str(Decimal(amount))


async def test_an_unknown_turn_is_none(any_store: Store) -> None:
    """Asking for what is not there is no error."""
    assert await any_store.get_turn("nobody") is None
    assert await any_store.list_calls("nobody") == []


async def test_a_turn_is_running_until_it_is_closed(any_store: Store) -> None:
    """The row exists before the end is known, and closing it replaces what it said."""
    await any_store.open_turn(turn("t"))
    before = await any_store.get_turn("t")
    await any_store.close_turn(full_turn("t"), [])
    after = await any_store.get_turn("t")
    assert before is not None
    assert before.outcome == "running"
    assert after == full_turn("t")


async def test_closing_inserts_a_turn_that_was_never_opened(any_store: Store) -> None:
    """A rejected turn is written in one go."""
    await any_store.close_turn(turn("t", outcome="rejected", reason="rate_limited"), [])
    row = await any_store.get_turn("t")
    assert row is not None
    assert (row.outcome, row.reason) == ("rejected", "rate_limited")


async def test_calls_come_back_in_order_and_repeats_replace(any_store: Store) -> None:
    """Fallback candidates begin their attempts at 0 again; a repeated close doubles nothing."""
    calls = [
        call("t", 1, attempt=0, failure={"kind": "stalled", "status": None}),
        call("t", 1, attempt=1, failure={"kind": "refused"}),
        call("t", 1, attempt=0, provider="a-fallback", finish_reason="tool_calls", response_id="r"),
        call("t", 2, served_model="m-1-2026", cost_usd=Decimal("0.1"), usage_source="provider"),
    ]
    await any_store.close_turn(full_turn("t"), calls)
    await any_store.close_turn(full_turn("t"), calls)
    assert await any_store.list_calls("t") == calls


@pytest.mark.parametrize("outcome", ["running", "parked"])
async def test_a_turn_cannot_be_closed_as_still_going(any_store: Store, outcome: str) -> None:
    """An outcome that ends nothing is the caller's bug."""
    with pytest.raises(ValueError, match=outcome):
        await any_store.close_turn(turn("t", outcome=outcome), [])


async def test_what_belongs_to_another_turn_is_refused(any_store: Store) -> None:
    """Calls and parks go with their own turn, and nothing is written otherwise."""
    with pytest.raises(ValueError, match="other"):
        await any_store.close_turn(full_turn("t"), [call("other")])
    with pytest.raises(ValueError, match="other"):
        await any_store.park_turn(turn("t"), [], park("other", "c"), [])
    assert await any_store.get_turn("t") is None


async def test_the_newest_turns_come_first_in_pages(any_store: Any) -> None:
    """Pages follow one another without gap or overlap, also among turns of one moment."""
    for number in range(7):
        await any_store.open_turn(turn(f"t{number}", created_at=EPOCH + number // 2))
    pages: list[str] = []
    after = None
    while page := await any_store.list_turns(limit=2, after=after):
        assert len(page) <= 2
        pages += [row.id for row in page]
        after = page[-1].id
    assert pages == ["t6", "t5", "t4", "t3", "t2", "t1", "t0"]
    assert [row.id for row in await any_store.list_turns(limit=3)] == ["t6", "t5", "t4"]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"outcome": "failed"}, ["t2"]),
        ({"owner": "key_2"}, ["t3"]),
        ({"owner": ""}, ["t4"]),
        ({"session_id": "s"}, ["t3", "t1"]),
        ({"session_id": "s", "owner": "key_1"}, ["t1"]),
        ({"model": "big"}, ["t2"]),
        ({"after": "t3"}, ["t2", "t1"]),
        ({"after": "unknown"}, []),
        ({"before": "t2"}, ["t4", "t3"]),
        ({"before": "t1", "limit": 2}, ["t3", "t2"]),
        ({"before": "t1", "limit": 0}, []),
        ({"before": "t4"}, []),
        ({"before": "unknown"}, []),
        ({"before": "t1", "after": "t4"}, ["t3", "t2"]),
        ({"before": "t1", "outcome": "completed", "limit": 1}, ["t3"]),
        ({"outcome": "completed", "owner": "key_1", "session_id": "s", "model": "auto"}, ["t1"]),
        ({"outcome": "completed", "owner": "", "model": "auto"}, ["t4"]),
        ({"session_id": ""}, []),
        ({"session_id": "s\0"}, []),
        ({"outcome": "nonsense"}, []),
    ],
)
async def test_turns_can_be_filtered(any_store: Any, filters: dict[str, str], found: list[str]) -> None:
    """Filters narrow the list, together as alone."""
    rows = [
        turn("t1", outcome="completed", owner="key_1", session_id="s", created_at=1.0),
        turn("t2", outcome="failed", owner="key_1", model="big", created_at=2.0),
        turn("t3", outcome="completed", owner="key_2", session_id="s", created_at=3.0),
        turn("t4", outcome="completed", created_at=4.0),
    ]
    for row in rows:
        await any_store.close_turn(row, [])
    assert [row.id for row in await any_store.list_turns(**filters)] == found


async def test_turns_that_begin_meanwhile_move_no_page(any_store: Store) -> None:
    """A reader who pages through the list meets each turn once; later ones are before the first page."""
    for number in range(4):
        await any_store.open_turn(turn(f"t{number}", created_at=EPOCH + number))
    first = await any_store.list_turns(limit=2)
    await any_store.open_turn(turn("t9", created_at=EPOCH + 9))
    second = await any_store.list_turns(limit=2, after=first[-1].id)
    later = await any_store.list_turns(limit=2, before=first[0].id)
    assert [[row.id for row in page] for page in (later, first, second)] == [
        ["t9"], ["t3", "t2"], ["t1", "t0"],
    ]  # fmt: skip


async def test_the_calls_of_several_turns_come_together(any_store: Store) -> None:
    """In the order of the turns that are asked for, each once; unknown ones have none."""
    await any_store.close_turn(full_turn("a"), [call("a", 1), call("a", 2)])
    await any_store.close_turn(full_turn("b"), [call("b", 1)])
    found = await any_store.list_calls("b", "nobody", "a", "b")
    assert [(each.turn_id, each.number) for each in found] == [("b", 1), ("a", 1), ("a", 2)]
    assert await any_store.list_calls() == []


async def test_turns_are_counted_by_outcome(any_store: Store) -> None:
    """The figures are those of this moment: a park that is taken is not parked any more."""
    await parked(any_store, "t1", "c1")
    await parked(any_store, "t2", "c2")
    await any_store.close_turn(full_turn("t3"), [])
    assert [await any_store.count_turns(name) for name in ("parked", "completed", "failed")] == [2, 1, 0]
    await any_store.take_park("t1", EPOCH)
    assert [await any_store.count_turns(name) for name in ("parked", "running")] == [1, 1]


async def test_a_park_comes_back_byte_for_byte(any_store: Store) -> None:
    """The snapshot is opaque, and the turn's row says that it is parked."""
    await parked(any_store, "t", "call_2", "call_1")
    assert await any_store.find_parks("key_1", ["call_1", "elsewhere"]) == [park("t", "call_2", "call_1")]
    row = await any_store.get_turn("t")
    assert row is not None
    assert row.outcome == "parked"


async def test_parks_are_found_by_owner_and_call(any_store: Store, now: Now) -> None:
    """Another key's park, another call's park and an expired one are not found."""
    await parked(any_store, "old", "c", created_at=EPOCH)
    await parked(any_store, "new", "c", created_at=EPOCH + 1)
    await parked(any_store, "theirs", "c", owner="key_2")
    await parked(any_store, "brief", "c", expires_at=EPOCH + 10)
    now.at = EPOCH + 10
    assert [found.turn_id for found in await any_store.find_parks("key_1", ["c"])] == ["new", "old"]
    assert await any_store.find_parks("key_1", ["d"]) == []
    assert await any_store.find_parks("key_1", []) == []
    assert await any_store.find_parks("", ["c"]) == []


async def test_many_call_ids_can_be_asked_for_at_once(any_store: Store) -> None:
    """A long history of tool results is one query, with no limit on variables in its way."""
    await parked(any_store, "t", "c-39999")
    ids = [f"c-{number}" for number in range(40_000)]
    assert [found.turn_id for found in await any_store.find_parks("key_1", ids)] == ["t"]


async def test_a_park_is_taken_once(any_store: Store) -> None:
    """The first taker resumes the turn; for the second there is nothing left."""
    await parked(any_store, "t", "c")
    assert await any_store.take_park("t", EPOCH + 1) is True
    assert await any_store.take_park("t", EPOCH + 1) is False
    assert await any_store.find_parks("key_1", ["c"]) == []
    row = await any_store.get_turn("t")
    assert row is not None
    assert (row.outcome, row.reason, row.ended_at) == ("running", None, None)


async def test_one_of_twenty_racing_takers_wins(open_any: Any) -> None:
    """However many requests bring the results at once, over two stores on one database, one resumes."""
    taken: list[bool] = []

    async def take(store: Store) -> None:
        taken.append(await store.take_park("t", EPOCH))

    async with open_any("one") as one, open_any("two") as two:
        await parked(one, "t", "c")
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(take, one)
                nursery.start_soon(take, two)
    assert Counter(taken) == {True: 1, False: 19}


async def test_an_expired_or_unknown_park_cannot_be_taken(any_store: Store) -> None:
    """A park is worth nothing from its expiry on, swept or not."""
    await parked(any_store, "t", "c")
    assert await any_store.take_park("t", EPOCH + 900) is False
    assert await any_store.take_park("unknown", EPOCH) is False
    row = await any_store.get_turn("t")
    assert row is not None
    assert row.outcome == "parked"


async def test_a_resumed_turn_can_park_again(any_store: Store) -> None:
    """The second park has its own calls; those of the first are not owed any more."""
    row = await parked(any_store, "t", "first")
    assert await any_store.take_park("t", EPOCH)
    await any_store.open_turn(row)
    await any_store.park_turn(row, [call("t", 2)], park("t", "second", snapshot=b"2"), [])
    assert await any_store.find_parks("key_1", ["first"]) == []
    assert await any_store.find_parks("key_1", ["second"]) == [park("t", "second", snapshot=b"2")]
    assert [made.number for made in await any_store.list_calls("t")] == [1, 2]


async def test_parking_again_without_taking_replaces_the_park(any_store: Store) -> None:
    """A turn has one park at most."""
    row = await parked(any_store, "t", "first", "both")
    await any_store.park_turn(row, [], park("t", "both", "second"), [])
    assert await any_store.find_parks("key_1", ["first"]) == []
    assert await any_store.find_parks("key_1", ["both"]) == [park("t", "both", "second")]


async def test_closing_a_parked_turn_ends_its_park(any_store: Store) -> None:
    """A turn that was cancelled while it waited cannot be resumed."""
    await parked(any_store, "t", "c")
    await any_store.close_turn(turn("t", outcome="cancelled", reason="cancelled"), [])
    assert await any_store.find_parks("key_1", ["c"]) == []
    assert await any_store.take_park("t", EPOCH) is False
    assert await any_store.expire_parks(EPOCH + 900) == 0


async def test_expired_parks_are_closed_once(any_store: Store) -> None:
    """Only those that are due, with outcome, reason and time; the snapshot is gone."""
    await parked(any_store, "due", "c1", expires_at=EPOCH + 10)
    await parked(any_store, "later", "c2", expires_at=EPOCH + 11)
    assert await any_store.expire_parks(EPOCH + 10) == 1
    assert await any_store.expire_parks(EPOCH + 10) == 0
    row = await any_store.get_turn("due")
    assert row is not None
    assert (row.outcome, row.reason, row.ended_at) == ("abandoned", "host_tool_timeout", EPOCH + 10)
    assert await any_store.find_parks("key_1", ["c1"]) == []
    assert len(await any_store.find_parks("key_1", ["c2"])) == 1


async def test_any_number_of_parks_can_expire(any_store: Store) -> None:
    """More than one sweep's share of them are all closed and counted."""
    async with trio.open_nursery() as nursery:
        for number in range(450):
            nursery.start_soon(parked, any_store, f"t{number}", f"c{number}")
    assert await any_store.expire_parks(EPOCH + 900) == 450
    assert {row.outcome for row in await any_store.list_turns(limit=500)} == {"abandoned"}


async def test_reasoning_is_found_in_the_order_asked(any_store: Store) -> None:
    """By owner and call id, each once, and what is unknown is left out."""
    kept = [reasoning("b", message=b"\xff1"), reasoning("a", message=b"2"), reasoning("a", owner="key_2")]
    await any_store.close_turn(full_turn("t"), [], kept)
    assert await any_store.find_reasoning("key_1", ["b", "x", "a", "b"]) == kept[:2]
    assert await any_store.find_reasoning("key_2", ["a", "b"]) == kept[2:]
    assert await any_store.find_reasoning("key_3", ["a"]) == []


@pytest.mark.parametrize("strange", ["a\0b", "a\0", '"', "'; --", "%", "ä😀", " a", ""])
async def test_a_strange_id_finds_no_other_row(any_store: Store, strange: str) -> None:
    """Whatever a client sends as an id, it is compared whole."""
    await any_store.park_turn(turn("t"), [], park("t", "a"), [reasoning("a")])
    assert await any_store.find_parks("key_1", [strange]) == []
    assert await any_store.find_reasoning("key_1", [strange]) == []


async def test_reasoning_of_the_same_call_is_replaced(any_store: Store) -> None:
    """The newest message stands, whether the turn closed or parked."""
    await any_store.close_turn(full_turn("t1"), [], [reasoning("a"), reasoning("b")])
    newer = reasoning("a", message=b"newer", origin="lab/m-2", created_at=EPOCH + 1)
    await any_store.park_turn(turn("t2"), [], park("t2", "a"), [newer])
    assert await any_store.find_reasoning("key_1", ["a", "b"]) == [newer, reasoning("b")]


async def test_one_call_id_may_be_two_conversations(any_store: Store) -> None:
    """Some models count their calls from 0 in every conversation; neither row may replace the other."""
    mine, theirs = reasoning("f:0", asked="mine"), reasoning("f:0", asked="theirs")
    await any_store.close_turn(full_turn("t1"), [], [mine])
    await any_store.close_turn(full_turn("t2"), [], [theirs])
    found = await any_store.find_reasoning("key_1", ["f:0"])
    assert {row.asked: row for row in found} == {"mine": mine, "theirs": theirs}


async def test_sweep_forgets_reasoning_after_thirty_days(any_store: Any) -> None:
    """All that is older, however much, and nothing that is younger."""
    old = [reasoning(f"old-{number}", created_at=EPOCH - 30 * DAY - 1) for number in range(450)]
    young = reasoning("young", created_at=EPOCH - 30 * DAY + 1)
    await any_store.close_turn(full_turn("t"), [], [*old, young])
    await any_store.sweep(EPOCH)
    assert await any_store.find_reasoning("key_1", [*(kept.tool_call_id for kept in old), "young"]) == [young]


async def test_everything_is_there_after_reopening(open_any: Any) -> None:
    """What was written before an orderly end is read after the next start, parks included."""
    async with open_any("one") as store:
        await store.close_turn(full_turn("done"), [call("done")], [reasoning("r")])
        await parked(store, "waiting", "c")
    async with open_any("two") as store:
        assert await store.get_turn("done") == full_turn("done")
        assert await store.list_calls("done") == [call("done")]
        assert await store.find_reasoning("key_1", ["r"]) == [reasoning("r")]
        assert await store.find_parks("key_1", ["c"]) == [park("waiting", "c")]
        assert await store.take_park("waiting", EPOCH) is True


async def test_stores_on_one_database_see_each_other(open_any: Any) -> None:
    """A living instance's running turn is left alone by another one that opens, sweeps and closes."""
    async with open_any("one") as one:
        await one.open_turn(turn("t"))
        async with open_any("two") as two:
            await two.sweep(EPOCH)
            row = await two.get_turn("t")
            assert row is not None
            assert row.outcome == "running"
        await one.close_turn(full_turn("t"), [])
        assert await one.get_turn("t") == full_turn("t")


async def test_a_turn_left_open_at_the_end_is_abandoned(open_any: Any, now: Now) -> None:
    """Every turn has an outcome, also one whose end could not be written before the store was closed."""
    async with open_any("one") as store:
        await store.open_turn(turn("t"))
        now.at = EPOCH + 5
    async with open_any("two") as store:
        row = await store.get_turn("t")
        assert row is not None
        assert (row.outcome, row.reason, row.ended_at) == ("abandoned", "crash", EPOCH + 5)


async def test_an_instance_id_is_used_once_at_a_time(open_any: Any) -> None:
    """Two living stores of one id could not be told apart."""
    async with open_any("one"):
        with pytest.raises(StoreError, match="in use by a running process"):
            async with open_any("one"):
                pytest.fail("opened twice")
    async with open_any("one"):
        pass


async def test_a_closed_store_says_so(open_any: Any) -> None:
    """Calls after the end fail at once, reads and writes alike."""
    async with open_any("one") as store:
        pass
    with pytest.raises(StoreError, match="closed"):
        await store.open_turn(turn("t"))
    with pytest.raises(StoreError, match="closed"):
        await store.get_turn("t")


async def test_values_that_no_row_can_hold_are_refused(sqlite_store: Store) -> None:
    """They fail alone and by name, and leave nothing behind."""
    any_store = sqlite_store
    for bad in (
        full_turn("t", created_at=float("nan")),
        full_turn("t", face="\ud800"),
        full_turn("t", outcome="finished"),
        full_turn("t", error={"what": object()}),
    ):
        with pytest.raises(StoreError):
            await any_store.close_turn(bad, [call("t")])
    assert await any_store.get_turn("t") is None


async def test_the_body_raises_what_it_raised(open_any: Any) -> None:
    """An error in the block comes out as itself, not inside an exception group."""
    with pytest.raises(KeyError, match="mine"):
        async with open_any("one"):
            raise KeyError("mine")


async def test_shielded_cleanup_can_still_write(open_any: Any) -> None:
    """A turn that is cancelled together with everything around it still gets its outcome."""
    with trio.CancelScope() as scope:
        async with open_any("one") as store:
            await store.open_turn(turn("t"))
            try:
                scope.cancel()
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(5, shield=True):
                    await store.close_turn(full_turn("t", outcome="cancelled"), [])
    async with open_any("two") as store:
        row = await store.get_turn("t")
        assert row is not None
        assert row.outcome == "cancelled"
