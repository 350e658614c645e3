"""How long something takes that cannot say how far it is, on a terminal's last line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from trio_agent.cli.progress import Progress
from trio_agent.nursery import open_plain_nursery

SHOWN_AFTER: Final = 0.5
"""Seconds that something may take before it is spoken of."""


class Waiting:
    """Something that goes on. `over` may be called as often as one likes."""

    def __init__(self, line: Progress) -> None:
        self._line = line
        self._scope = trio.CancelScope()

    def over(self) -> None:
        """It is here: say no more of it."""
        self._scope.cancel()
        self._line.clear()

    async def tell(self, text: str) -> None:
        """Say this and for how many seconds, until it is over."""
        began = trio.current_time()
        with self._scope:
            await trio.sleep(SHOWN_AFTER)
            while True:
                seconds = int(trio.current_time() - began)
                self._line.say(f"{text} … {seconds} s" if seconds else f"{text} …")
                await trio.sleep(1)


@asynccontextmanager
async def waiting(line: Progress, text: str) -> AsyncIterator[Waiting]:
    """Say what is waited for, until the block ends or `over` is called."""
    what = Waiting(line)
    async with open_plain_nursery() as nursery:
        nursery.start_soon(what.tell, text)
        try:
            yield what
        finally:
            what.over()
