"""The store in memory and the one on the disk do the same, whatever is done to them in whatever order."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from store_samples import (
    Now,
    answer,
    call,
    conversation,
    full_turn,
    item,
    key,
    log,
    node,
    park,
    span,
    turn,
)

from trio_agent.store.contract import Store
from trio_agent.store.kept import ConversationEntry, Keeping, LogEntry, MissingAnswer, Writer
from trio_agent.store.limits import Limits
from trio_agent.store.memory import MemoryStore
from trio_agent.store.sqlite import open_store

LIMITS = Limits(
    responses=60_000.0,
    sessions=40_000.0,
    events=30_000.0,
    max_responses=2,
    max_conversations=2,
    max_sessions=2,
    max_session_turns=3,
)

OWNERS = st.sampled_from(["key_1", "key_1", "key_1", "key_2"])
ANSWERS = st.sampled_from(["a", "b", "c", "d"])
CONVERSATIONS = st.sampled_from(["x", "y", "z"])
ITEMS = st.sampled_from(["i", "j", "k"])
NODES = st.sampled_from(["n1", "n2", "n3", "n4", "n5"])
SESSIONS = st.sampled_from(["s", "t", "u"])
NUMBERS = st.integers(0, 4)
PARTS = st.booleans()
SPANS = st.lists(st.tuples(st.booleans(), st.integers(1, 3)), max_size=3)
"""Batches of a log that were written together: whether one is missing before them, and how many they are."""

STEPS = (
    *["close"] * 12,
    *["open", "park", "put", "claim", "answer", "chain", "list", "sweep"] * 3,
    *("log", "append", "key", "forget", "delete", "find", "get", "drop", "add", "messages", "free", "nodes"),
    *("path", "nodes of all", "late"),
)

Step = tuple[str, Callable[[Store, float], Awaitable[Any]]]


def entries(start: int, spans: list[tuple[bool, int]]) -> tuple[LogEntry, ...]:
    found: list[LogEntry] = []
    for gap, count in spans:
        found.append(span(start + gap, count))
        start += gap + count
    return tuple(found)


@st.composite
def said(draw: st.DrawFn, owner: str) -> ConversationEntry:
    names = draw(st.lists(ITEMS, max_size=2))
    return ConversationEntry(
        conversation_id=draw(CONVERSATIONS),
        owner=owner,
        messages=b"[%d]" % draw(NUMBERS),
        items=tuple(item(name, owner=owner) for name in names),
    )


@st.composite
def keepings(draw: st.DrawFn, turn_id: str, statuses: list[str]) -> Callable[[float], Keeping]:
    """What may be kept at a time; a node's parent is one that sorts before it, so that trees are trees."""
    name, owner = draw(ANSWERS), draw(OWNERS)
    status = draw(st.sampled_from(statuses))
    previous = draw(st.sampled_from([None, *(other for other in "abcd" if other < name)]))
    fields: dict[str, Any] = {}
    if draw(PARTS):
        places = draw(st.lists(st.tuples(ITEMS, NUMBERS), max_size=2))
        fields["items"] = tuple(item(each, name, position=at, owner=owner) for each, at in places)
    logged = (draw(NUMBERS), draw(SPANS)) if draw(PARTS) else None
    if draw(PARTS):
        fields["conversation"] = draw(said(owner))
    own = draw(NODES)
    parent = draw(st.sampled_from([None, *(other for other in ("n1", "n2", "n3", "n4") if other < own)]))
    session = draw(SESSIONS) if draw(PARTS) else None
    if draw(st.integers(0, 5)) == 0:
        fields["forget_answer"] = draw(ANSWERS)
    if draw(PARTS):
        fields["release"] = Writer(draw(CONVERSATIONS), draw(ANSWERS))
    if draw(st.integers(0, 3)) == 0:
        fields["forget_key"] = key(draw(ITEMS), draw(ANSWERS), owner=owner)

    def keeping(now: float) -> Keeping:
        kept = dict(fields)
        kept["answer"] = answer(
            name, owner=owner, turn_id=turn_id, status=status, previous_id=previous, created_at=now
        )
        if logged is not None:
            ended = None if status == "in_progress" else now
            kept["log"] = log(name, owner=owner, turn_id=turn_id, ended_at=ended)
            kept["entries"] = entries(*logged)
        if session is not None:
            kept["node"] = node(
                f"{session}{own}", parent and session + parent, session_id=session, created_at=now
            )
        return Keeping(**kept)

    return keeping


@st.composite
def steps(draw: st.DrawFn) -> Step:
    owner, name, where = draw(OWNERS), draw(ANSWERS), draw(CONVERSATIONS)
    session = draw(SESSIONS)
    what = draw(st.sampled_from(STEPS))
    if what in ("open", "close", "park"):
        kept = draw(
            keepings("t", ["in_progress"]) if what == "open" else keepings("u", ["completed", "failed"])
        )
        return what, {
            "open": lambda store, now: store.open_turn(turn("t"), kept(now)),
            "close": lambda store, now: store.close_turn(full_turn("u"), [], keeping=kept(now)),
            "park": lambda store, now: store.park_turn(turn("u"), [call("u")], park("u", "x"), [], kept(now)),
        }[what]
    row = key(draw(ITEMS), name, owner=owner)
    new = draw(said(owner))
    start, spans = draw(NUMBERS), draw(SPANS)
    ids = draw(st.lists(ITEMS, max_size=3))
    page: dict[str, Any] = {
        "direction": draw(st.sampled_from([None, "output"])),
        "after": draw(st.none() | ITEMS),
        "limit": draw(st.integers(0, 3)),
        "order": draw(st.sampled_from(["asc", "desc"])),
        draw(st.sampled_from(["answer_id", "conversation_id"])): draw(ANSWERS | CONVERSATIONS),
    }
    one = draw(st.none() | NODES)
    return what, {
        "key": lambda store, now: store.claim_key(key(row.key, name, owner=owner, created_at=now)),
        "forget": lambda store, now: store.forget_key(row),
        "append": lambda store, now: store.append_log(name, entries(start, spans)),
        "answer": lambda store, now: store.get_answer(owner, name),
        "chain": lambda store, now: store.get_chain(owner, name),
        "delete": lambda store, now: store.delete_answer(owner, name),
        "find": lambda store, now: store.find_items(owner, ids),
        "list": lambda store, now: store.list_items(owner, **page),
        "put": lambda store, now: store.put_conversation(conversation(where, owner=owner, created_at=now)),
        "get": lambda store, now: store.get_conversation(owner, where),
        "drop": lambda store, now: store.delete_conversation(owner, where),
        "add": lambda store, now: store.add_to_conversation(new),
        "messages": lambda store, now: store.conversation_messages(owner, where),
        "claim": lambda store, now: store.claim_conversation(owner, where, name),
        "free": lambda store, now: store.release_conversation(where, name),
        "late": lambda store, now: store.close_late(full_turn("t", outcome="failed"), []),
        "nodes": lambda store, now: store.find_nodes(owner, session, [f"digest of {session}{one}"]),
        "path": lambda store, now: store.transcript(owner, session, one and session + one),
        "nodes of all": lambda store, now: store.list_nodes(owner, session),
        "sweep": lambda store, now: store.sweep(now),
        "log": lambda store, now: store.find_log(owner, name),
    }[what]


async def outcome(store: Store, step: Step, now: float) -> Any:
    try:
        return await step[1](store, now)
    except MissingAnswer as missing:
        return "missing", missing.id


async def everything(store: Store) -> dict[str, Any]:
    """All that can be seen from outside."""
    seen: dict[str, Any] = {}
    for owner in ("key_1", "key_2"):
        for name in "abcd":
            seen[owner, name] = (
                await store.get_answer(owner, name),
                await store.find_log(owner, name),
                await store.read_log(name, 0),
                await store.list_items(owner, answer_id=name),
            )
        for name in "xyz":
            seen[owner, name] = (
                await store.get_conversation(owner, name),
                await store.conversation_messages(owner, name),
                await store.list_items(owner, conversation_id=name),
            )
        for name in "stu":
            seen[owner, name] = (await store.transcript(owner, name), await store.list_nodes(owner, name))
        seen[owner, "items"] = await store.find_items(owner, ["i", "j", "k"])
    return seen


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(steps(), st.sampled_from([0.0, 1.0, 4000.0, 30_000.0])), min_size=8, max_size=40))
async def test_both_stores_do_the_same(script: list[tuple[Step, float]]) -> None:
    """After every step, with bounds that are reached and times that pass, nothing tells them apart."""
    now = Now()
    memory = MemoryStore(now, LIMITS)
    with tempfile.TemporaryDirectory() as folder:
        async with open_store(Path(folder) / "store.db", instance_id="one", now=now, limits=LIMITS) as store:
            await memory.open_turn(turn("t"))
            await store.open_turn(turn("t"))
            for step, passed in script:
                now.at += passed
                assert await outcome(store, step, now.at) == await outcome(memory, step, now.at), step[0]
            assert await everything(store) == await everything(memory)
