"""From a turn request to a turn that can run: names resolved, limits known, history in order.

What cannot be honoured is refused here, before anything is spent. A request that brings the results of a
parked turn becomes that turn again; any other one is an ordinary turn made of what the client sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import msgspec
import trio
from msgspec import Struct

from trio_agent.config.schema import Config
from trio_agent.errors import AgentError
from trio_agent.providers.contract import NamedTool, Provider, ProviderRequest, ToolChoice
from trio_agent.providers.directory import ModelDirectory, ModelRef
from trio_agent.providers.registry import MountedProvider
from trio_agent.routing.names import UnknownRoleError, choose
from trio_agent.statemachine import Candidate, Limits, SnapshotError, Turn, TurnSpec
from trio_agent.statemachine.conversation import Image, Message, Text, Tool, without_foreign_reasoning
from trio_agent.statemachine.events import Begin, Resume
from trio_agent.statemachine.money import Price
from trio_agent.store.contract import ParkRow, StateAt, Store, StoreError, TurnRow
from trio_agent.turn.driver import Driver
from trio_agent.turn.history import Returned, digest, repaired, returned, same_answer
from trio_agent.turn.journal import Journal
from trio_agent.turn.reasoning import reattached
from trio_agent.turn.request import TurnRequest
from trio_agent.turn.sink import Sink
from trio_agent.turn.toolbox import HostTools, ToolBox
from trio_agent.world import World

logger = logging.getLogger("trio_agent")

STORE_RETRY_SECONDS = 5.0


class Admitted(Struct, frozen=True):
    """A turn that may run.

    `model` is the name to show the client, `notes` what was left out or repaired, `hidden` the server-side
    tools that the caller's own tools hide.
    """

    turn_id: str
    model: str
    notes: tuple[str, ...]
    hidden: tuple[str, ...]
    first: Begin | Resume
    make_driver: Callable[[Sink], Driver]


class _Plan(Struct, frozen=True):
    """What a request comes down to, before it is known whether a parked turn goes on."""

    request: TurnRequest
    shown_model: str
    refs: tuple[ModelRef, ...]
    routed: bool
    tools: tuple[Tool, ...]
    host_tools: tuple[str, ...]
    server_tools: tuple[str, ...]
    messages: tuple[Message, ...]
    notes: tuple[str, ...]
    hidden: tuple[str, ...]


class Admission:
    """The rules by which one agent lets turns in. `prices` holds every model's, by its full name."""

    def __init__(
        self,
        config: Config,
        *,
        providers: Mapping[str, MountedProvider],
        directory: ModelDirectory,
        prices: Mapping[str, Price | None],
        tools: ToolBox,
        store: Store,
        world: World,
    ) -> None:
        self._config = config
        self._mounted = providers
        self._providers: dict[str, Provider] = {each.id: each.provider for each in providers.values()}
        self._directory = directory
        self._prices = prices
        self._tools = tools
        self._store = store
        self._world = world
        self._host_tools = tuple(
            Tool(each.name, each.description, each.parameters) for each in config.host_tools
        )

    async def admit(self, request: TurnRequest, host: HostTools | None, *, full: bool) -> Admitted:
        """Let a request in.

        Args:
            host: the callables of a host that waits; without it the turn parks for its caller's tools.
            full: whether as many turns as allowed are running already.

        Raises:
            AgentError: why not. A refusal of a request that was understood (402, 422, 429) is in the store.
        """
        refs, routed, shown = self._resolve(request)
        messages, repairs = repaired(request.messages)
        try:
            plan = self._plan(
                request,
                refs,
                routed=routed,
                shown=shown,
                messages=messages,
                repairs=repairs,
                # An embedding host answers for its own callables only; nobody would run these.
                offered=self._host_tools if host is None else (),
            )
            if full:
                raise AgentError(
                    "rate_limited",
                    f"{self._config.server.max_concurrent_turns} turns are running, which is as many as "
                    "this server takes (server.max_concurrent_turns).",
                    retry_after=1.0,
                )
        except AgentError as error:
            if error.status in (402, 422, 429):
                await self._record_refusal(request, shown, refs, error)  # noqa: ASYNC120 - a caller that left needs no error
            raise
        try:
            if host is None:
                resumed = await self._resume(plan)
                if resumed is not None:
                    return resumed
            return await self._begin(plan, host)
        except StoreError as error:
            raise AgentError("store_unavailable", str(error), retry_after=STORE_RETRY_SECONDS) from None

    # --- what the request asks for ----------------------------------------------------------------

    def _resolve(self, request: TurnRequest) -> tuple[tuple[ModelRef, ...], bool, str]:
        routing = self._config.routing
        try:
            route = choose(request.model, request.role, aliases=routing.aliases, roles=routing.roles)
        except UnknownRoleError as error:
            raise AgentError("unknown_role", str(error), param="routing_hint.role") from None
        except ValueError:
            raise AgentError(
                "invalid_request", "The request names no model. GET /v1/models lists them.", param="model"
            ) from None
        refs = tuple(self._directory.resolve(name) for name in route.models)
        return refs, route.routed, request.model or f"{request.role}"

    def _plan(
        self,
        request: TurnRequest,
        refs: tuple[ModelRef, ...],
        *,
        routed: bool,
        shown: str,
        messages: tuple[Message, ...],
        repairs: tuple[str, ...],
        offered: tuple[Tool, ...],
    ) -> _Plan:
        """What will be sent, with the candidates that can carry it.

        Raises:
            AgentError: none can; the error is the first candidate's.
        """
        callers = {tool.name for tool in request.tools}
        offered = tuple(tool for tool in offered if tool.name not in callers)
        hosts = callers | {tool.name for tool in offered}
        servers = tuple(tool for tool in self._tools.tools if tool.name not in hosts)
        hidden = [tool.name for tool in self._tools.tools if tool.name in callers]
        notes = [*request.notes, *repairs]
        if not callers and (offered or servers) and not all(_calls_tools(ref) for ref in refs):
            # The caller asked for none; the operator's must not make the model unusable.
            offered, servers, hosts = (), (), set()
            notes.append("the server's own tools were left out: the model cannot call tools")
        tools = (*request.tools, *offered, *servers)
        _check_tool_choice(request.options.tool_choice, tools)
        notes += [f"the server-side tool {name} is hidden by the caller's own tool" for name in hidden]
        if self._config.agent.system_prompt is not None:
            messages = (Message("system", (Text(self._config.agent.system_prompt),)), *messages)
        able: list[ModelRef] = []
        first_error: AgentError | None = None
        for ref in refs:
            try:
                self._check(ref, request, messages, tools)
            except AgentError as error:
                first_error = first_error or error
            else:
                able.append(ref)
        if not able and first_error is not None:
            raise first_error
        return _Plan(
            request,
            shown,
            tuple(able),
            routed,
            tools,
            tuple(sorted(hosts)),
            tuple(tool.name for tool in servers),
            messages,
            tuple(notes),
            tuple(hidden),
        )

    def _check(
        self,
        ref: ModelRef,
        request: TurnRequest,
        messages: tuple[Message, ...],
        tools: Sequence[Tool],
    ) -> None:
        """Refuse what this model is known not to do. A model that says nothing of itself is trusted."""
        known = ref.model.capabilities
        if tools and not _calls_tools(ref):
            raise AgentError(
                "tools_not_supported_by_backend",
                f"The model {ref.full_name!r} cannot call tools. Leave `tools` out or choose another model.",
                param="tools",
            )
        if known and "vision" not in known and any(_has_image(message) for message in messages):
            raise AgentError(
                "images_not_supported_by_backend",
                f"The model {ref.full_name!r} cannot read images. Leave them out or choose another model.",
                param="messages",
            )
        wanted = ProviderRequest(
            model=ref.model.id, messages=messages, tools=tuple(tools), options=request.options
        )
        try:
            self._providers[ref.provider_id].check(wanted)
        except AgentError:
            raise
        except Exception as error:
            logger.exception("provider %s crashed in check", ref.provider_id)
            raise AgentError(
                "internal_error",
                f"The provider plug-in {ref.provider_id!r} raised {type(error).__name__}; "
                "see the server's log.",
            ) from None

    def _candidates(self, plan: _Plan) -> tuple[Candidate, ...]:
        candidates = [self._candidate(ref) for ref in plan.refs]
        if self._config.agent.max_cost_usd is not None and any(each.price is not None for each in candidates):
            # A cap cannot be kept with a model whose price nobody knows.
            candidates = [each for each in candidates if each.price is not None]
        return tuple(candidates)

    def _candidate(self, ref: ModelRef) -> Candidate:
        limits = self._providers[ref.provider_id].limits
        return Candidate(
            provider=ref.provider_id,
            model=ref.model.id,
            price=self._prices[ref.full_name],
            context_window=ref.model.context_window,
            max_retries=limits.max_retries,
            first_byte_timeout=limits.first_byte_timeout,
            idle_timeout=limits.idle_timeout,
        )

    def _limits(self, request: TurnRequest) -> Limits:
        server, agent = self._config.server, self._config.agent
        preflight = server.preflight_timeout
        if request.preflight is not None:
            preflight = min(request.preflight, server.max_preflight_timeout)
        return Limits(
            preflight=preflight,
            keepalive=server.keepalive_interval,
            turn=server.turn_timeout,
            host_tool=server.host_tool_ttl,
            model_calls=agent.max_model_calls,
            cost_usd=agent.max_cost_usd,
        )

    def _spec(
        self, plan: _Plan, turn_id: str, messages: tuple[Message, ...], host: HostTools | None
    ) -> TurnSpec:
        return TurnSpec(
            turn_id=turn_id,
            stream=plan.request.stream,
            candidates=self._candidates(plan),
            messages=messages,
            server_tools=plan.server_tools,
            host_tools=plan.host_tools,
            host="park" if host is None else "wait",
            routed=plan.routed,
            limits=self._limits(plan.request),
            seed=self._world.seed(),
        )

    # --- an ordinary turn -----------------------------------------------------------------------------

    async def _begin(self, plan: _Plan, host: HostTools | None) -> Admitted:
        request = plan.request
        messages = await reattached(plan.messages, owner=request.owner, store=self._store)
        turn = Turn(self._spec(plan, self._world.new_id("turn_"), messages, host))
        row = self._row(plan, turn)
        return self._admitted(plan, turn, row, Begin(trio.current_time()), host)

    def _row(self, plan: _Plan, turn: Turn) -> TurnRow:
        request, candidate = plan.request, turn.candidate
        return TurnRow(
            id=turn.spec.turn_id,
            face=request.face,
            model=plan.shown_model,
            created_at=self._world.now(),
            owner=request.owner,
            session_id=request.session_id,
            provider=candidate.provider,
            served_model=candidate.model,
            routing=None
            if not plan.routed
            else {"role": request.role, "candidates": [each.origin for each in turn.spec.candidates]},
            notes=plan.notes,
        )

    # --- a turn that goes on ----------------------------------------------------------------------------

    async def _resume(self, plan: _Plan) -> Admitted | None:
        """The parked turn that this request goes on with, taken, or `None`."""
        request = plan.request
        brought = returned(request.messages)
        if brought is None:
            return None
        ids = [result.tool_call_id for result in brought.results]
        for park in await self._store.find_parks(request.owner, ids):
            turn = self._match(plan, brought, park)
            if turn is None:
                continue
            missing = [call.id for call in turn.owed if call.id not in ids]
            if missing:
                raise AgentError(
                    "invalid_tool_results",
                    f"The turn {park.turn_id} waits for more results than came: {', '.join(missing)} "
                    "are missing. Send all of them in one request.",
                    param="messages",
                )
            old = await self._store.get_turn(park.turn_id)
            if old is None or not await self._store.take_park(park.turn_id, self._world.now()):
                return None
            return self._go_on(plan, brought, turn, old)
        return None

    def _match(self, plan: _Plan, brought: Returned, park: ParkRow) -> Turn | None:
        """The parked turn, if the request is its continuation and nothing else.

        Another model or an edited history means that the client wants something else: its view wins.
        """
        if park.model != plan.shown_model or park.history != digest(brought.before):
            return None
        try:
            turn = Turn.restore(park.snapshot)
        except SnapshotError:
            return None
        if not same_answer(turn.said, turn.owed, brought.answer):
            return None
        served = turn.candidate
        refs = sorted(
            plan.refs, key=lambda ref: (ref.provider_id, ref.model.id) != (served.provider, served.model)
        )
        if (refs[0].provider_id, refs[0].model.id) != (served.provider, served.model):
            return None
        spec = self._spec(
            msgspec.structs.replace(plan, refs=tuple(refs)), turn.spec.turn_id, turn.spec.messages, None
        )
        return Turn.restore(park.snapshot, spec)

    def _go_on(self, plan: _Plan, brought: Returned, turn: Turn, old: TurnRow) -> Admitted:
        row = msgspec.structs.replace(
            old,
            outcome="running",
            reason=None,
            ended_at=None,
            states=(*old.states, StateAt("resumed", self._world.now())),
            notes=tuple(dict.fromkeys((*old.notes, *plan.notes))),
        )
        first = Resume(brought.results, trio.current_time(), brought.after)
        return self._admitted(plan, turn, row, first, None)

    # --- what runs ------------------------------------------------------------------------------------------

    def _admitted(
        self, plan: _Plan, turn: Turn, row: TurnRow, first: Begin | Resume, host: HostTools | None
    ) -> Admitted:
        request = plan.request

        def make_driver(sink: Sink) -> Driver:
            journal = Journal(
                self._store,
                row,
                turn=turn,
                world=self._world,
                history=digest(request.messages),
                ttl=self._config.server.host_tool_ttl,
            )
            return Driver(
                turn,
                providers=self._providers,
                build_request=build_request,
                tools=self._tools,
                host=host,
                journal=journal,
                sink=sink,
            )

        def build_request(turn: Turn) -> ProviderRequest:
            candidate = turn.candidate
            return ProviderRequest(
                model=candidate.model,
                messages=without_foreign_reasoning(turn.conversation, candidate.origin),
                tools=plan.tools,
                options=request.options,
            )

        return Admitted(turn.spec.turn_id, plan.shown_model, plan.notes, plan.hidden, first, make_driver)

    async def _record_refusal(
        self, request: TurnRequest, shown: str, refs: Sequence[ModelRef], error: AgentError
    ) -> None:
        now = self._world.now()
        row = TurnRow(
            id=self._world.new_id("turn_"),
            face=request.face,
            model=shown,
            created_at=now,
            ended_at=now,
            outcome="rejected",
            reason=error.code,
            owner=request.owner,
            session_id=request.session_id,
            provider=refs[0].provider_id,
            served_model=refs[0].model.id,
            error={"code": error.code, "message": error.message},
            notes=request.notes,
        )
        error.turn_id = row.id
        try:
            await self._store.close_turn(row, ())
        except StoreError as failed:
            raise AgentError("store_unavailable", str(failed), retry_after=STORE_RETRY_SECONDS) from None


def _calls_tools(ref: ModelRef) -> bool:
    """Whether the model may be given tools; one that says nothing of itself is trusted."""
    return not ref.model.capabilities or "tools" in ref.model.capabilities


def _check_tool_choice(choice: ToolChoice | NamedTool | None, tools: Sequence[Tool]) -> None:
    """Raises AgentError `invalid_request` when a tool is demanded that is not there."""
    if choice == "required" and not tools:
        raise AgentError(
            "invalid_request",
            "`tool_choice` demands a tool call, but there are no tools.",
            param="tool_choice",
        )
    if isinstance(choice, NamedTool) and all(tool.name != choice.name for tool in tools):
        raise AgentError(
            "invalid_request",
            f"`tool_choice` names the tool {choice.name[:64]!r}, which is not among the tools.",
            param="tool_choice",
        )


def _has_image(message: Message) -> bool:
    return any(
        isinstance(part, Image)
        for part in (*message.parts, *(each for result in message.tool_results for each in result.content))
    )
