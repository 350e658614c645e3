"""The logs of one agent: those that are being written here, and those that the store has."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from trio_agent.event_log.batches import BROKEN, ending
from trio_agent.event_log.holds import Holds
from trio_agent.event_log.live import LiveLog
from trio_agent.event_log.reader import LogReader
from trio_agent.peers import Alone, Peers
from trio_agent.store.kept import KeptStore, LogRow

logger = logging.getLogger("trio_agent.log")

MOST_LOST: Final = 10_000


class EventLogs:
    """The logs of one agent.

    Args:
        store: where logs are kept.
        now: wall time in seconds since the epoch.
        lifetime: gives the seconds after which an open log that nobody here writes is given up.
        peers: the processes that serve with this one.
    """

    def __init__(
        self,
        store: KeptStore,
        now: Callable[[], float],
        *,
        lifetime: Callable[[], float],
        peers: Peers | None = None,
    ) -> None:
        self.store = store
        self.now = now
        self._lifetime = lifetime
        self._live: dict[str, LiveLog] = {}
        self._lost: dict[str, None] = {}
        self.holds = Holds(peers or Alone(), self._live.values)

    def open(self, log_id: str, *, owner: str, face: str, cancel_unread: bool = False) -> LiveLog:
        """A log for an answer that is about to be made. `end` it, whatever becomes of it."""
        log = LiveLog(log_id, owner=owner, face=face, cancel_unread=cancel_unread)
        self._live[log_id] = log
        return log

    def end(self, log: LiveLog) -> None:
        """Nothing is added to the log any more, and whoever asks for it now is given what the store has."""
        if self._live.get(log.id) is log:
            del self._live[log.id]
        if log.settled.is_set():
            return
        log.settled.set()
        if not log.ended:
            # Its turn could not even write that it failed.
            log.append([ending(BROKEN, log.batches)])
        if not log.sealed and log.head is not None:
            logger.error("the log %s has no end in the store", log.id)
            self.give_up(log.id)

    def give_up(self, log_id: str) -> None:
        """Note that nothing will come any more of an answer of this process, whatever the store says."""
        self._lost[log_id] = None
        if len(self._lost) > MOST_LOST:
            del self._lost[next(iter(self._lost))]

    def is_given_up(self, log_id: str) -> bool:
        """Whether `give_up` was told of this answer, here and not too long ago."""
        return log_id in self._lost

    def live(self, owner: str, log_id: str) -> LiveLog | None:
        """The log of an answer that is being made here."""
        log = self._live.get(log_id)
        return log if log is not None and log.owner == owner else None

    async def reader(self, owner: str, log_id: str, *, start: int = 0) -> LogReader | None:
        """Read a log from batch number `start` on; `None` if it is not there.

        Raises:
            StoreError: the store is out of reach.
        """
        live = self.live(owner, log_id)
        if live is not None:
            return LogReader(self, live, start)
        row = await self.store.find_log(owner, log_id)
        return None if row is None else LogReader(self, row, start)

    def is_broken(self, row: LogRow) -> bool:
        """Whether an open log will never end: who wrote it died, or lost the store."""
        if row.ended_at is not None and not row.broken:
            return False
        return row.broken or self.is_given_up(row.id) or self.now() - row.created_at > self._lifetime()
