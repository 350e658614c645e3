"""The outcomes that the store did not take when they were due: they are brought to it again and again.

Without this, a turn whose end fell into a moment in which the disk was full would be `running` until the
server ends, and what it cost would be written nowhere.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import trio

from trio_agent.store.contract import CallRow, Store, StoreError, TurnRow

logger = logging.getLogger("trio_agent")

RETRY_SECONDS: Final = 5.0
"""How long the store is left alone after it has failed."""
WRITE_SECONDS: Final = 10.0
"""What one write may take."""
LAST_SECONDS: Final = 2.0
"""What the last attempt may take, when the server ends."""
MOST_OWED: Final = 10_000
"""Outcomes that are held. Of more, the oldest are left to the next start of a server, which abandons them."""


class OwedOutcomes:
    """What one agent owes its store.

    Args:
        nursery: where the store is tried again. Without it that happens at the end only.
    """

    def __init__(self, store: Store, nursery: trio.Nursery | None) -> None:
        self._store = store
        self._nursery = nursery
        self._owed: dict[str, tuple[TurnRow, tuple[CallRow, ...]]] = {}
        self._paying = False

    def add(self, row: TurnRow, calls: Sequence[CallRow]) -> None:
        """Take an outcome, with the model calls that are not in the store either."""
        self._owed[row.id] = (row, tuple(calls))
        if len(self._owed) > MOST_OWED:
            del self._owed[next(iter(self._owed))]
        if self._nursery is not None and not self._paying:
            self._paying = True
            self._nursery.start_soon(self._pay_until_done)

    async def settle(self) -> None:
        """Try once more, when the nursery has ended. Shielded, with a limit."""
        self._nursery = None
        with trio.move_on_after(LAST_SECONDS, shield=True):
            await self._pay()

    async def _pay_until_done(self) -> None:
        while self._owed:
            await trio.sleep(RETRY_SECONDS)
            await self._pay()
        self._paying = False

    async def _pay(self) -> None:
        for turn_id, (row, calls) in list(self._owed.items()):
            try:
                with trio.fail_after(WRITE_SECONDS):
                    await self._store.close_late(row, calls)
            except (StoreError, trio.TooSlowError):
                return
            logger.info("turn %s: its outcome is written now", turn_id)
            self._owed.pop(turn_id, None)


__all__ = ["OwedOutcomes"]
