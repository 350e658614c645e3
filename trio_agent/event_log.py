"""The event log of an answer: its outputs in numbered batches, kept as they come, read from any number on.

One read serves all: who joins an answer that is being made, who comes back to it, and who asks for it when
it is long over. While a turn runs here its log is in memory, which the answer's own bound limits, and goes to
the store behind it. So a reader never holds the turn back. What ends the answer is read only once it is
durable.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

import msgspec
import trio

from trio_agent.statemachine import Turn
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.failure import Problem
from trio_agent.store.contract import StoreError, TurnRow
from trio_agent.store.kept import Keeping, KeptStore, LogEntry, LogRow
from trio_agent.turn.keeper import Guarded, Keeper, joined
from trio_agent.turn.sink import Sink

logger = logging.getLogger("trio_agent.log")

FLUSH_SECONDS: Final = 0.25
"""How far the store may be behind a running turn, but for the time that it takes to write."""
POLL_SECONDS: Final = 0.5
"""How often a log is looked at that another process writes."""
PAGE_ENTRIES: Final = 1000
MOST_LOST: Final = 10_000
TERMINAL: Final[frozenset[type]] = frozenset({fx.Finish, fx.SendError, fx.Reject})
"""The outputs that end an answer. A whole log has one, at its end."""

Batch = Sequence[fx.Output]

encode_batch = msgspec.json.Encoder().encode
decode_batch = msgspec.json.Decoder(list[fx.Output]).decode


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
        self.pending: list[LogEntry] = []
        """The last of them, which are not in the store yet."""
        self.ended = False
        self.sealed = False
        """Whether the store has the whole log: nothing is added to it any more."""
        self.left = False
        """Whether the turn was left because nobody read it any more."""
        self.leave: Callable[[], None] | None = None
        """What ends the turn then."""
        self.readers = 0
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
        self.pending.append(LogEntry(len(self.batches), encode_batch(outputs)))
        self.batches.append(outputs)
        if type(outputs[-1]) in TERMINAL:
            self.end()
        else:
            self._news.unpark_all()

    def seal(self, last: Batch) -> None:
        """The whole log is in the store, with its last batch."""
        self.sealed = True
        self.pending.clear()
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
        while not self.ended:
            entries = tuple(self.pending)
            if not entries:
                await self.changed()
                continue
            try:
                await store.append_log(self.id, entries)
            except StoreError as error:
                logger.warning("the log %s is written at its end only: %s", self.id, error)
                return
            # The turn may have been sealed meanwhile.
            del self.pending[: len(entries)]
            await trio.sleep(FLUSH_SECONDS)

    # --- readers ------------------------------------------------------------------------------------------

    def join(self) -> None:
        self.readers += 1

    def part(self) -> None:
        self.readers -= 1
        if self.readers == 0 and self.cancel_unread and not self.ended and self.leave is not None:
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


class LogKeeper:
    """Opens and ends a turn's log in one transaction with the turn's row.

    Args:
        inner: what else is kept of the turn. It is given the outputs of the log's end: with the one that ends
            the answer, also where nobody was there to be told.
        now: wall time in seconds since the epoch.
    """

    def __init__(self, log: LiveLog, inner: Keeper | None, *, now: Callable[[], float]) -> None:
        self._log = log
        self._inner = None if inner is None else Guarded(inner)
        self._now = now
        self._last: Batch | None = None

    def opening(self, row: TurnRow) -> Keeping | None:
        theirs = None if self._inner is None else self._inner.opening(row)
        return joined(theirs, Keeping(log=self._row(row)))

    def closing(self, turn: Turn, row: TurnRow, rest: Batch, *, parked: bool) -> Keeping | None:
        last = self._ended(row, rest)
        self._log.ended_at = self._now()
        theirs = None if self._inner is None else self._inner.closing(turn, row, last, parked=parked)
        entries = (*self._log.pending, LogEntry(len(self._log.batches), encode_batch(last)))
        self._last = last
        return joined(theirs, Keeping(log=self._row(row, self._log.ended_at), entries=entries))

    def written(self) -> None:
        if self._inner is not None:
            self._inner.written()
        if self._last is None:
            self._log.opened()
        else:
            self._log.seal(self._last)

    def _row(self, row: TurnRow, ended_at: float | None = None) -> LogRow:
        log = self._log
        return LogRow(
            id=log.id,
            owner=log.owner,
            turn_id=row.id,
            face=log.face,
            head=log.head or b"{}",
            created_at=log.created_at,
            ended_at=ended_at,
        )

    def _ended(self, row: TurnRow, rest: Batch) -> Batch:
        """The last batch, which ends the answer as the row has it."""
        whole = row.outcome in ("completed", "parked")
        ends = [each for each in rest if type(each) in TERMINAL and (whole or type(each) is not fx.Finish)]
        said = [each for each in rest if type(each) not in TERMINAL]
        return [*said, ends[-1] if ends else ending(_problem(row), [*self._log.batches, said])]


def _problem(row: TurnRow) -> Problem:
    """What is read of an answer that ended when nobody was there to be told."""
    if row.error is not None:
        return msgspec.convert(row.error, Problem)
    if row.reason == "shutdown":
        return Problem(code="server_shutdown", message="The server is shutting down.")
    return Problem(code="turn_cancelled", message="The turn was cancelled before its answer was complete.")


def ending(problem: Problem, batches: Sequence[Batch]) -> fx.Output:
    """The output that ends an answer with a problem, after these batches."""
    committed = any(type(output) is fx.Commit for batch in batches for output in batch)
    return fx.SendError(problem) if committed else fx.Reject(problem)


class EventLogs:
    """The logs of one agent.

    Args:
        store: where logs are kept.
        now: wall time in seconds since the epoch.
        lifetime: seconds after which an open log that nobody here writes is given up.
    """

    def __init__(self, store: KeptStore, now: Callable[[], float], *, lifetime: float) -> None:
        self.store = store
        self.now = now
        self._lifetime = lifetime
        self._live: dict[str, LiveLog] = {}
        self._lost: dict[str, None] = {}

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
        return row.broken or self.is_given_up(row.id) or self.now() - row.created_at > self._lifetime


BROKEN: Final = Problem(
    code="internal_error", message="The answer broke off in the middle: the server that made it has failed."
)
"""What ends the log of an answer whose server died or lost the store."""


class LogReader:
    """Reads one log, from a number on, to its end. Use it as a context manager: it counts as a reader inside.

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
        self._over = False

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.join()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
            there = [entry for at, entry in enumerate(entries, self._next) if entry.number == at]
            if there:
                return self._decoded(there)
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
        batches: list[Batch] = [decode_batch(entry.data) for entry in entries]
        kinds = {type(output) for batch in batches for output in batch}
        self._read = True
        self._over = not kinds.isdisjoint(TERMINAL)
        self._committed = self._committed or fx.Commit in kinds
        return batches


__all__ = [
    "BROKEN",
    "EventLogs",
    "KeptSink",
    "LiveLog",
    "LogKeeper",
    "LogReader",
    "decode_batch",
    "encode_batch",
]
