"""From a turn request to a turn that can run: planned, with its history in order, new or resumed.

What cannot be honoured is refused here, before anything is spent. A request that brings the results of a
parked turn becomes that turn again; any other one is an ordinary turn made of what the client sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Protocol

import msgspec
import trio
from msgspec import Struct

from trio_agent.config.schema import Config
from trio_agent.errors import AgentError, store_unavailable
from trio_agent.planning import Choice, Plan, Planner
from trio_agent.providers.contract import Provider, ProviderRequest
from trio_agent.queueing import NoSlotError, Slot
from trio_agent.resuming import Resumed, Resumption
from trio_agent.statemachine import Turn
from trio_agent.statemachine.conversation import Message
from trio_agent.statemachine.events import Begin, Resume
from trio_agent.store.contract import Store, StoreError, TurnRow
from trio_agent.truncation import left_out_at_first, sent_to
from trio_agent.turn.context import Queued, TurnContext
from trio_agent.turn.driver import Driver
from trio_agent.turn.history import history_digest
from trio_agent.turn.journal import Journal
from trio_agent.turn.keeper import Keeper, Together
from trio_agent.turn.notes import in_bounds
from trio_agent.turn.observer import TurnObserver
from trio_agent.turn.reasoning import reattached
from trio_agent.turn.repair import repaired
from trio_agent.turn.request import TurnRequest
from trio_agent.turn.session import SessionKeeper, continued, newest_branch, session_keeper
from trio_agent.turn.sink import Sink
from trio_agent.turn.toolbox import HostTools, ToolBox
from trio_agent.use_count import UseCount


class MakeDriver(Protocol):
    """Makes the driver of an admitted turn; once."""

    def __call__(self, sink: Sink, keeper: Keeper | None = None) -> Driver: ...


class Admitted(Struct, frozen=True):
    """A turn that may run.

    `model` is the name to show the client, `notes` what was left out or repaired, `hidden` the server-side
    tools that the caller's own tools hide, `ignored` the fields of the request that no wire in question has.
    `truncated` is how many of the oldest messages are left out for the model that is called first.
    `slot` is held, among those of the turns that may run at once, until the turn is over.
    `turn` is the machine: what was said is in it, once it has run. `before` is what its session
    had said, where the request goes on from that. `uses` counts it while it runs, so that what it was
    planned with stays.
    """

    turn: Turn
    turn_id: str
    model: str
    notes: tuple[str, ...]
    hidden: tuple[str, ...]
    ignored: tuple[str, ...]
    truncated: int
    first: Begin | Resume
    make_driver: MakeDriver
    uses: UseCount
    slot: Slot
    before: tuple[Message, ...] = ()


class Admission:
    """The rules by which one configuration lets turns in. `uses` counts those that run."""

    def __init__(
        self,
        config: Config,
        planner: Planner,
        *,
        providers: Mapping[str, Provider],
        tools: ToolBox,
        store: Store,
        observer: TurnObserver,
        uses: UseCount,
    ) -> None:
        self._config = config
        self._planner = planner
        self._resumption = Resumption(planner, store)
        self._providers = providers
        self._tools = tools
        self._store = store
        self._observer = observer
        self._uses = uses

    async def admit(
        self, request: TurnRequest, host: HostTools | None, context: TurnContext, *, slot: Slot
    ) -> Admitted:
        """Let a request in.

        Args:
            context: the turn's own time and ids, and whoever listens in.
            host: the callables of a host that waits; without it the turn parks for its caller's tools.
            slot: is taken for it, as soon as it is known that nothing else is wrong with it. Whoever brought
                it frees it, also where this raises.

        Raises:
            AgentError: why not. A refusal of a request that was understood (402, 422, 429) is in the store.
        """
        try:
            most = self._config.server.max_history_bytes
            newest = await context.kept("session", partial(newest_branch, request, self._store, most))
        except StoreError as error:
            raise store_unavailable(error) from None
        whole = continued(request, newest)
        try:
            admitted = await self._admit(whole.request, host, context, slot=slot)
        except AgentError as error:
            raise whole.in_own_words(error) from None
        if whole.branch:
            admitted = msgspec.structs.replace(admitted, before=whole.branch)
        return admitted

    async def _admit(
        self, request: TurnRequest, host: HostTools | None, context: TurnContext, *, slot: Slot
    ) -> Admitted:
        choice = self._planner.resolve(request)
        history = repaired(request.messages)
        try:
            plan = self._planner.plan(
                request,
                choice,
                messages=history.messages,
                repairs=history.notes,
                embedded=host is not None,
            )
            waited = await self._take(slot, context)
        except AgentError as error:
            error = history.in_the_clients_numbers(error)
            if error.status in (402, 422, 429):
                await self._record_refusal(request, choice, error, context)  # noqa: ASYNC120 - who left needs none
            raise
        if waited:
            plan = msgspec.structs.replace(
                plan, notes=(*plan.notes, f"it waited {waited:g} s for one of the turns that may run at once")
            )
        try:
            # Before a park is taken: a store that fails here has taken nothing.
            # A host that waits has run its tools before it is given the end of the answer.
            hidden = plan.server_tools if host is None else (*plan.server_tools, *plan.host_tools)
            keeper = await session_keeper(request, hidden, self._store, context.world.now)
            resumed = await self._resumption.take(plan, context) if host is None else None
            started = resumed or await self._begin(plan, host, context)
        except StoreError as error:
            raise store_unavailable(error) from None
        admitted = self._admitted(plan, started, host, context, slot)
        return admitted if keeper is None else _kept_by(keeper, admitted)

    async def _take(self, slot: Slot, context: TurnContext) -> float:
        """Take the slot; returns for how many seconds the request waited for it.

        Raises:
            AgentError: `rate_limited`, `server_shutdown`.
        """
        try:
            met = Queued(await slot.take())
        except NoSlotError as refusal:
            met = Queued(refusal.waited, refused=True, retry_after=refusal.retry_after)
        met = context.queued(met)
        if not met.refused:
            return met.waited
        so_long = f" The request has waited {met.waited:g} s for one of them to end." if met.waited else ""
        raise AgentError(
            "rate_limited",
            f"{self._config.server.max_concurrent_turns} turns are running, which is as many as "
            f"this server takes (server.max_concurrent_turns).{so_long}",
            retry_after=met.retry_after,
        )

    def shown_model(self, request: TurnRequest) -> str:
        """The name to show the client of the model that a request asks for.

        Raises:
            AgentError: `unknown_model` and its like.
        """
        return self._planner.resolve(request).shown

    # --- an ordinary turn -----------------------------------------------------------------------------

    async def _begin(self, plan: Plan, host: HostTools | None, context: TurnContext) -> _Begun:
        request, world = plan.request, context.world
        messages = await reattached(
            plan.messages,
            owner=request.owner,
            store=context.store(self._store),
            traced=plan.is_of_several,
        )
        spec = self._planner.spec(plan, world.new_id("turn_"), messages, host, seed=world.seed())
        turn = Turn(spec)
        row = _new_row(plan, turn, world.now())
        return _Begun(turn, row, Begin(trio.current_time()))

    # --- what runs ------------------------------------------------------------------------------------------

    def _admitted(
        self,
        plan: Plan,
        started: _Begun | Resumed,
        host: HostTools | None,
        context: TurnContext,
        slot: Slot,
    ) -> Admitted:
        request, turn = plan.request, started.turn
        context.admitted(turn)

        def make_driver(sink: Sink, keeper: Keeper | None = None) -> Driver:
            journal = Journal(
                context.store(self._store),
                started.row,
                turn=turn,
                world=context.world,
                history=partial(history_digest, request.messages),
                ttl=self._config.server.host_tool_ttl,
                taken=started.park,
                keeper=keeper,
                observer=self._observer,
                traceparent=context.traceparent,
            )
            return Driver(
                turn,
                providers=self._providers,
                build_request=partial(_provider_request, plan, context, journal),
                tools=self._tools,
                host=host,
                journal=journal,
                sink=sink,
                context=context,
            )

        return Admitted(
            turn,
            turn.spec.turn_id,
            plan.shown_model,
            plan.notes,
            plan.hidden,
            plan.ignored,
            left_out_at_first(turn, started.first, request, plan.tools, plan.makers),
            started.first,
            make_driver,
            self._uses,
            slot,
        )

    async def _record_refusal(
        self, request: TurnRequest, choice: Choice, error: AgentError, context: TurnContext
    ) -> None:
        now = context.world.now()
        row = TurnRow(
            id=context.world.new_id("turn_"),
            face=request.face,
            model=choice.shown,
            created_at=now,
            ended_at=now,
            outcome="rejected",
            reason=error.code,
            owner=request.owner,
            session_id=request.session_id,
            provider=choice.refs[0].provider_id,
            served_model=choice.refs[0].model.id,
            error={"code": error.code, "message": error.message},
            notes=in_bounds(request.notes),
        )
        error.turn_id = row.id
        context.refused([(ref.provider_id, ref.model.id) for ref in choice.refs])
        try:
            await context.store(self._store).close_turn(row, ())
        except StoreError as failed:
            raise store_unavailable(failed) from None
        self._observer.ended(row, (), context.traceparent)


class _Begun(Struct, frozen=True):
    """An ordinary turn, new."""

    turn: Turn
    row: TurnRow
    first: Begin
    park: None = None


def _new_row(plan: Plan, turn: Turn, now: float) -> TurnRow:
    request, candidate = plan.request, turn.candidate
    return TurnRow(
        id=turn.spec.turn_id,
        face=request.face,
        model=plan.shown_model,
        created_at=now,
        owner=request.owner,
        session_id=request.session_id,
        provider=candidate.provider,
        served_model=candidate.model,
        routing=None
        if not plan.routed
        else {"role": request.role, "candidates": [each.origin for each in turn.spec.candidates]},
        notes=plan.notes,
    )


def _provider_request(
    plan: Plan, context: TurnContext, journal: Journal, turn: Turn, nonce: str
) -> ProviderRequest:
    """What the turn's provider is asked now. What is left out of it for its size is noted."""
    candidate = turn.candidate
    sent = sent_to(turn, plan.request, plan.tools, plan.makers)
    if sent.left_out:
        journal.note(f"messages left out to fit the context window of {candidate.origin}: {sent.left_out}")
    return ProviderRequest(
        model=candidate.model,
        messages=sent.messages,
        tools=plan.tools,
        options=context.options(candidate, plan.request.options, plan.options),
        nonce=nonce,
    )


def _kept_by(session: SessionKeeper, admitted: Admitted) -> Admitted:
    def make_driver(sink: Sink, keeper: Keeper | None = None) -> Driver:
        return admitted.make_driver(sink, session if keeper is None else Together(session, keeper))

    return msgspec.structs.replace(admitted, make_driver=make_driver)
