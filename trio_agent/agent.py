"""A running agent: it lets turns in, runs them, and goes by one configuration after another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from copy import copy
from typing import Any

import trio

from trio_agent.admission import Admitted
from trio_agent.boot import House
from trio_agent.cancelling import Cancelling
from trio_agent.config.schema import Config
from trio_agent.embedding import LiveTurn, live_turn
from trio_agent.errors import shutting_down
from trio_agent.event_log import EventLogs, LiveLog
from trio_agent.generations import ContextsFor, Generation, plain_contexts
from trio_agent.in_flight import InFlightTurns
from trio_agent.observing.last_calls import LastCalls
from trio_agent.observing.live_metrics import watch_configuration, watch_queue, watch_turns
from trio_agent.observing.log import TurnLog
from trio_agent.observing.metrics import Metrics
from trio_agent.observing.samples import QUESTION as METRICS
from trio_agent.observing.samples import encoded
from trio_agent.peers import Alone, Peers
from trio_agent.providers.contract import Options
from trio_agent.providers.directory import ModelDirectory, ModelRef
from trio_agent.providers.registry import MountedProvider
from trio_agent.queueing import Slot, TurnSlots
from trio_agent.reloading import Reload, Reloading
from trio_agent.running import RunningTurns, StartedTurn
from trio_agent.statemachine.conversation import Message
from trio_agent.statemachine.events import CancelReason
from trio_agent.statemachine.money import Price
from trio_agent.store.contract import Store, TurnRow
from trio_agent.store.owed_outcomes import OwedOutcomes
from trio_agent.token_count import TokenCount
from trio_agent.tools.host import HostCallables
from trio_agent.turn.context import TurnContext
from trio_agent.turn.keeper import Keeper
from trio_agent.turn.observer import Observers, TurnObserver
from trio_agent.turn.request import TurnRequest
from trio_agent.turn.sink import Sink
from trio_agent.turn.toolbox import HostTools
from trio_agent.world import World


class _Door:
    """Who is being let in, and whether anybody is."""

    def __init__(self) -> None:
        self.admitting = 0
        self.shut = False


class Agent(Reloading):
    """A running agent. Made by `open_agent`.

    `config`, `models` and whatever else follows from the configuration are the newest ones at the moment of
    asking. Inside `held` they stay as they were.

    Args:
        house: what it stands on.
        contexts: makes what a request stands in.
        nursery: where turns run that outlive their request. Without it there are none: `start` fails.
        owed: takes the outcomes that the store did not, and brings them to it again.
        observers: hear of turns, beside the log.
        metrics: count what happens here.
        peers: the processes that serve with this one.
    """

    def __init__(
        self,
        house: House,
        *,
        contexts: ContextsFor = plain_contexts,
        nursery: trio.Nursery | None = None,
        owed: OwedOutcomes | None = None,
        observers: Sequence[TurnObserver] = (),
        metrics: Metrics | None = None,
        peers: Peers | None = None,
    ) -> None:
        self.store: Store = house.store
        self.world: World = house.world
        self.workspace = house.workspace
        self.peers: Peers = peers or Alone()
        self.metrics = metrics or Metrics(worker=str(self.peers.number), started_at=house.world.now())
        self.last_calls = LastCalls()
        observer = Observers((TurnLog(), self.metrics, self.last_calls, *observers))
        super().__init__(house, contexts=contexts, observer=observer, nursery=nursery)
        self.logs = EventLogs(
            house.store, house.world.now, lifetime=lambda: self._generations.lifetime, peers=self.peers
        )
        self._running = RunningTurns(
            self.logs, house.world.now, nursery, owed or OwedOutcomes(house.store, None), observer
        )
        watch_turns(self.metrics, self._running)
        self.metrics.know_tools(self._tool_names)
        watch_configuration(self.metrics, lambda: self._generations.number)
        self.peers.on(METRICS, self._tell_metrics)
        self.in_flight = InFlightTurns(self._running.in_flight, self.peers)
        server = house.setup.config.server
        self.slots = TurnSlots(server.max_concurrent_turns, server.max_queued_turns, server.queue_timeout)
        watch_queue(self.metrics, lambda: self.slots.figures)
        self._door = _Door()
        self._cancelling = Cancelling(self.peers, self._running, nursery)
        self.started_at = house.world.now()

    # --- the configuration --------------------------------------------------------------------------

    @property
    def config(self) -> Config:
        return self.generation.config

    @property
    def directory(self) -> ModelDirectory:
        """Which provider serves which model."""
        return self.generation.setup.directory

    @property
    def providers(self) -> Mapping[str, MountedProvider]:
        """The providers by id."""
        return self.generation.setup.mounted

    @property
    def prices(self) -> Mapping[str, Price | None]:
        """What the models cost, by their full names."""
        return self.generation.setup.prices

    @contextmanager
    def held(self) -> Iterator[Agent]:
        """The agent as it is now, whatever is reloaded while the block runs.

        A request is answered inside one such block, so that it sees one configuration from its beginning to
        its end. The providers of that configuration are not closed before.
        """
        generation = self.generation
        with generation.uses:
            yield self.under(generation)

    def under(self, generation: Generation) -> Agent:
        """The same agent under one configuration for good."""
        held = copy(self)
        held._held = generation  # noqa: SLF001 - its own
        return held

    def commit(self, generation: Generation) -> Reload:
        """Put a prepared configuration in force: see `Reloading.commit`. Who waits for a slot waits on."""
        reload = super().commit(generation)
        server = generation.config.server
        self.slots.resize(server.max_concurrent_turns, server.max_queued_turns, server.queue_timeout)
        return reload

    # --- turns ----------------------------------------------------------------------------------

    @property
    def active_turns(self) -> int:
        """How many turns are running, those included that are being let in, and not those that wait."""
        return len(self._running) + self._door.admitting - self.slots.waiting

    def context(self, traceparent: str | None = None) -> TurnContext:
        """What a request that has just come stands in; one for each.

        Args:
            traceparent: the trace that the request belongs to (W3C Trace Context), if it says so rightly.
        """
        context = self.generation.contexts(self.world)
        context.traceparent = traceparent
        return context

    async def admit(
        self,
        request: TurnRequest,
        host: HostTools | None = None,
        *,
        context: TurnContext | None = None,
        slot: Slot | None = None,
    ) -> Admitted:
        """Decide whether a request becomes a turn. Waits where as many run as may (`server.queue_timeout`).

        Args:
            host: the tools of a program that waits for the turn; without it the turn parks for its caller's.
            context: of this request, if the caller has begun one.
            slot: in whose `with` block all of the turn happens. Without one, whoever admits a turn runs it:
                its slot is free again when it has run.

        Raises:
            AgentError: why not, with the HTTP status it stands for.
        """
        if self._door.shut:
            raise shutting_down()
        context = context or self.context()
        slot = slot or self.slots.slot(request.owner)
        generation = self.generation
        self._door.admitting += 1
        try:
            with generation.uses:
                return await generation.admission.admit(request, host, context, slot=slot)
        except BaseException:
            slot.release()
            raise
        finally:
            self._door.admitting -= 1

    def run(
        self,
        admitted: Admitted,
        sink: Sink,
        keeper: Keeper | None = None,
        *,
        log: LiveLog | None = None,
        context: TurnContext | None = None,
    ) -> Awaitable[TurnRow]:
        """Run an admitted turn to its end, in the caller's task. Cancel it to end the turn.

        Args:
            keeper: what is kept of the turn besides its row.
            log: takes the turn's outputs beside the sink; it has begun, and is ended here.
            context: what the turn was admitted in; it says when a log ended.

        Returns:
            The turn's row, as it is in the store.
        """
        return self._running.run(admitted, sink, keeper, log, context)

    def start(
        self, admitted: Admitted, log: LiveLog, keeper: Keeper | None = None, *, context: TurnContext
    ) -> StartedTurn:
        """Run an admitted turn beside its caller, who may go. Only its log has what it says.

        Args:
            log: it has begun, and is ended here.
            keeper: what is kept of the turn besides its row and its log.
            context: what the turn was admitted in.
        """
        return self._running.start(admitted, log, keeper, context)

    async def cancel(self, owner: str, log_id: str) -> bool:
        """End the turn that runs beside its caller and writes this log; whether there is one.

        It may run in another process that serves with this one, and then need a moment more to end.
        """
        return await self._cancelling.cancel(owner, log_id)

    async def idle(self) -> None:
        """Wait until no turn runs that was started with `start`."""
        await self._running.idle()

    def turn(
        self,
        messages: str | Sequence[Message],
        *,
        model: str | None = None,
        role: str | None = None,
        host_tools: Mapping[str, Callable[..., Any]] | None = None,
        options: Options | None = None,
        session_id: str | None = None,
    ) -> AbstractAsyncContextManager[LiveTurn]:
        """A turn of this program's own. Iterate over what it yields; leaving the block ends the turn.

        Args:
            messages: the conversation, or one user message's text.
            model: a model's name, or leave it out and name a `role`.
            host_tools: callables that the model may call, by name. They run in this process while the
                turn waits; their parameters are described by their type hints.
            options: temperature, token limits and so on.
            session_id: a label for the turn's record, and for the transcript of what was said under it.

        Raises:
            AgentError: on entering, when the turn is refused; from iterating, when it fails.
            ToolDefinitionError: a callable cannot be a tool.
        """
        host = HostCallables(host_tools or {})
        request = TurnRequest(
            face="embedded",
            messages=LiveTurn.conversation(messages),
            model=model,
            role=role,
            tools=tuple(host.tools),
            options=options or Options(),
            stream=True,
            session_id=session_id,
        )
        return live_turn(self, request, host)

    async def count_tokens(self, request: TurnRequest) -> TokenCount:
        """How many tokens the prompt of a request would be. No turn, no row, and nothing is billed for it.

        Raises:
            AgentError: the request would be refused, or the provider could not be asked.
        """
        if self._door.shut:
            raise shutting_down()
        generation = self.generation
        with generation.uses:
            return await generation.counter.count(request)

    def shown_model(self, request: TurnRequest) -> str:
        """The name under which a client knows the model that it asks for.

        Raises:
            AgentError: there is no such model, or no such role.
        """
        return self.generation.admission.shown_model(request)

    def _tool_names(self) -> Iterator[str]:
        """The server's tools, those of configurations included under which turns still run."""
        return (tool.name for each in self._generations for tool in each.setup.tools.tools)

    async def _tell_metrics(self, payload: bytes) -> bytes:
        return encoded(self.metrics.report())

    # --- models --------------------------------------------------------------------------------------

    def models(self) -> list[ModelRef]:
        """Every model once, in order of declaration."""
        return self.directory.listing()

    def model_counts(self) -> dict[str, int]:
        """How many models each provider lists, by the provider's id."""
        return {mounted.id: len(mounted.models) for mounted in self.providers.values()}

    # --- the end ---------------------------------------------------------------------------------------

    @property
    def draining(self) -> bool:
        return self._door.shut

    def drain(self) -> None:
        """Let no more turns in, and none of those that wait; those that run go on."""
        self._door.shut = True
        self.slots.close()

    async def stop_turns(self, reason: CancelReason = "shutdown") -> None:
        """End all running turns; each tells its client so, in its own format.

        After `drain` this holds for turns as well that were let in and have not begun yet.
        """
        await self._running.stop(reason, coming=self._door.shut)

    def end_as(self, reason: CancelReason) -> None:
        """Say why turns are about to be cancelled from outside; call it, then cancel.

        Without it, a cancelled turn's record says that the client has left.
        """
        self._running.end_as(reason)
