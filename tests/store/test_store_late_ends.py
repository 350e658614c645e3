"""The outcome of a turn that comes late, since the store did not take it when it was due."""

from __future__ import annotations

from typing import Any

import pytest
from store_samples import answer, call, entries, key, log, park, turn

from trio_agent.store.kept import Keeping


@pytest.mark.parametrize("opened", [True, False])
async def test_it_is_written_with_what_it_cost(any_store: Any, opened: bool) -> None:
    """Whether or not the turn was opened; what it was saying is broken off, and its key is free."""
    if opened:
        keeping = Keeping(
            answer=answer("resp_1", turn_id="t1", status="in_progress"),
            log=log("resp_1", turn_id="t1", ended_at=None),
            entries=entries(0),
        )
        await any_store.open_turn(turn("t1"), keeping)
        await any_store.claim_key(key("k", "resp_1"))
    row = turn("t1", outcome="failed", reason="store_unavailable", ended_at=5.0)
    await any_store.close_late(row, [call("t1")])
    kept = await any_store.get_turn("t1")
    assert (kept.outcome, kept.reason, kept.ended_at) == ("failed", "store_unavailable", 5.0)
    assert len(await any_store.list_calls("t1")) == 1
    if opened:
        owner = log("resp_1").owner
        assert (await any_store.get_answer(owner, "resp_1")).status == "failed"
        assert (await any_store.find_log(owner, "resp_1")).broken
        again = key("k", "resp_2")
        assert await any_store.claim_key(again) == again


async def test_an_outcome_that_is_there_stays(any_store: Any) -> None:
    """The write of which nobody knew whether it took effect did so."""
    await any_store.open_turn(turn("t1"))
    await any_store.close_turn(turn("t1", outcome="completed", reason="stop"), [call("t1")])
    await any_store.close_late(turn("t1", outcome="failed", reason="store_unavailable"), [])
    assert (await any_store.get_turn("t1")).outcome == "completed"


async def test_the_park_that_the_turn_had_taken_is_gone(any_store: Any, now: Any) -> None:
    """Its response has failed, so nothing is owed to it any more; one that is free is nobody's to close."""
    for name in ("t1", "t2"):
        await any_store.open_turn(turn(name))
        await any_store.park_turn(turn(name), [], park(name, f"call_{name}"), [])
    assert await any_store.take_park("t1", now())
    for name in ("t1", "t2"):
        await any_store.close_late(turn(name, outcome="failed", reason="store_unavailable"), [])
    owner = park("t1").owner
    assert [each.turn_id for each in await any_store.find_parks(owner, ["call_t1", "call_t2"])] == ["t2"]
    assert (await any_store.get_turn("t1")).outcome == "failed"


async def test_only_an_end_ends_a_turn(any_store: Any) -> None:
    """What is no outcome is refused."""
    with pytest.raises(ValueError, match="running"):
        await any_store.close_late(turn("t1"), [])
