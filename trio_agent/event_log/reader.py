"""Reading a log, whether its answer is being made here or is long over."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import trio

from trio_agent.event_log.batches import BROKEN, TERMINAL, Batch, batches_of
from trio_agent.event_log.live import LiveLog
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.failure import Problem
from trio_agent.store.contract import StoreError
from trio_agent.store.kept import LogEntry, LogRow
from trio_agent.turn.sink import Sink

if TYPE_CHECKING:
    from trio_agent.event_log.registry import EventLogs

POLL_SECONDS: Final = 0.5
"""How often a log is looked at that another process writes."""
PAGE_ENTRIES: Final = 100


class LogReader:
    """Reads one log, from a number on, to its end. Use it as a context manager: it counts as a reader inside,
    for whoever makes the answer.

    Whatever happened, the last output that it gives ends the answer. Where the log has none, since its server
    died, or cannot be read on, it is a `SendError`, or a `Reject` where the answer was not committed before.
    """

    def __init__(self, logs: EventLogs, log: LiveLog | LogRow, start: int) -> None:
        self._logs = logs
        self._live = log if isinstance(log, LiveLog) else None
        self._row = log if isinstance(log, LogRow) else None
        self._next = start
        self._committed = start > 0
        self._read = start == 0
        self._held = ExitStack()
        self._over = False

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.join()
        elif self._row is not None and self._row.ended_at is None:
            holds = self._logs.holds
            holds.announce(self._held.enter_context(holds.held(self._row.owner, self._row.id)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()
        if self._live is not None:
            self._live.part()

    @property
    def head(self) -> bytes:
        """What the answer's face needs to write it."""
        if self._live is not None:
            return self._live.head or b"{}"
        return b"{}" if self._row is None else self._row.head

    @property
    def ended_at(self) -> float:
        """When the answer ended, in seconds since the epoch: the same whoever reads it, and whenever.

        Known from the last output on. Before that, and where a log broke off, it is the time that it is now.
        """
        log = self._live or self._row
        return self._logs.now() if log is None or log.ended_at is None else log.ended_at

    async def next(self) -> list[Batch] | None:
        """The batches that there are, once there are some; `None` at the end.

        A cancellation takes none of them away.

        Raises:
            StoreError: the store is out of reach, and the answer was not committed in what was read.
        """
        if self._over:
            await trio.lowlevel.checkpoint()
            return None
        try:
            batches = await (self._of_live(self._live) if self._row is None else self._stored(self._row))
        except StoreError as error:
            if not self._committed:
                raise
            # Whoever writes this to a client has sent the status already.
            self._over = True
            batches = [[fx.SendError(Problem(code="store_unavailable", message=str(error)))]]
        self._next += len(batches)
        return batches or None

    async def copy_to(self, sink: Sink) -> None:
        """Hand all batches on, one write for each.

        Raises:
            StoreError: the store is out of reach, and nothing that commits the answer was handed on.
        """
        while (batches := await self.next()) is not None:
            for batch in batches:
                await sink.send(batch)

    async def _of_live(self, log: LiveLog | None) -> list[Batch]:
        if log is None:
            raise AssertionError("a reader reads a log that lives, or one that is stored")
        await trio.lowlevel.checkpoint()
        while len(log.batches) <= self._next and not log.ended:
            await log.changed()
        self._over = log.ended
        return log.batches[self._next :]

    async def _stored(self, row: LogRow) -> list[Batch]:
        store = self._logs.store
        while True:
            entries = await store.read_log(row.id, self._next, limit=PAGE_ENTRIES)
            there = self._decoded(entries)
            if there:
                return there
            if entries or self._logs.is_broken(row):
                break
            if row.ended_at is not None:
                if not self._read:
                    self._over = True  # it was over before the place where reading began
                    return []
                break
            await trio.sleep(POLL_SECONDS)
            # First the row: if it says that the log has ended, the entries read after it are the last ones.
            newer = await store.find_log(row.owner, row.id)
            if newer is None:
                break
            self._row = row = newer
        self._over = True
        return [[fx.SendError(BROKEN) if self._committed else fx.Reject(BROKEN)]]

    def _decoded(self, entries: Sequence[LogEntry]) -> list[Batch]:
        """The batches from the next one on, up to a gap."""
        batches = batches_of(entries, self._next)
        if batches:
            kinds = {type(output) for batch in batches for output in batch}
            self._read = True
            self._over = not kinds.isdisjoint(TERMINAL)
            self._committed = self._committed or fx.Commit in kinds
        return batches
