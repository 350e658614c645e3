"""What a request comes down to: which models may serve it, with which tools, under which limits.

Pure, but for what a provider's `check` may log. What no model of the request's can carry is refused here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from trio_agent.config.schema import Config
from trio_agent.errors import AgentError
from trio_agent.option_translation import Carried, carry
from trio_agent.providers.contract import NamedTool, Options, Provider, ProviderRequest, ToolChoice
from trio_agent.providers.directory import ModelDirectory, ModelRef
from trio_agent.routing.names import UnknownRoleError, choose
from trio_agent.statemachine import Candidate, Limits, TurnSpec
from trio_agent.statemachine.conversation import Image, Message, Text, Tool
from trio_agent.statemachine.money import Price
from trio_agent.turn.notes import in_bounds
from trio_agent.turn.request import TurnRequest
from trio_agent.turn.signed_reasoning import Makers, is_withheld, makers_among
from trio_agent.turn.toolbox import HostTools, ToolBox

logger = logging.getLogger("trio_agent")

MOST_NOTED = 20
"""Fields that a record names for one provider; a client may make up any number of them."""


class Choice(Struct, frozen=True):
    """The models that a request leads to, in order. `shown` is the name that the client used."""

    refs: tuple[ModelRef, ...]
    routed: bool
    shown: str


class Plan(Struct, frozen=True):
    """What a request comes down to, before it is known whether a parked turn goes on.

    `hidden` are the server-side tools that the caller's own tools hide. `options` holds, by the model's
    full name, the request's options as its provider's wire takes them, `ignored` the fields of the request
    that one of them cannot carry. `makers` are the providers that the client's reasoning is taken to be of.
    """

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
    options: Mapping[str, Options]
    ignored: tuple[str, ...]
    makers: Makers

    @property
    def is_of_several(self) -> bool:
        """Whether providers stand in for each other."""
        return any(ref.provider_id != self.refs[0].provider_id for ref in self.refs)


class Planner:
    """Plans turns for one agent. `prices` holds every model's, by its full name."""

    def __init__(
        self,
        config: Config,
        *,
        providers: Mapping[str, Provider],
        directory: ModelDirectory,
        prices: Mapping[str, Price | None],
        tools: ToolBox,
    ) -> None:
        self._config = config
        self._providers = providers
        self._directory = directory
        self._prices = prices
        self._tools = tools
        self._wires = {name: _wire_of(provider) for name, provider in providers.items()}
        self._host_tools = tuple(
            Tool(each.name, each.description, each.parameters) for each in config.host_tools
        )

    def resolve(self, request: TurnRequest) -> Choice:
        """The models that the request names, by alias, by role or directly.

        Raises:
            AgentError: `unknown_model`, `unknown_role`, or that it names none.
        """
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
        return Choice(refs, route.routed, request.model or f"{request.role}")

    def plan(
        self,
        request: TurnRequest,
        choice: Choice,
        *,
        messages: tuple[Message, ...],
        repairs: tuple[str, ...],
        embedded: bool,
    ) -> Plan:
        """What will be sent, with the candidates that can carry it.

        Args:
            messages: the request's, in order.
            repairs: what was changed to get them into order.
            embedded: whether a host in this process runs the caller's tools. It answers for its own
                callables only, so the configuration's `host_tools` are not offered.

        Raises:
            AgentError: none can; the error is the first candidate's.
        """
        callers = {tool.name for tool in request.tools}
        refs = choice.refs
        offered = () if embedded else tuple(tool for tool in self._host_tools if tool.name not in callers)
        hosts = callers | {tool.name for tool in offered}
        servers = tuple(tool for tool in self._tools.tools if tool.name not in hosts)
        if request.bare:
            offered, servers, hosts = (), (), callers
        hidden = [tool.name for tool in self._tools.tools if tool.name in callers]
        notes = [*request.notes, *repairs]
        if not callers and (offered or servers) and not all(_calls_tools(ref) for ref in refs):
            # The caller asked for none; the operator's must not make the model unusable.
            offered, servers, hosts = (), (), set()
            notes.append("the server's own tools were left out: the model cannot call tools")
        tools = (*request.tools, *offered, *servers)
        _check_tool_choice(request.options.tool_choice, tools)
        notes += [f"the server-side tool {name} is hidden by the caller's own tool" for name in hidden]
        # Before the operator's own words come in: what a refusal names is counted in the client's messages.
        able = self._able(choice.refs, request, messages, tools)
        if self._config.agent.system_prompt is not None and not request.bare:
            messages = (Message("system", (Text(self._config.agent.system_prompt),)), *messages)
        notes += dict.fromkeys(
            f"the field {name} was left out: the provider {ref.provider_id} speaks another format"
            for ref, taken in able
            for name in taken.ignored[:MOST_NOTED]
        )
        makers = makers_among((ref.provider_id, self._wire(ref)) for ref, _ in able)
        notes += dict.fromkeys(
            f"reasoning that the client brought was left out for the provider {ref.provider_id}"
            for ref, _ in able
            if self._wire(ref) != "chat" and is_withheld(messages, ref.provider_id, makers)
        )
        return Plan(
            request,
            choice.shown,
            tuple(ref for ref, _ in able),
            choice.routed,
            tools,
            tuple(sorted(hosts)),
            tuple(tool.name for tool in servers),
            messages,
            in_bounds(notes),
            tuple(hidden),
            {ref.full_name: taken.options for ref, taken in able},
            tuple(dict.fromkeys(name for _, taken in able for name in taken.ignored)),
            makers,
        )

    def _able(
        self,
        refs: Sequence[ModelRef],
        request: TurnRequest,
        messages: tuple[Message, ...],
        tools: Sequence[Tool],
    ) -> list[tuple[ModelRef, Carried]]:
        """The models that can carry the request, each with its options. Raises the first one's AgentError."""
        able: list[tuple[ModelRef, Carried]] = []
        first_error: AgentError | None = None
        for ref in refs:
            try:
                taken = self.carried(ref, request.options, messages, tools)
                if request.truncate and ref.model.context_window is not None:
                    # It is done here, whatever the wire.
                    ignored = tuple(name for name in taken.ignored if name != "truncation")
                    taken = msgspec.structs.replace(taken, ignored=ignored)
            except AgentError as error:
                first_error = first_error or error
            else:
                able.append((ref, taken))
        if not able and first_error is not None:
            raise first_error
        return able

    def carried(
        self, ref: ModelRef, options: Options, messages: tuple[Message, ...], tools: Sequence[Tool]
    ) -> Carried:
        """A request's options as one model's wire takes them. Raises AgentError for what it cannot carry."""
        taken = carry(options, self._wire(ref))
        self._check(ref, taken.options, messages, tools)
        return taken

    def _wire(self, ref: ModelRef) -> str | None:
        """The format that a model is called in; `None` where its provider does not say."""
        return ref.model.wire or self._wires[ref.provider_id]

    def _check(
        self,
        ref: ModelRef,
        options: Options,
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
        wanted = ProviderRequest(model=ref.model.id, messages=messages, tools=tuple(tools), options=options)
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

    def _candidates(self, plan: Plan) -> tuple[Candidate, ...]:
        candidates = [self.candidate(ref) for ref in plan.refs]
        if self._config.agent.max_cost_usd is not None and any(each.price is not None for each in candidates):
            # A cap cannot be kept with a model whose price nobody knows.
            candidates = [each for each in candidates if each.price is not None]
        return tuple(candidates)

    def candidate(self, ref: ModelRef) -> Candidate:
        """A model as the machine knows it."""
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
            answer_chars=agent.max_answer_chars,
        )

    def spec(
        self, plan: Plan, turn_id: str, messages: tuple[Message, ...], host: HostTools | None, *, seed: int
    ) -> TurnSpec:
        """The specification of a turn, or of a parked turn's next response."""
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
            seed=seed,
        )


def _wire_of(provider: Provider) -> str | None:
    """The format that a provider says it speaks; `None` where it says nothing."""
    try:
        return provider.get_info().wire
    except Exception:
        logger.exception("provider %s crashed in get_info", provider.name)
        return None


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
