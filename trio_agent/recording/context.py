"""A turn's context that writes down what comes in and what goes out, in the order in which the turn takes it.

What arrives while the turn is busy waits for it, and so does its line: lines stand in the order in which the
machine was told, not in that of arrival. That order is what a replay repeats.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from trio_agent.providers.contract import Provider
from trio_agent.recording import format as lines
from trio_agent.recording.calls import TracedCall, TracedProviders
from trio_agent.recording.plain import plain
from trio_agent.recording.sinks import TracedSink, traced_send
from trio_agent.recording.stores import TracedStore
from trio_agent.recording.trace import Line, Trace
from trio_agent.statemachine import Turn
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.table import State
from trio_agent.store.contract import TurnRow, TurnStore
from trio_agent.turn.context import Queued, Send, TurnContext
from trio_agent.turn.request import TurnRequest
from trio_agent.turn.sink import Sink
from trio_agent.turn.timers import ENDING
from trio_agent.turn.upstream import CALL_EVENTS
from trio_agent.world import SeededWorld, World

if TYPE_CHECKING:
    import httpx

KEPT_HEADERS: Final = (
    "accept",
    "anthropic-beta",
    "anthropic-version",
    "content-type",
    "session-id",
    "user-agent",
    "x-claude-code-session-id",
    "x-client-session-id",
    "x-preflight-timeout",
    "x-session-id",
    "x-tool-progress",
)
"""The request headers that a face looks at, besides those that hold keys. No other one is recorded."""

_TOLD_EFFECTS: Final = frozenset({fx.RunTool, fx.CallHost, fx.StopCall})
_ENDS: Final = frozenset({fx.Finish, fx.SendError})
_LAST_TIMERS: Final = frozenset(ev.TIMER_EVENTS[timer] for timer in ENDING)
_TIMERS: Final[dict[type, str]] = {kind: timer.value for timer, kind in ev.TIMER_EVENTS.items()}


class TracedContext(TurnContext):
    """A context that fills a trace.

    Args:
        world: gives wall time; ids and seeds follow from `seed`.
        trace: where lines go; one for all responses of a turn in a replay, one for each in a recording.
        seed: a text that no other request has.
    """

    listens = True

    def __init__(self, world: World, trace: Trace, seed: str) -> None:
        super().__init__(SeededWorld(seed, world.now))
        self.trace = trace
        self.seed = seed
        self._request: lines.Request | lines.Embedded | None = None
        self._call: TracedCall | None = None
        self._stopping = False
        self.is_leaving = False
        """Whether the turn is being cancelled."""
        self._out_of_time = False
        """Whether the machine was told of the end of its time. That it is left on that account is no news."""
        self._store: TracedStore | None = None
        self._begun = self._ended = 0.0
        self._aside: list[tuple[Line, int]] = []
        """What happened beside the turn while it was at work: it stands behind what the turn did."""

    def upstream(self, inner: httpx.AsyncBaseTransport, call: TracedCall) -> httpx.AsyncBaseTransport:
        """What really answers a call's requests: the provider's own transport."""
        del call
        return inner

    def turn_is(self, row: TurnRow) -> None:
        """The turn's row is about to be written for the first time."""

    # --- what comes in ------------------------------------------------------------------------------

    def http_request(self, path: str, headers: Mapping[str, str], body: bytes) -> None:
        kept = {name: headers[name] for name in KEPT_HEADERS if name in headers}
        self._asked(
            lines.Request(
                t=self.trace.now(), path=path, headers=kept, body=msgspec.Raw(body), seed=self.seed
            ),
            len(body),
        )

    def embedded_request(self, request: TurnRequest, *, parks: bool = False) -> None:
        line = lines.Embedded(t=self.trace.now(), request=plain(request), seed=self.seed, parks=parks)
        self._asked(line, 1000)

    def _asked(self, line: lines.Request | lines.Embedded, size: int) -> None:
        self._request = line
        self.trace.add(line, size)

    async def kept(self, kind: str, load: Callable[[], Awaitable[bytes | None]]) -> bytes | None:
        data = await load()
        if data is not None:
            value = {kind: msgspec.json.decode(data)}
            self.trace.add(lines.Found(t=self.trace.now(), kept=value), len(data))
        return data

    def queued(self, queued: Queued) -> Queued:
        if queued.waited:
            # A replay has nobody to wait for.
            self.trace.start(trio.current_time())
        return self._note_queued(queued)

    def _note_queued(self, queued: Queued) -> Queued:
        request = self._request
        if request is not None:
            request.waited, request.full = queued.waited, queued.refused
            request.retry_after = queued.retry_after
        return queued

    def received(self, state: State, event: ev.Event, effects: Sequence[fx.Effect]) -> None:
        del state
        if self._aside:
            self.freed()
        kind = type(event)
        if kind is ev.TextDelta:  # as most are; what it asks for is not told here
            call = self._call
            if call is not None and call.waiting:
                call.flush()
            return
        if kind in CALL_EVENTS:
            call = self._call
            if call is not None:
                if call.waiting:
                    call.flush()
                if kind is ev.CallFinished:
                    call.finished = True
        else:
            self._note(event)
        for effect in effects:
            if type(effect) in _TOLD_EFFECTS:
                self._note_effect(effect)
            elif type(effect) in _ENDS:
                self._ended = self.trace.now()

    def ended_at(self) -> float:
        # How long the store takes to write the outcome differs between a turn and its replay.
        return self.started_at + self._ended - self._begun

    def note_aside(self, line: Line, size: int = 200) -> None:
        """Write down what happens in a model call's own time, which the turn may be too busy to see."""
        if self.busy is not None and self.busy():
            self._aside.append((line, size))
        else:
            self.trace.add(line, size)

    def freed(self) -> None:
        if self._aside:
            for line, size in self._aside:
                self.trace.add(line, size)
            self._aside.clear()

    def _note(self, event: ev.Event) -> None:
        trace = self.trace
        match event:
            case ev.Begin(at) | ev.Resume(at=at):
                # So that times which the machine compares are the same in a replay.
                trace.start(at)
                self._begun = trace.now()
            case ev.CallFailed():
                if self._call is not None:
                    self._call.flush()
                    self._call.failed = True
            case ev.ToolFinished(result, at):
                trace.add(lines.ToolReturned(t=trace.since(at), result=plain(result)))
            case ev.HostToolsReturned(results, at):
                for result in results:
                    trace.add(lines.HostReturned(t=trace.since(at), result=plain(result)))
            case ev.Cancel(reason) if not self.is_leaving:
                self.leaving(event, told=reason != "client_disconnected")
            case ev.Cancel() | ev.ServerFailed():
                pass
            case _ if type(event) in _TIMERS and not self.is_leaving:
                self._out_of_time = type(event) in _LAST_TIMERS
                trace.add(lines.TimerFired(t=trace.now(), timer=_TIMERS[type(event)]))
            case _:
                pass

    def _note_effect(self, effect: fx.Effect) -> None:
        trace = self.trace
        match effect:
            case fx.RunTool(call):
                trace.add(lines.ToolStarted(t=trace.now(), tool_call=plain(call)))
            case fx.CallHost(calls):
                trace.add(lines.HostAsked(t=trace.now(), calls=[plain(call) for call in calls]))
            case _:
                self._stopping = True
                if self._call is not None:
                    self._call.stop()

    def leaving(self, event: ev.Event, *, told: bool) -> None:
        if self.is_leaving:
            return
        self.is_leaving = True
        self.freed()
        trace = self.trace
        match event:
            case ev.Cancel(reason) if told:
                trace.add(lines.Stop(t=trace.now(), reason=reason))
            case ev.Cancel(reason):
                trace.add(lines.Disconnect(t=trace.now(), reason=reason))
            case _ if type(event) in _TIMERS and not self._out_of_time:
                trace.add(lines.TimerFired(t=trace.now(), timer=_TIMERS[type(event)]))
            case _:
                pass
        if self._call is not None:
            left = isinstance(event, ev.Cancel) and event.reason == "client_disconnected"
            self._call.leave(drain=left and not told)

    def left_early(self) -> bool:
        """Whether there is no turn yet, so that whoever leaves cuts short what is asked of the store."""
        if self.last_event is not None:
            return False
        self.leaving(ev.Cancel("client_disconnected", trio.current_time()), told=False)
        return True

    # --- model calls --------------------------------------------------------------------------------

    def providers(self, providers: Mapping[str, Provider]) -> Mapping[str, Provider]:
        return TracedProviders(providers, self)

    def begin_call(self, call: TracedCall) -> None:
        self._call = call
        self._stopping = False

    def is_cancelled(self) -> bool:
        """Whether the call that is being closed is cancelled; if the machine has not asked for that, the turn
        is being left."""
        if trio.current_effective_deadline() != -math.inf:
            return False
        if not self._stopping and self.last_event is not None:
            self.leaving(self.last_event(), told=False)
        return True

    # --- the rest of the world ------------------------------------------------------------------------

    def http(self, send: Send) -> Send:
        return traced_send(send, self.trace)

    def sink(self, sink: Sink) -> Sink:
        return TracedSink(sink, self.trace)

    def store(self, store: TurnStore) -> TurnStore:
        if self._store is None:
            self._store = TracedStore(store, self.trace, self.turn_is, self.left_early)
        return self._store

    def admitted(self, turn: Turn) -> None:
        """Nothing to write down: the turn's first event follows."""
