"""Where a replayed turn plays: the recorder listens, and the file stands in the world's place.

The lines of a replay are the recorder's own. What the player feeds it logs itself, so that an input stands
where it was fed; the recorder's echo of it is then no news.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio
from msgspec import Struct

from trio_agent.providers.contract import Options
from trio_agent.providers.http_tap import ScriptedTransport
from trio_agent.recording import format as lines
from trio_agent.recording.calls import TracedCall
from trio_agent.recording.context import TracedContext
from trio_agent.recording.format import AnyInput
from trio_agent.recording.trace import Line, RawData, Trace
from trio_agent.replay.inbox import Inbox
from trio_agent.replay.result import Moment, What
from trio_agent.replay.successor import Successor
from trio_agent.replay.timers import PlayedTimers
from trio_agent.replay.upstream import CallScript
from trio_agent.statemachine import Candidate, Turn
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.events import Timer
from trio_agent.statemachine.table import State
from trio_agent.turn.context import Queued, Send
from trio_agent.turn.sink import Sink
from trio_agent.turn.timers import Timers
from trio_agent.world import World

if TYPE_CHECKING:
    import httpx

# What only the file can bring in: the recorder's line for it repeats one that was fed.
_ONLY_FED: Final = (
    RawData, lines.Request, lines.Embedded, lines.Head, lines.Data, lines.End, lines.Broke, lines.Events,
    lines.CallEnded, lines.ToolReturned, lines.HostReturned, lines.Found, lines.StoreFailed, lines.Hold,
)  # fmt: skip


class Noted(Struct):
    """A line of the replay. `number` is its place in the file, if it is one of the file's inputs."""

    line: Line
    state: str
    number: int | None = None


class Stage(Trace):
    """The trace of a whole replay, over all responses and restarts.

    Args:
        start: wall time of `t = 0`, in seconds since the epoch.
        by_file: whether timers fire when the file says so.
    """

    def __init__(self, start: float, *, by_file: bool) -> None:
        super().__init__(trio.current_time)
        self._wall = start
        self._by_file = by_file
        self._echoes: Counter[object] = Counter()
        self.begun = trio.current_time()
        self.inbox = Inbox()
        self.turn: Turn | None = None
        self.timers: list[PlayedTimers] = []
        self.noted: list[Noted] = []
        self.moments: list[Moment] = []
        self.interrupted: Callable[[], bool] = lambda: False
        """Whether the file's next line comes before anything more is written."""
        self.claimed: Callable[[object], int | None] = lambda echo: None
        """The number of the file's next line if it says what happened just now of itself; it is then fed."""
        self.too_early: Callable[[], bool] = lambda: False
        """Whether the file has something else happen before the next model call is made."""
        self.turn_ends: Callable[[], float] = lambda: inf
        """When the file has the turn run out of time, on Trio's clock."""
        self.outputs = 0
        """How many lines went out since a line of the file was fed."""
        self._writable = trio.Event()
        self._writers = 0
        self._noted_one = trio.Event()
        self._callers = 0
        self._let = False
        self.seed = ""
        self.queued = Queued()
        self.kept: dict[str, Any] = {}
        """What the file says that the server kept for the latest request, by kind."""
        self.calls: list[TracedCall] = []
        """The model calls of the responses that run."""
        self.contexts: list[PlayedContext] = []
        """Those of all requests so far."""
        self.before: str | None = None
        """The state that the machine was in before the event that is being written down."""
        self.successor: Successor | None = None
        """The model that the next call and all later ones go to, if it is another one."""
        self.closed = False
        """Whether the replay is over: what happens while it is cleared away is no part of it."""

    # --- the world -------------------------------------------------------------------------------------

    def wall(self) -> float:
        """Wall time in seconds since the epoch."""
        return self._wall + (trio.current_time() - self.begun)

    def context(self, world: World) -> PlayedContext:
        return PlayedContext(world, self, self.seed)

    def renumber(self) -> None:
        """Number model calls and the store's operations anew, as the recorder does for each response."""
        self._calls = 0
        self._operations.clear()
        self.calls.clear()

    @property
    def made(self) -> int:
        """How many model calls have been made in the responses that run."""
        return self._calls

    def new_timers(self) -> PlayedTimers:
        self.timers = [each for each in self.timers if each.running]
        timers = PlayedTimers(by_file=self._by_file, end=lambda: self.turn_ends())
        self.timers.append(timers)
        return timers

    def has_finished(self, call: int) -> bool:
        """Whether a call has said all."""
        return any(each.number == call and each.finished for each in self.calls)

    @property
    def state(self) -> str:
        """The machine's state; the last turn's, where there were several."""
        return "new" if self.turn is None else self.turn.state.value

    # --- lines -------------------------------------------------------------------------------------------

    def feed(self, line: AnyInput, number: int) -> None:
        """Log a line of the file where it is fed."""
        echo = echo_of(line)
        if echo is not None:
            self._echoes[echo] += 1
        if isinstance(line, lines.Hold):
            self.held = True
        elif isinstance(line, lines.Release):
            self.held = False
        for context in self.contexts:
            context.freed()
        self._note(line, number)
        self.outputs = 0

    async def written(self) -> None:
        """Return when a write, to the client or the store, may be done.

        Where the file has something happen amid the write, that happens first.
        """
        while self.interrupted():
            self._writers += 1
            try:
                await self._writable.wait()
            finally:
                self._writers -= 1

    @property
    def writes(self) -> bool:
        """Whether anything waits to be written."""
        return self._writers > 0

    def let_write(self) -> bool:
        """Let what waits be written, when all that the file's latest line caused has happened; False if
        nothing does, or another line comes first."""
        if not self._writers or self.interrupted():
            return False
        self._wake_writers()
        return True

    def _wake_writers(self) -> None:
        self._writable.set()
        self._writable = trio.Event()

    async def call_turn(self) -> None:
        """Return when a model call may be made."""
        self._callers += 1
        try:
            while self.too_early() and not self._let:
                await self._noted_one.wait()
        finally:
            self._callers -= 1
            self._let = False

    def let_call(self) -> bool:
        """Let a model call be made that waits, for nothing else will come; False if there is none."""
        self._let = self._callers > 0
        self._wake_callers()
        return self._let

    def _wake_callers(self) -> None:
        self._noted_one.set()
        self._noted_one = trio.Event()

    def start(self, at: float) -> None:
        """The file's zero stays where it is, however many turns begin."""

    def add(self, line: Line, size: int = 0) -> None:
        if isinstance(line, _ONLY_FED):
            return
        echo = echo_of(line)
        if echo is not None and self._echoes[echo]:
            self._echoes[echo] -= 1
            return
        number = None if echo is None else self.claimed(echo)
        self._note(line, number)
        if number is not None:
            self.outputs = 0

    def begin_write(self, line: Line, size: int) -> None:
        self._note(line, None)

    def end_write(self) -> None:
        """A write that was begun counts."""

    def tear_write(self) -> None:
        """Whether the client takes anything is the file's to say."""

    def _note(self, line: Line, number: int | None) -> None:
        if self.closed:
            return
        what: What = "in" if isinstance(line, lines.Input) else "out"
        state = self.before if what == "in" and self.before is not None else self.state
        self.outputs += what == "out"
        self.noted.append(Noted(line, state, number))
        self.moments.append(Moment(self.now(), state, what, line))
        if self._callers:
            self._wake_callers()

    def calling(self, turn: Turn, start: fx.StartCall) -> None:
        """The machine has asked for a model call, which is not made yet."""
        if self.successor is not None:
            turn.hand_over(self.successor.candidate)

    def heard(self, state: State, event: ev.Event, effects: Sequence[fx.Effect]) -> None:
        if self.closed:
            return
        now = self.now()
        self.moments.append(Moment(now, state.value, "event", event))
        self.moments += [Moment(now, self.state, "effect", effect) for effect in effects]


def echo_of(line: object) -> object:
    """What a line is recognised by when the recorder repeats it; `None` for what it never does."""
    match line:
        case lines.TimerFired(timer=timer):
            return "timer", timer
        case lines.Disconnect(reason=reason) | lines.Stop(reason=reason):
            return type(line), reason
        case _:
            return None


class PlayedContext(TracedContext):
    """A recorder's context in which the file answers."""

    def __init__(self, world: World, stage: Stage, seed: str) -> None:
        super().__init__(world, stage, seed)
        self._stage = stage
        stage.contexts.append(self)

    async def calling(self) -> None:
        await self._stage.call_turn()

    async def failing(self) -> None:
        if self._call is not None and self._call.closed_itself:
            await self._stage.written()

    def upstream(self, inner: httpx.AsyncBaseTransport, call: TracedCall) -> httpx.AsyncBaseTransport:
        del inner
        return ScriptedTransport(CallScript(self._stage.inbox, call))

    def begin_call(self, call: TracedCall) -> None:
        super().begin_call(call)
        self._stage.calls.append(call)
        if self._stage.successor is not None:
            # The machine may have set this timer before it was handed over.
            for timers in self._stage.timers:
                timers.set(Timer.STALL, self._stage.successor.candidate.first_byte_timeout)

    async def kept(self, kind: str, load: Callable[[], Awaitable[bytes | None]]) -> bytes | None:
        told = self._stage.kept.get(kind)
        return await load() if told is None else msgspec.json.encode(told)

    def queued(self, queued: Queued) -> Queued:
        told = self._stage.queued
        return self._note_queued(queued if queued.refused and not told.refused else told)

    def http(self, send: Send) -> Send:
        traced = super().http(send)

        async def played(message: dict[str, Any]) -> None:
            await self._stage.written()
            await traced(message)

        return played

    def sink(self, sink: Sink) -> Sink:
        return _PlayedSink(super().sink(sink), self._stage)

    def timers(self) -> Timers:
        return self._stage.new_timers()

    def options(self, candidate: Candidate, asked: Options, carried: Mapping[str, Options]) -> Options:
        successor = self._stage.successor
        if successor is not None and candidate == successor.candidate:
            return successor.options(asked)
        return super().options(candidate, asked, carried)

    def admitted(self, turn: Turn) -> None:
        super().admitted(turn)
        self._stage.turn = turn

    def received(self, state: State, event: ev.Event, effects: Sequence[fx.Effect]) -> None:
        self._stage.before = state.value
        super().received(state, event, effects)
        self._stage.before = None
        self._stage.heard(state, event, effects)
        for effect in effects:
            if type(effect) is fx.StartCall and self._stage.turn is not None:
                self._stage.calling(self._stage.turn, effect)


class _PlayedSink:
    """The sink of an embedded turn, in which the file may have something happen amid a write."""

    def __init__(self, inner: Sink, stage: Stage) -> None:
        self._inner = inner
        self._stage = stage

    async def send(self, outputs: Sequence[fx.Output]) -> None:
        await self._stage.written()
        await self._inner.send(outputs)
