"""Where a forked turn plays: first the file stands in the world's place, then the world itself is there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, cast

import trio

from trio_agent.errors import AgentError
from trio_agent.providers.contract import (
    CallLimits,
    ModelInfo,
    Options,
    Provider,
    ProviderInfo,
    ProviderRequest,
    ProviderResponse,
)
from trio_agent.recording import format as lines
from trio_agent.recording.calls import TracedCall, TracedProvider
from trio_agent.recording.trace import Line
from trio_agent.replay.fork_border import Border
from trio_agent.replay.fork_clock import ForkClock
from trio_agent.replay.stage import Noted, PlayedContext, Stage
from trio_agent.replay.successor import Successor
from trio_agent.statemachine import Candidate, Turn
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.events import CallEvent, Timer
from trio_agent.statemachine.table import State
from trio_agent.turn.toolbox import ToolBox
from trio_agent.world import World

if TYPE_CHECKING:
    import httpx


class ForkStage(Stage):
    """The trace of a fork. `live` is set at its border; from there on the recorder's lines are all there is.

    Args:
        start: wall time of `t = 0`, in seconds since the epoch; it goes on from there.
        heir: the model that takes over.
        tell: called with the text of the answer, as it comes, once the fork is live.
    """

    def __init__(
        self,
        start: float,
        *,
        by_file: bool,
        border: Border,
        heir: Successor,
        tell: Callable[[str], None],
    ) -> None:
        super().__init__(start, by_file=by_file)
        self.live = False
        self.heir = heir
        self.stopped = trio.Event()
        """Set when the fork cannot go on, or need not, although the turn has not ended."""
        self.refusal: AgentError | None = None
        """Why nothing was sent to the heir."""
        self.why: str | None = None
        """Why the fork was stopped, where that is a failure."""
        self.live_from = 0
        self.live_since = 0.0
        self._border = border
        self._tell = tell
        self._calls_asked = 0
        self._held_until_live: list[trio.CancelScope] = []
        self._make_tools: Callable[[ToolBox], ToolBox] = lambda tools: tools

    # --- the border ------------------------------------------------------------------------------------

    @property
    def reached(self) -> bool:
        """Whether all that is played of the file has been played."""
        wanted = self._border.inputs
        return wanted is not None and sum(isinstance(each.line, lines.Input) for each in self.noted) >= wanted

    def go_live(self) -> None:
        """Let time be real from here on, and the heir take over."""
        if self.live:
            return
        clock = trio.lowlevel.current_clock()
        if not isinstance(clock, ForkClock):
            raise RuntimeError("a fork runs on a ForkClock")
        self._note_fork()
        self.live = True
        self.live_from = len(self.moments)
        self.live_since = trio.current_time()
        self.successor = self.heir
        self.interrupted = self.too_early = lambda: False
        self._wake_writers()
        self._wake_callers()
        clock.go_on()
        for timers in self.timers:
            timers.go_live()
        for scope in self._held_until_live:
            scope.cancel()

    def _note_fork(self) -> None:
        """Put the line `fork` where a replay must know of it: before what led to the first live call.

        That is the latest line that came in: a call that had ended would have one of its own behind it.
        """
        place = next(at for at in reversed(range(len(self.noted))) if _is_cause(self.noted[at].line))
        line = lines.Forked(t=self.noted[place].line.t, model=self.heir.candidate.origin)
        self.noted.insert(place, Noted(line, self.state))

    def calling(self, turn: Turn, start: fx.StartCall) -> None:
        self._calls_asked += 1
        if self._calls_asked >= self._border.call:
            self.go_live()
        super().calling(turn, start)

    @contextmanager
    def until_live(self, scope: trio.CancelScope) -> Iterator[None]:
        """Cancel `scope` when the fork goes live amid the block."""
        self._held_until_live.append(scope)
        try:
            yield
        finally:
            self._held_until_live.remove(scope)

    def end_early(self, why: str | None) -> None:
        """End the fork before its turn has ended."""
        self.why = self.why or why
        self.stopped.set()

    # --- what comes and goes ------------------------------------------------------------------------------

    def context(self, world: World) -> PlayedContext:
        return ForkContext(world, self, self.seed)

    def with_tools(self, make: Callable[[ToolBox], ToolBox]) -> None:
        """Say what turns get for the server's tools."""
        self._make_tools = make

    def tools(self, tools: ToolBox) -> ToolBox:
        return self._make_tools(tools)

    def add(self, line: Line, size: int = 0) -> None:
        if self.live:
            self._note(line, None)
        else:
            super().add(line, size)

    def heard(self, state: State, event: ev.Event, effects: Sequence[fx.Effect]) -> None:
        super().heard(state, event, effects)
        if not self.live:
            return
        for effect in effects:
            match effect:
                case fx.SendText(text) | fx.SendRefusal(text):
                    self._tell(text)
                case fx.CallHost():
                    self.end_early(None)
                case _:
                    pass


def _is_cause(line: Line) -> bool:
    """Whether a line makes the machine do something by itself; what is found belongs to its request."""
    return isinstance(line, lines.Input) and not isinstance(line, lines.Found | lines.StoreFailed)


class ForkContext(PlayedContext):
    """A context in which the file answers up to the border, and the world after it."""

    def __init__(self, world: World, stage: ForkStage, seed: str) -> None:
        super().__init__(world, stage, seed)
        self._fork = stage

    def upstream(self, inner: httpx.AsyncBaseTransport, call: TracedCall) -> httpx.AsyncBaseTransport:
        return inner if self._fork.live else super().upstream(inner, call)

    def providers(self, providers: Mapping[str, Provider]) -> Mapping[str, Provider]:
        heir = self._fork.heir
        name = heir.candidate.provider
        traced = dict(super().providers(providers))
        traced[name] = _Relay(self._fork, traced.get(name), TracedProvider(name, heir.provider, self))
        return traced

    def begin_call(self, call: TracedCall) -> None:
        super().begin_call(call)
        if self._fork.live:
            # The machine set this timer before it was known who would be called.
            for timers in self._fork.timers:
                timers.set(Timer.STALL, self._fork.heir.candidate.first_byte_timeout)

    def options(self, candidate: Candidate, asked: Options, carried: Mapping[str, Options]) -> Options:
        try:
            return super().options(candidate, asked, carried)
        except AgentError as error:
            self._fork.refusal = error
            return asked

    def tools(self, tools: ToolBox) -> ToolBox:
        return self._fork.tools(super().tools(tools))


class _Relay(Provider):
    """Whoever is called by the heir's provider's name: before the border perhaps one of the file's.

    A request that the heir cannot carry is not sent; the fork ends.
    """

    def __init__(self, stage: ForkStage, before: Provider | None, after: Provider) -> None:
        self.name = after.name
        self._stage = stage
        self._before = before
        self._after = after

    @property
    def _current(self) -> Provider:
        return self._after if self._stage.live or self._before is None else self._before

    @property
    def limits(self) -> CallLimits:  # type: ignore[override]
        return self._current.limits

    def get_info(self) -> ProviderInfo:
        return self._current.get_info()

    async def list_models(self) -> list[ModelInfo]:
        return await self._current.list_models()

    async def complete(self, request: ProviderRequest) -> ProviderResponse:
        return await self._current.complete(request)

    def check(self, request: ProviderRequest) -> None:
        self._current.check(request)

    async def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[CallEvent], None]:
        if self._stage.live:
            await self._check(request)
        batches = cast("AsyncGenerator[Sequence[CallEvent], None]", self._current.stream(request))
        async with aclosing(batches):
            async for batch in batches:
                yield batch

    async def _check(self, request: ProviderRequest) -> None:
        stage = self._stage
        if stage.turn is not None and stage.refusal is None:
            try:
                stage.heir.check(request, stage.turn)
            except AgentError as error:
                stage.refusal = error
        if stage.refusal is not None:
            stage.end_early(None)
            await trio.sleep_forever()


__all__ = ["ForkStage"]
