"""What stands between one turn and the world.

A turn takes its ids and wall time from a context, and reaches providers, tools, the store and its reader
through it. By default a context adds nothing. A recorder puts itself in between, and a replay takes the
world's place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

from msgspec import Struct

from trio_agent.providers.contract import Options, Provider
from trio_agent.statemachine import Candidate, Turn
from trio_agent.statemachine.effects import Effect
from trio_agent.statemachine.events import Event
from trio_agent.statemachine.table import State
from trio_agent.store.contract import TurnStore
from trio_agent.turn.request import TurnRequest
from trio_agent.turn.sink import Sink
from trio_agent.turn.timers import Timers
from trio_agent.turn.toolbox import HostTools, ToolBox
from trio_agent.world import World

Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]


class Queued(Struct, frozen=True):
    """What a request met that asked for a slot. `waited` and `retry_after` are seconds, the latter of a
    refusal."""

    waited: float = 0.0
    refused: bool = False
    retry_after: float = 1.0


class TurnContext:
    """The plain context: nothing stands in between.

    `started_at` is the wall time at which the request was there, in seconds since the epoch. `listens` says
    whether anybody hears what comes in. `last_event`, which the driver sets, makes the event that the
    machine would get if the turn were cancelled now; `busy`, likewise, says whether the turn is at work on
    what came before. `traceparent` is the trace that the request belongs to, where it said so.
    """

    listens = False
    last_event: Callable[[], Event] | None = None
    busy: Callable[[], bool] | None = None
    traceparent: str | None = None

    def __init__(self, world: World) -> None:
        self.world = world
        self.started_at = world.now()

    # --- what comes in, as it comes -------------------------------------------------------------------

    def http_request(self, path: str, headers: Mapping[str, str], body: bytes) -> None:
        """A POST came over HTTP, whole. It may still be refused; then it is no turn."""

    def embedded_request(self, request: TurnRequest, *, parks: bool = False) -> None:
        """This program asked for a turn itself.

        Args:
            parks: whether the turn parks for its caller's tools, rather than wait for them.
        """

    def received(self, state: State, event: Event, effects: Sequence[Effect]) -> None:
        """The machine, which was in `state`, took an event and asked for `effects`; none is performed yet."""

    def freed(self) -> None:
        """The turn has performed what was due, and can take something new."""

    async def calling(self) -> None:
        """The turn's main task is about to make the model call that the machine has asked for."""

    async def failing(self) -> None:
        """The turn's main task is about to tell the machine that the model call has failed."""

    def queued(self, queued: Queued) -> Queued:
        """Whether the request got a slot among the turns that run, and after how long; `queued` is what the
        server found."""
        return queued

    async def kept(self, kind: str, load: Callable[[], Awaitable[bytes | None]]) -> bytes | None:
        """What the server keeps that this request goes on from (JSON), as `load` finds it.

        Args:
            kind: what it is, such as `session`; each is asked for once in a request at most.
        """
        return await load()

    def admitted(self, turn: Turn) -> None:
        """The request has become this turn, or goes on with it."""

    def refused(self, models: Sequence[tuple[str, str]]) -> None:
        """The request is refused, which the store is about to be told. Each of `models`, a provider and a
        model id, might have served it."""

    def leaving(self, event: Event, *, told: bool) -> None:
        """The turn is being cancelled; the machine gets `event`, which says so, once all has stopped.

        Args:
            told: whether the server ends the turn, and the client is told if it still reads.
        """

    def ended_at(self) -> float:
        """Wall time at which the answer was whole, in seconds since the epoch; asked for as it goes out."""
        return self.world.now()

    # --- what the turn reaches out to -----------------------------------------------------------------

    def http(self, send: Send) -> Send:
        """ASGI's `send` for the response."""
        return send

    def sink(self, sink: Sink) -> Sink:
        """The sink of a turn that this program asked for itself, or that runs without a client of its own."""
        return sink

    def providers(self, providers: Mapping[str, Provider]) -> Mapping[str, Provider]:
        return providers

    def options(self, candidate: Candidate, asked: Options, carried: Mapping[str, Options]) -> Options:
        """The options of a call of `candidate`.

        Args:
            asked: those of the request, as the client's wire has them.
            carried: the same as each planned model's wire takes them, by its full name.
        """
        return carried[candidate.origin]

    def tools(self, tools: ToolBox) -> ToolBox:
        return tools

    def host(self, host: HostTools | None) -> HostTools | None:
        return host

    def store(self, store: TurnStore) -> TurnStore:
        return store

    def timers(self) -> Timers:
        return Timers()
