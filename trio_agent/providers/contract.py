"""What a provider is: the contract between the driver and every model vendor.

A provider turns one upstream wire into `CallEvent`s and decides nothing: retries, limits, fallbacks
and the fate of tool calls belong to the turn machine. It is built by a mount function,

    async def mount(coordinator: Coordinator, config: Mapping[str, Any]) -> Provider | Cleanup | None

registered under the entry-point group `trio_agent.providers`. `mount` either returns the provider,
or registers it with `coordinator.register_provider` and returns an async clean-up or `None`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from decimal import Decimal
from typing import Any, Literal, Protocol, TypeAlias

from msgspec import Struct

from trio_agent.errors import AgentError
from trio_agent.statemachine.conversation import (
    Message,
    ProviderReasoning,
    RedactedThinking,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    Usage,
)
from trio_agent.statemachine.events import (
    CallEvent,
    CallFinished,
    FinishReason,
    ReasoningData,
    ReasoningDelta,
    ReasoningEnded,
    ReasoningSigned,
    RedactedReasoning,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    UsageReported,
)
from trio_agent.statemachine.failure import Failure, FailureKind
from trio_agent.statemachine.money import Price

CostTier: TypeAlias = Literal["free", "low", "medium", "high", "extreme"]
ToolChoice: TypeAlias = Literal["auto", "none", "required"]
CAPABILITIES = ("streaming", "tools", "vision", "reasoning", "json_schema")
"""The names that `ModelInfo.capabilities` may hold. Providers may add their own."""


class NamedTool(Struct, frozen=True):
    """A `tool_choice` that demands one tool."""

    name: str


class ResponseFormat(Struct, frozen=True):
    """`text`, `json_object`, or `json_schema` with a schema."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class Options(Struct, frozen=True, kw_only=True):
    """How to generate. `None` means that the caller did not say; it is then not sent upstream.

    `reasoning_effort` is a word (`minimal`, `low`, `medium`, `high`, …), `reasoning_budget` a number of
    tokens. `extra` holds request fields that no wire of ours knows by name: they go upstream
    unchanged on the wire they came from, and only there (`extra_wire`). `betas` are the values of
    `anthropic-beta` that came with them.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_output_tokens: int | None = None
    stop: tuple[str, ...] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    tool_choice: ToolChoice | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None
    reasoning_budget: int | None = None
    verbosity: str | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    store: bool | None = None
    extra: dict[str, Any] | None = None
    extra_wire: Literal["chat", "responses", "messages"] | None = None
    betas: tuple[str, ...] = ()


class ProviderRequest(Struct, frozen=True, kw_only=True):
    """One model call. `model` is the provider's own id for the model.

    `nonce` is a text that no other call has. What a provider must make up, such as the id of a tool call that
    came without one, follows from it, so that a recorded call can be repeated; empty, it may be random.
    """

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    options: Options = Options()
    nonce: str = ""


class ProviderResponse(Struct, frozen=True, kw_only=True):
    """A whole answer, for providers that do not stream. `message.role` is `assistant`."""

    message: Message
    finish_reason: FinishReason
    usage: Usage | None = None
    cost_usd: Decimal | None = None
    response_id: str | None = None
    model: str | None = None
    stop_sequence: str | None = None


class ModelInfo(Struct, frozen=True, kw_only=True):
    """A model that a provider serves.

    `context_window` and `max_output_tokens` are in tokens, `None` where unknown. `price` is absent when
    unknown, never zero by default. `cost_tier` lives in `metadata`. `defaults` tells what the vendor takes
    for options that are not sent; the server sends none on its account. `wire` names the format in which the
    provider talks to this model, where it is not the one that `ProviderInfo` names.
    """

    id: str
    display_name: str | None = None
    context_window: int | None = None
    max_output_tokens: int | None = None
    capabilities: tuple[str, ...] = ()
    defaults: dict[str, Any] = {}
    price: Price | None = None
    metadata: dict[str, Any] = {}
    created: int | None = None
    owned_by: str | None = None
    wire: str | None = None

    @property
    def cost_per_input_token(self) -> Decimal | None:
        return None if self.price is None else self.price.input

    @property
    def cost_per_output_token(self) -> Decimal | None:
        return None if self.price is None else self.price.output


class CallLimits(Struct, frozen=True, kw_only=True):
    """Limits of one model call, in seconds, and what to do when the client leaves.

    `first_byte_timeout` runs from the request to the first event of the answer, `idle_timeout` between
    two events. `on_disconnect` is `cancel` (close the upstream at once) or `drain` (read on, to learn the
    true bill, for at most `drain_timeout`).
    """

    first_byte_timeout: float = 300.0
    idle_timeout: float = 120.0
    max_retries: int = 2
    on_disconnect: Literal["cancel", "drain"] = "cancel"
    drain_timeout: float = 60.0


class ProviderInfo(Struct, frozen=True, kw_only=True):
    """What a provider says of itself. `wire` names the format it speaks upstream."""

    id: str
    display_name: str
    wire: str | None = None
    base_url: str | None = None
    credential_env_vars: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()


class UpstreamError(Exception):
    """A model call failed in a way that the provider understood.

    Raise it from `complete`, `stream` and `list_models`. Anything else that escapes from them counts as
    a crash of the plug-in.
    """

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.failure = Failure(kind=kind, message=message, status=status, code=code, retry_after=retry_after)


class ProviderConfigError(Exception):
    """A provider cannot be mounted. `remedy` tells the operator what to do; `path` is the key at fault
    below `providers.<id>`, such as `config.api_key`."""

    def __init__(self, message: str, *, remedy: str = "", path: str = "config") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.path = path


class Provider(ABC):
    """A model vendor, as the driver sees it.

    Subclassing is a convenience: anything with these members will do.
    """

    name: str
    limits: CallLimits = CallLimits()

    @abstractmethod
    def get_info(self) -> ProviderInfo: ...

    @abstractmethod
    async def list_models(self) -> list[ModelInfo]:
        """The models that this provider serves. Raises UpstreamError when they cannot be listed."""

    @abstractmethod
    async def complete(self, request: ProviderRequest) -> ProviderResponse:
        """One whole answer. Raises UpstreamError."""

    async def count_tokens(self, request: ProviderRequest) -> int | None:
        """The tokens of the prompt that this request would be; `None` where the vendor cannot say.

        Raises:
            UpstreamError: the vendor was asked and could not be.
        """
        del request
        return None

    def parse_tool_calls(self, response: ProviderResponse) -> list[ToolCall]:
        """The tool calls of an answer, in order."""
        return list(response.message.tool_calls)

    async def stream(self, request: ProviderRequest) -> AsyncIterator[Sequence[CallEvent]]:
        """The answer as it comes: one item per read of the upstream, each a batch of events.

        The last event is `CallFinished`. An upstream that ends before it says so is
        `UpstreamError("truncated")`. The driver closes the generator; closing it must close the
        upstream connection. This default asks `complete` and hands its answer on in one batch.
        """
        response = await self.complete(request)
        yield events_of(response, self.parse_tool_calls(response))

    def tidy(self) -> None:  # noqa: B027 - most plug-ins keep nothing that grows old
        """Let go of what has grown old, such as idle connections; called about once a minute."""

    def check(self, request: ProviderRequest) -> None:  # noqa: B027 - most wires have something to refuse, not all
        """Refuse what this provider's wire cannot carry, by raising AgentError with a 4xx code.

        Called before the turn begins, so that nothing is ever dropped silently.
        """


def events_of(response: ProviderResponse, tool_calls: Sequence[ToolCall]) -> list[CallEvent]:
    """A whole answer as the events that a stream of it would have had."""
    events: list[CallEvent] = []
    for part in response.message.parts:
        match part:
            case Text(text=text) if text:
                events.append(TextDelta(text))
            case Refusal(text=text) if text:
                events.append(RefusalDelta(text))
            case Thinking(text=text, signature=signature):
                if text:
                    events.append(ReasoningDelta(text))
                events.append(ReasoningEnded() if signature is None else ReasoningSigned(signature))
            case RedactedThinking(data=data):
                events.append(RedactedReasoning(data))
            case ProviderReasoning(data=data):
                events.append(ReasoningData(data))
            case _:
                pass
    for index, call in enumerate(tool_calls):
        events.append(ToolCallStarted(index, call.id, call.name, call.provider_data))
        if call.arguments:
            events.append(ToolCallDelta(index, call.arguments))
    if response.usage is not None:
        events.append(UsageReported(response.usage, response.cost_usd))
    events.append(
        CallFinished(response.finish_reason, response.response_id, response.model, response.stop_sequence)
    )
    return events


def refuse(param: str, provider: str, why: str) -> AgentError:
    """The error for an option that this provider's wire cannot carry."""
    return AgentError(
        "unsupported_parameter",
        f"{param!r} cannot be honoured by provider {provider!r}: {why}. "
        "Leave it out or choose another model.",
        param=param,
    )


Cleanup: TypeAlias = Callable[[], Awaitable[None]]


class Coordinator(Protocol):
    """What a provider gets from the house while it mounts.

    `credential(env)` finds a secret: environment first, then the credentials file. `resources` is
    closed when the agent closes: enter HTTP clients there. `register_contributor` adds to a channel;
    the channel `observability.events` takes callables returning the names of the events that the
    provider emits, and `emit` publishes one.
    """

    provider_id: str
    resources: AsyncExitStack

    def credential(self, *names: str) -> str | None: ...

    def register_provider(self, provider: Provider) -> None: ...

    def register_contributor(self, channel: str, name: str, contribute: Callable[[], Any]) -> None: ...

    def emit(self, event: str, data: Mapping[str, Any]) -> None: ...


Mount: TypeAlias = Callable[[Coordinator, Mapping[str, Any]], Awaitable[Provider | Cleanup | None]]

__all__ = [
    "CAPABILITIES",
    "CallLimits",
    "Cleanup",
    "Coordinator",
    "CostTier",
    "ModelInfo",
    "Mount",
    "NamedTool",
    "Options",
    "Provider",
    "ProviderConfigError",
    "ProviderInfo",
    "ProviderRequest",
    "ProviderResponse",
    "ResponseFormat",
    "ToolChoice",
    "UpstreamError",
    "events_of",
    "refuse",
]
