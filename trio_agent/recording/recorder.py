"""The recorder of one agent: gives every request a context that writes down, and puts that into files.

A turn never waits for it. Lines are kept in memory; a worker thread encodes and writes them about once a
second. If the disk cannot take them, the recording breaks off and the turn goes on.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from weakref import WeakSet, WeakValueDictionary

import msgspec
import trio
from msgspec import Struct

from trio_agent.recording.context import TracedContext
from trio_agent.recording.files import Job, Pen, Redact, prepare
from trio_agent.recording.format import SUFFIX, Lost
from trio_agent.recording.header import Headers, Premises
from trio_agent.recording.masking import Masker
from trio_agent.recording.secrets import known_secrets, maskable, names_in_use
from trio_agent.recording.trace import Trace
from trio_agent.statemachine import Turn
from trio_agent.store.contract import TurnRow
from trio_agent.world import World

logger = logging.getLogger("trio_agent.recording")

FLUSH_SECONDS = 1.0
FULL_BYTES = 1 << 20
"""Lines that hold more are written without waiting for the second to pass."""
MAX_BYTES = 64 << 20
"""What the lines of all recordings together may hold in memory while the disk is slow, those that are being
written included; beyond it the largest break off. Encoding goes piece by piece, see `files.PIECE_BYTES`."""
CLOSE_SECONDS = 5.0
LAST_WORDS_SECONDS = 0.5
"""What it may take besides to say in files that their last lines could not be written."""


class Record(Struct, frozen=True):
    """Where to record to.

    `redact` is called with each line (JSON values, see docs/recordings.md) before it is written, in a worker
    thread; it returns what is to be written instead, or `None`. `secrets` are texts to be masked besides the
    keys that the providers know.
    """

    folder: str | os.PathLike[str]
    redact: Redact | None = None
    secrets: tuple[str, ...] = ()


class Recorder:
    """Records every turn of an agent.

    Args:
        record: where to, and what to leave out.

    Raises:
        OSError: the folder cannot be made or written to.
    """

    def __init__(self, record: Record) -> None:
        self._folder = Path(record.folder)
        prepare(self._folder)
        self._told = dict.fromkeys(record.secrets, "record.secrets")
        self._secrets: dict[str, str] = {}
        self._looked_up: list[list[frozenset[str]]] | None = None
        self._pen = Pen(Masker(()), record.redact)
        self._headers: WeakSet[Headers] = WeakSet()
        """Of every configuration that something is recorded under."""
        self._dirty: dict[RecordedContext, None] = {}
        self._held = 0
        """Bytes that wait to be written, as far as the traces have told."""
        self._in_pen = 0
        self._ends: list[tuple[Job, Lost]] = []
        self._unwritten: list[Job] = []
        self._closing = False
        self._made = 0
        self._latest: WeakValueDictionary[str, RecordedContext] = WeakValueDictionary()
        """By turn, who writes its last response."""
        self._one_at_a_time = trio.Lock()
        self._writing = trio.CancelScope()
        self._write_until = math.inf
        self._wake = trio.Event()
        self._full = trio.Event()

    def contexts(self, premises: Premises) -> Callable[[World], RecordedContext]:
        """Makes the contexts of requests that come under a configuration."""
        headers = Headers(premises)
        self._headers.add(headers)
        self._looked_up = None
        self._learn()
        return partial(self.context, headers)

    def context(self, headers: Headers, world: World) -> RecordedContext:
        """The context of a request that has just come."""
        self._made += 1
        return RecordedContext(world, self, headers, self._made)

    async def run(self) -> None:
        """Write what comes. Never returns; cancel it, then `close`."""
        while True:
            await self._wake.wait()
            with trio.move_on_after(FLUSH_SECONDS):
                await self._full.wait()
            self._wake, self._full = trio.Event(), trio.Event()
            await self._flush()

    async def close(self) -> None:
        """Write what is left, what is being written now included: shielded, within five seconds."""
        self._closing = True
        self._write_until = self._writing.deadline = trio.current_time() + CLOSE_SECONDS
        with trio.CancelScope(shield=True):
            await self._flush()
        if self._unwritten:
            logger.warning("the last lines of some recordings could not be written in time")
            why = "the server stopped, and the disk did not keep up"
            with trio.move_on_after(2 * LAST_WORDS_SECONDS, shield=True):
                await trio.to_thread.run_sync(
                    partial(self._pen.give_up, self._unwritten, why, patience=LAST_WORDS_SECONDS),
                    abandon_on_cancel=True,
                )

    def _learn(self) -> None:
        """Ask for the secrets that are known now, for a provider may look one up amid a call.

        One that was known before stays one: what was said under it may be said again.
        """
        looked_up = [
            [mounted.coordinator.secrets for mounted in each.premises.providers.values()]
            for each in self._headers
        ]
        if looked_up == self._looked_up:
            return
        self._looked_up = looked_up
        secrets = dict(self._secrets) | self._told
        names: set[str] = set()
        for each in self._headers:
            secrets |= known_secrets(each.premises.config, each.premises.providers)
            names |= names_in_use(each.premises.config, each.premises.providers)
        good = maskable(secrets, names)
        news = {
            place for secret, place in secrets.items() if secret not in self._secrets and secret not in good
        }
        if news:
            logger.warning(
                "recordings: the secret of %s is too short, or too common a word, to be masked",
                ", ".join(sorted(news)),
            )
        self._secrets = secrets
        self._pen.mask = Masker(good)

    def grew(self, context: RecordedContext) -> None:
        """There is something to write."""
        self._dirty[context] = None
        self._wake.set()
        self._held += context.grown_by()
        if context.trace.size > FULL_BYTES or self._held > MAX_BYTES // 4:
            self._full.set()
        while self._dirty and self._held + self._in_pen > MAX_BYTES:
            self._give_up(max(self._dirty, key=lambda context: context.trace.size))

    def _give_up(self, context: RecordedContext) -> None:
        del self._dirty[context]
        why = "the disk does not keep up"
        if context.job is not None:
            self._ends.append((context.job, Lost(t=context.trace.now(), why=why)))
        self._break_off(context, why)

    def _break_off(self, context: RecordedContext, why: str) -> None:
        context.break_off(why)
        self._held += context.grown_by()

    def job(self, context: RecordedContext, row: TurnRow) -> Job:
        """What to write for a turn, but for its lines."""
        models = context.models or ((row.provider or "", row.served_model or ""),)
        header = msgspec.structs.replace(context.headers.of(row.face, models), start=context.started_at)
        context.follow(self._latest.get(row.id))
        self._latest[row.id] = context
        return Job(self._folder / f"{row.id}{SUFFIX}", header, [])

    async def _flush(self) -> None:
        async with self._one_at_a_time:  # lines of one file must not overtake each other
            self._learn()
            jobs = self._take_jobs()
            held = self._held
            for context, job in jobs:
                job.lines = [*job.lines, *context.trace.take_settled()]
                job.last = self._closing
                self._held += context.grown_by()
            self._in_pen = held - self._held
            ends = [job for job, _ in self._ends if job.failure is None]
            for job, lost in self._ends:
                job.lines, job.waiting = [lost], []
            self._ends.clear()
            todo = [*ends, *(job for _, job in jobs if job.is_unwritten)]
            # What was handed to the thread is not left alone with a task that goes: who comes next would
            # write beside it. Only `close` sets a limit.
            with trio.CancelScope(shield=True, deadline=self._write_until) as self._writing:
                await trio.to_thread.run_sync(self._pen.write, todo, abandon_on_cancel=True)
            self._in_pen = 0
            if self._writing.cancelled_caught:
                self._unwritten += todo  # the thread may still be at them
                return
            for context, job in jobs:
                if job.failure is not None:
                    job.lines, job.waiting = [], []
                    self._break_off(context, job.failure)
                elif job.waiting:
                    self._dirty[context] = None  # for the next time, at the latest when the server stops

    def _take_jobs(self) -> list[tuple[RecordedContext, Job]]:
        """What is to be written now. An earlier response of a turn goes before a later one, which waits until
        the last write of the earlier one is over."""
        dirty, self._dirty = sorted(self._dirty, key=lambda context: context.number), {}
        jobs = []
        for context in dirty:
            if context.waits_for_earlier and not self._closing:
                self._dirty[context] = None
            elif context.job is not None:
                jobs.append((context, context.job))
        return jobs


class RecordedContext(TracedContext):
    """The context of a request while a recorder runs. It becomes a file once it is a turn."""

    def __init__(self, world: World, recorder: Recorder, headers: Headers, number: int) -> None:
        self.number = number
        self.headers = headers
        self._recorder = recorder
        self._earlier: RecordedContext | None = None
        self._lost = False
        self._counted = 0
        self.job: Job | None = None
        self.models: tuple[tuple[str, str], ...] = ()
        trace = Trace(trio.lowlevel.current_clock().current_time, self._grown)
        super().__init__(world, trace, world.new_id("seed_"))

    def admitted(self, turn: Turn) -> None:
        self.models = tuple((each.provider, each.model) for each in turn.spec.candidates)

    def refused(self, models: Sequence[tuple[str, str]]) -> None:
        self.models = tuple(models)

    def follow(self, earlier: RecordedContext | None) -> None:
        """This response continues a turn whose last response `earlier` writes, if it still does."""
        self._earlier = earlier

    @property
    def waits_for_earlier(self) -> bool:
        """Whether the response before this one is still being taken by its client."""
        if self._earlier is not None and not self._earlier.trace.is_writing:
            self._earlier = None
        return self._earlier is not None

    def turn_is(self, row: TurnRow) -> None:
        if not self._lost:
            self.job = self._recorder.job(self, row)
            self._grown()

    def _grown(self) -> None:
        if self.job is not None:
            self._recorder.grew(self)

    def grown_by(self) -> int:
        """Bytes that the trace holds more than when this was last asked."""
        size = self.trace.size
        more, self._counted = size - self._counted, size
        return more

    def break_off(self, why: str) -> None:
        """Record no more of this turn."""
        if self.job is not None:
            logger.warning("the recording %s breaks off: %s", self.job.path.name, why)
        self.job = None
        self._lost = True
        self.trace.stop()
