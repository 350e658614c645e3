"""What tools do in a run, and what the model must be told of it."""

from __future__ import annotations

import json
from typing import Any

import trio


async def perform(key: str, seconds: float, manner: str, passes: int, result: str) -> Any:
    """Take so long, then end in this manner."""
    await trio.sleep(seconds)
    for _ in range(passes):
        await trio.lowlevel.checkpoint()
    match manner:
        case "raises":
            raise LookupError(key)
        case "exits":
            raise SystemExit(key)
        case "returns nonsense":
            return {key: object()}
        case "hangs":
            await trio.sleep_forever()
        case "fails when stopped":
            try:
                await trio.sleep_forever()
            finally:
                raise OSError(key)
    return result


def words_due(arguments: str, result: str, limit: float) -> set[str]:
    """What a result must hold one of, for a tool that was called like this and had `limit` seconds."""
    given = json.loads(arguments)
    if not {"k", "s", "how"} <= given.keys():
        return set()  # nothing is right for a call that has lost its arguments
    key, seconds, manner = given["k"], given["s"], given["how"]
    late = {f"OSError: {key}" if manner == "fails when stopped" and seconds < limit else "did not end within"}
    ends = {
        "returns": {result},
        "raises": {f"LookupError: {key}"},
        "exits": {f"SystemExit: {key}"},
        "returns nonsense": {"no JSON form"},
    }.get(manner, late)
    if seconds > limit:
        return {"did not end within"}
    return ends | {"did not end within"} if seconds == limit else ends
