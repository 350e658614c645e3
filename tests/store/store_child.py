"""A second process with a store, for tests: `store_child.py COMMAND DATABASE`.

It says `ready` when the parent may go on, and goes on itself when the parent writes a line.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import trio
from store_samples import EPOCH, Now, call, full_turn, park, turn

from trio_agent.store.contract import StoreError
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


COMMANDS = {"midturn": midturn, "storm": storm, "write": write, "take": take, "size_limit": size_limit}


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
