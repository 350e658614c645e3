"""The recorder of one agent: gives every request a context that writes down, and puts that into files.

A turn never waits for it. Lines are kept in memory; a worker thread encodes and writes them about once a
second. If the disk cannot take them, the recording breaks off and the turn goes on.
"""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path

import msgspec
import trio
from msgspec import Struct

from trio_agent.recording.context import TracedContext
from trio_agent.recording.files import Job, Pen, Redact, prepare
from trio_agent.recording.format import SUFFIX, Header, Lost
from trio_agent.recording.header import Premises, header_of
from trio_agent.recording.trace import Trace
from trio_agent.statemachine import Turn
from trio_agent.store.contract import TurnRow
from trio_agent.world import World

logger = logging.getLogger("trio_agent.recording")

FLUSH_SECONDS = 1.0
FULL_BYTES = 1 << 20
"""Lines that hold more are written without waiting for the second to pass."""
MAX_BYTES = 64 << 20
"""What all recordings together may hold in memory while the disk is slow, what is being written included;
beyond it the largest break off."""
CLOSE_SECONDS = 5.0
KEPT_HEADERS = 256


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
        premises: what the agent is made of.
        record: where to, and what to leave out.

    Raises:
        OSError: the folder cannot be made or written to.
    """

    def __init__(self, premises: Premises, record: Record) -> None:
        self._premises = premises
        self._folder = Path(record.folder)
        prepare(self._folder)
        known = {secret for mounted in premises.providers.values() for secret in mounted.coordinator.secrets}
        key = premises.config.server.api_key
        self._pen = Pen([*known, *record.secrets, *([key] if key else [])], record.redact)
        self._headers: dict[tuple[str, tuple[tuple[str, str], ...]], Header] = {}
        self._dirty: dict[RecordedContext, None] = {}
        self._held = 0
        """Bytes that wait to be written, as far as the traces have told."""
        self._in_pen = 0
        self._ends: list[tuple[Job, Lost]] = []
        self._one_at_a_time = trio.Lock()
        self._writing = trio.CancelScope()
        self._write_until = math.inf
        self._wake = trio.Event()
        self._full = trio.Event()

    def context(self, world: World) -> RecordedContext:
        """The context of a request that has just come."""
        return RecordedContext(world, self)

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
        self._write_until = self._writing.deadline = trio.current_time() + CLOSE_SECONDS
        with trio.CancelScope(shield=True):
            await self._flush()
        if self._writing.cancelled_caught:
            logger.warning("the last lines of some recordings could not be written in time")

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
        premises = self._headers.get((row.face, models))
        if premises is None:
            premises = header_of(self._premises, face=row.face, models=models)
            if len(self._headers) < KEPT_HEADERS:
                self._headers[row.face, models] = premises
        header = msgspec.structs.replace(premises, start=context.started_at)
        return Job(self._folder / f"{row.id}{SUFFIX}", header, [], begun=False)

    async def _flush(self) -> None:
        async with self._one_at_a_time:  # lines of one file must not overtake each other
            dirty, self._dirty = self._dirty, {}
            jobs = [(context, context.job) for context in dirty if context.job is not None]
            held = self._held
            for context, job in jobs:
                job.lines = context.trace.take_settled()
                self._held += context.grown_by()
            self._in_pen = held - self._held
            ends = [job for job, _ in self._ends if job.failure is None]
            for job, lost in self._ends:
                job.lines = [lost]
            self._ends.clear()
            # What was handed to the thread is not left alone with a task that goes: who comes next would
            # write beside it. Only `close` sets a limit.
            with trio.CancelScope(shield=True, deadline=self._write_until) as self._writing:
                await trio.to_thread.run_sync(
                    self._pen.write, [*ends, *(job for _, job in jobs if job.lines)], abandon_on_cancel=True
                )
            self._in_pen = 0
            for context, job in jobs:
                job.lines = []
                if job.failure is not None:
                    self._break_off(context, job.failure)


class RecordedContext(TracedContext):
    """The context of a request while a recorder runs. It becomes a file once it is a turn."""

    def __init__(self, world: World, recorder: Recorder) -> None:
        self._recorder = recorder
        self._lost = False
        self._counted = 0
        self.job: Job | None = None
        self.models: tuple[tuple[str, str], ...] = ()
        super().__init__(world, Trace(trio.current_time, self._grown), world.new_id("seed_"))

    def admitted(self, turn: Turn) -> None:
        self.models = tuple((each.provider, each.model) for each in turn.spec.candidates)

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
