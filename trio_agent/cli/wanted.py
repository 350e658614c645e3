"""What signals ask for, to be done one at a time."""

from __future__ import annotations

import trio


class Wanted:
    """Whether somebody wants the configuration read again. Asking twice before it is read is asking once."""

    def __init__(self) -> None:
        self._asked = trio.Event()

    def ask(self) -> None:
        self._asked.set()

    async def wait(self) -> None:
        """Wait until it is asked for; what is asked for from now on is another time."""
        await self._asked.wait()
        self._asked = trio.Event()
