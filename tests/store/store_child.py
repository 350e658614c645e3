"""A second process with a store, for tests: `store_child.py COMMAND DATABASE`.

It says `ready` when the parent may go on, and goes on itself when the parent writes a line.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import trio
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
    key,
    log,
    park,
    turn,
)

from trio_agent.store.contract import StoreError
from trio_agent.store.kept import Keeping
from trio_agent.store.sqlite import SqliteStore, open_store

SIZE_LIMIT = 400_000


def say(word: object) -> None:
    print(word, flush=True)


async def parent_says_go() -> str:
    return await trio.to_thread.run_sync(sys.stdin.readline)


async def midturn(store: SqliteStore) -> None:
    """One turn running, one resumed, one parked, one done; then wait to be killed."""
    await store.open_turn(turn("running"))
    for name in ("parked", "resumed"):
        await store.open_turn(turn(name))
        await store.park_turn(turn(name), [call(name)], park(name, f"call-{name}"), [])
    assert await store.take_park("resumed", EPOCH)
    await store.close_turn(full_turn("done"), [])
    say("ready")
    await parent_says_go()


async def storm(store: SqliteStore) -> None:
    """Write without end, to be killed in the middle of it."""

    async def write(lane: int) -> None:
        for number in range(1_000_000):
            name = f"t-{lane}-{number}"
            await store.open_turn(turn(name))
            await store.close_turn(full_turn(name), [call(name, 1), call(name, 2)])
            if lane == 0 and number == 20:
                say("ready")

    async with trio.open_nursery() as nursery:
        for lane in range(10):
            nursery.start_soon(write, lane)


async def write(store: SqliteStore) -> None:
    """A hundred turns, ten at a time, beside the parent's."""

    async def lane(number: int) -> None:
        for count in range(10):
            await store.close_turn(full_turn(f"child-{number}-{count}"), [call(f"child-{number}-{count}")])

    say("ready")
    await parent_says_go()
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(lane, number)


async def take(store: SqliteStore) -> None:
    """Try to take one park as often as five requests would, and say how often it worked."""
    taken: list[bool] = []

    async def once() -> None:
        taken.append(await store.take_park("t", EPOCH))

    say("ready")
    await parent_says_go()
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(once)
    say(sum(taken))
    # What this process has taken is free again when it ends.
    await parent_says_go()


async def size_limit(store: SqliteStore) -> None:
    """Run into a limit on the size of files, then go on when it is lifted."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE_LIMIT, resource.RLIM_INFINITY))
    await store.open_turn(turn("t"))
    try:
        await store.park_turn(turn("t"), [call("t")], park("t", "c", snapshot=bytes(2 * SIZE_LIMIT)), [])
    except StoreError as error:
        say(f"refused: {error}")
    row = await store.get_turn("t")
    say(row.outcome if row else "lost")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.close_turn(full_turn("t"), [call("t")])
    row = await store.get_turn("t")
    say(row.outcome if row else "lost")


async def speaking(store: SqliteStore) -> None:
    """Answers on their way, of a turn that runs, of one that was resumed and of one that is over."""
    await store.put_conversation(conversation("c"))
    await store.put_conversation(conversation("later"))
    await store.claim_conversation("key_1", "c", "running")
    await store.claim_conversation("key_1", "later", "nothing yet")
    for name in ("running", "resumed", "done", "nothing yet"):
        assert await store.claim_key(key(name, name)) == key(name, name)

    def begun(name: str) -> Keeping:
        return Keeping(
            answer=answer(name, turn_id=name, status="in_progress"),
            items=(item(f"asked of {name}", name, direction="input"),),
            log=log(name, turn_id=name, ended_at=None),
            entries=entries(0),
        )

    await store.open_turn(turn("running"), begun("running"))
    await store.open_turn(turn("resumed"))
    await store.park_turn(
        turn("resumed"),
        [],
        park("resumed", "call-resumed"),
        [],
        Keeping(answer=answer("parked", turn_id="resumed"), log=log("parked", turn_id="resumed")),
    )
    assert await store.take_park("resumed", EPOCH)
    await store.open_turn(turn("resumed"), begun("resumed"))
    await store.open_turn(turn("done"), begun("done"))
    await store.append_log("running", entries(1, 2))
    kept = Keeping(answer=answer("done", turn_id="done"), log=log("done", turn_id="done"), entries=entries(1))
    await store.close_turn(full_turn("done"), [], keeping=kept)
    say("ready")
    await parent_says_go()


async def claim(store: SqliteStore) -> None:
    """Try to take one key and one conversation five times each, and say how often it worked."""
    won: list[str] = []

    async def once(number: int) -> None:
        mine = key("k", f"child {number}")
        if await store.claim_key(mine) == mine:
            won.append("key")
        claim = await store.claim_conversation("key_1", "c", mine.log_id)
        if claim is not None and claim.busy is None:
            won.append("conversation")

    say("ready")
    await parent_says_go()
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(once, number)
    say(f"{won.count('key')} {won.count('conversation')}")
    await parent_says_go()


async def answers(store: SqliteStore) -> None:
    """Keep answers without end, each with an item, a log and something said, to be killed in the middle."""

    async def lane(number: int) -> None:
        await store.put_conversation(conversation(f"c{number}"))
        for count in range(1_000_000):
            name = f"{number}-{count}"
            await store.open_turn(
                turn(name),
                Keeping(
                    answer=answer(name, turn_id=name, status="in_progress"),
                    log=log(name, turn_id=name, ended_at=None),
                ),
            )
            await store.append_log(name, entries(0, 1))
            kept = Keeping(
                answer=answer(name, turn_id=name),
                items=(item(name, name),),
                log=log(name, turn_id=name),
                entries=entries(2),
                conversation=entry(f"c{number}", name.encode()),
            )
            await store.close_turn(full_turn(name), [], keeping=kept)
            if number == 0 and count == 10:
                say("ready")

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(lane, number)


COMMANDS = {
    "speaking": speaking,
    "claim": claim,
    "answers": answers,
    "midturn": midturn,
    "storm": storm,
    "write": write,
    "take": take,
    "size_limit": size_limit,
}


async def main(command: str, database: Path) -> None:
    try:
        async with open_store(database, instance_id=f"child-{os.getpid()}", now=Now()) as store:
            await COMMANDS[command](store)
    except StoreError as error:
        say(f"error: {error}")


if __name__ == "__main__":
    if sys.argv[1] == "as_somebody":  # Root may write anywhere, so it has to become somebody else.
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        sys.argv[1] = "write"
    trio.run(main, sys.argv[1], Path(sys.argv[2]))
