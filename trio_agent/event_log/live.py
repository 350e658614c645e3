"""The log of an answer that is being made: in memory, and in the store behind that."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from trio_agent.event_log.batches import TERMINAL, Batch, encode_batch, entries_of
from trio_agent.store.contract import StoreError
from trio_agent.store.kept import KeptStore, LogEntry
from trio_agent.turn.sink import Sink

logger = logging.getLogger("trio_agent.log")

FLUSH_SECONDS: Final = 0.25
"""How far the store may be behind a running turn, but for the time that it takes to write."""


class LiveLog:
    """The log of an answer that is being made in this process.

    It exists from the moment in which somebody may look for it; `begin` or `refuse` then says what becomes of
    it. `head` is what the answer's face needs to write it. `batches` are the outputs so far.

    Args:
        log_id: the answer's id.
        owner: the key that may read it.
        face: whose `head` it is.
        cancel_unread: whether the turn is left when its last reader has gone.
    """

    def __init__(self, log_id: str, *, owner: str, face: str, cancel_unread: bool = False) -> None:
        self.id = log_id
        self.owner = owner
        self.face = face
        self.cancel_unread = cancel_unread
        self.head: bytes | None = None
        self.created_at = 0.0
        self.ended_at: float | None = None
        """When the answer ended, in seconds since the epoch; known to whoever is given its last output."""
        self.refusal: Exception | None = None
        self.batches: list[Batch] = []
        self._pending: list[bytes] = []
        """The last of them, encoded, which are not known to be in the store."""
        self._closing = False
        """Whether they go into it with the outcome of the turn, and so by no other way."""
        self.ended = False
        self.sealed = False
        """Whether the store has the whole log: nothing is added to it any more."""
        self.left = False
        """Whether the turn was left because nobody read it any more."""
        self.leave: Callable[[], None] | None = None
        """What ends the turn then."""
        self.readers = 0
        self._held: set[str] = set()
        """The readers of other processes."""
        self._opened = trio.Event()
        self._begun = trio.Event()
        self.settled = trio.Event()
        """Set when the turn has done all its writing."""
        self._news = trio.lowlevel.ParkingLot()

    # --- what becomes of it ---------------------------------------------------------------------------

    def begin(self, head: bytes, created_at: float) -> None:
        """The answer is going to be made. `created_at` is in seconds since the epoch."""
        self.head, self.created_at = head, created_at
        self._begun.set()

    def refuse(self, why: Exception | None) -> None:
        """There will be no answer, because of `why`; `None` says that another try may succeed."""
        self.refusal = why
        self.end()
        self._begun.set()

    async def begun(self) -> bool:
        """Wait until it is known whether there will be an answer."""
        await self._begun.wait()
        return self.head is not None

    def append(self, outputs: Batch) -> None:
        """Add a batch. One that is in the log already, since the log is sealed, is not added again.

        Raises:
            UnicodeEncodeError: it holds half a character, which no wire can carry.
        """
        if self.ended:
            return
        # At once: what cannot be encoded is the failure of whoever said it.
        self._pending.append(encode_batch(outputs))
        self.batches.append(outputs)
        if type(outputs[-1]) in TERMINAL:
            self.end()
        elif self._news:  # mostly nobody waits, and to wake nobody up costs more than all the rest
            self._news.unpark_all()

    def seal(self, last: Batch) -> None:
        """The whole log is in the store, with its last batch."""
        self.sealed = True
        self._pending.clear()
        self.batches.append(last)
        self.end()

    def end(self) -> None:
        """No more batches come; readers end."""
        self.ended = True
        self._news.unpark_all()

    async def changed(self) -> None:
        """Wait for a batch, or for the end."""
        await self._news.park()

    # --- the store, behind the turn ---------------------------------------------------------------------

    def opened(self) -> None:
        """The log's row is in the store, so that entries may follow."""
        self._opened.set()
        self._news.unpark_all()

    async def stored(self) -> bool:
        """Wait until the log's row is in the store; False if the answer ended before it could be written."""
        while not (self._opened.is_set() or self.ended):
            await self.changed()
        return self._opened.is_set()

    async def write_behind(self, store: KeptStore) -> None:
        """Put batches into the store as they come, until the log is sealed or a write fails.

        What it has not written goes with the outcome of the turn.
        """
        await self._opened.wait()
        while not self._is_closed():
            count = len(self._pending)
            if count == 0:
                await self.changed()
                continue
            try:
                await store.append_log(self.id, self._unwritten())
            except StoreError as error:
                logger.warning("the log %s is written at its end only: %s", self.id, error)
                return
            if self._closing:
                return
            del self._pending[:count]
            # All logs at the same moments: what comes together is synced once, and syncing is what it costs.
            await trio.sleep_until((trio.current_time() // FLUSH_SECONDS + 1) * FLUSH_SECONDS)

    def rest(self, last: Batch) -> tuple[LogEntry, ...]:
        """What goes into the store with the outcome of the turn: all that may be missing there, and `last`.

        It begins at the same number each time that it is asked for: from now on nothing is written by itself.

        Raises:
            UnicodeEncodeError: as `append`.
        """
        entries = self._unwritten(encode_batch(last))
        self._closing = True
        return entries

    def _is_closed(self) -> bool:
        return self.ended or self._closing

    def _unwritten(self, *more: bytes) -> tuple[LogEntry, ...]:
        return entries_of(len(self.batches) - len(self._pending), [*self._pending, *more])

    # --- readers ------------------------------------------------------------------------------------------

    def join(self) -> None:
        self.readers += 1

    def part(self) -> None:
        self.readers -= 1
        self._leave_if_unread()

    def hold(self, token: str) -> None:
        """Somebody reads it in another process."""
        self._held.add(token)

    def let_go(self, is_gone: Callable[[str], bool]) -> None:
        """Those readers of other processes are gone whose token is."""
        gone = set(filter(is_gone, self._held))
        self._held -= gone
        if gone:
            self._leave_if_unread()

    def _leave_if_unread(self) -> None:
        unread = self.readers == 0 and not self._held
        if unread and self.cancel_unread and not self.ended and self.leave is not None:
            self.left = True
            self.leave()


class KeptSink:
    """Adds a turn's outputs to its log, and passes them on to `inner` where somebody reads them directly."""

    def __init__(self, log: LiveLog, inner: Sink | None = None) -> None:
        self._log = log
        self._inner = inner

    async def send(self, outputs: Batch) -> None:
        self._log.append(outputs)
        if self._inner is None:
            await trio.lowlevel.checkpoint()
        else:
            await self._inner.send(outputs)
