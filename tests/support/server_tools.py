"""Tools that a configuration can name as `agent.tools`."""

from __future__ import annotations

import trio


async def nap() -> str:
    """Sleep for five seconds."""
    await trio.sleep(5)
    return "slept"


def ping() -> str:
    """Answer at once."""
    return "pong"
