"""The response object: what a Responses answer is as a whole, and what it repeats of its request.

Shapes follow OpenAI's `Response` and the Open Responses specification's `ResponseResource`, in which nearly
all members are required: what a request does not say stands there with the API's default.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from trio_agent.errors import AgentError
from trio_agent.statemachine.conversation import Usage
from trio_agent.statemachine.effects import UsageSource
from trio_agent.statemachine.events import FinishReason

ResponseStatus: TypeAlias = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]

INCOMPLETE: Final[dict[FinishReason, str]] = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
}
"""Why an answer is incomplete, by how it finished; the other finish reasons complete it."""

# https://developers.openai.com/api/reference, and what clients are known to stop or to wait for.
_KNOWN_CODES: Final = frozenset({"context_length_exceeded", "insufficient_quota", "server_is_overloaded"})
_CODES: Final = {
    "budget_exceeded": "insufficient_quota",
    "rate_limited": "rate_limit_exceeded",
    "server_busy": "server_is_overloaded",
}
_OVERLOADED: Final = 529


class Echo(Struct, frozen=True, kw_only=True):
    """What a response repeats of its request. Defaults are the API's own."""

    background: bool = False
    conversation: dict[str, str] | None = None
    frequency_penalty: float = 0.0
    instructions: str | list[Any] | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    metadata: dict[str, Any] = {}
    parallel_tool_calls: bool = True
    presence_penalty: float = 0.0
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    reasoning: dict[str, Any] = field(default_factory=lambda: {"effort": None, "summary": None})
    safety_identifier: str | None = None
    service_tier: str = "default"
    store: bool = True
    temperature: float = 1.0
    text: dict[str, Any] = field(default_factory=lambda: {"format": {"type": "text"}})
    tool_choice: Any = "auto"
    tools: list[Any] = []
    top_logprobs: int = 0
    top_p: float = 1.0
    truncation: str = "disabled"
    user: str | None = None


class InputTokensDetails(Struct, frozen=True):
    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(Struct, frozen=True):
    reasoning_tokens: int


class ResponseUsage(Struct, frozen=True):
    """Tokens. `cost_usd` is an exact decimal, absent when unknown; `usage_source` is there unless the
    provider itself reported the figures. Both are ours."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int
    cost_usd: str | UnsetType = UNSET
    usage_source: str | UnsetType = UNSET


def usage_of(usage: Usage, cost_usd: Decimal | None, source: UsageSource) -> ResponseUsage:
    return ResponseUsage(
        usage.input_tokens,
        InputTokensDetails(usage.cached_input_tokens, usage.cache_write_tokens),
        usage.output_tokens,
        OutputTokensDetails(usage.reasoning_tokens),
        usage.total_tokens,
        UNSET if cost_usd is None else f"{cost_usd:f}",
        UNSET if source == "provider" else source,
    )


def failure_code(error: AgentError) -> str:
    """The code under which a stream fails, in the words that clients act on.

    They repeat a request that failed with a code they do not know, as they do for `server_error`. So what a
    repeat cannot mend is `invalid_prompt`, which they show to their user.
    """
    if error.shown_code in _KNOWN_CODES:
        return error.shown_code
    if error.code in _CODES:
        return _CODES[error.code]
    if error.extra.get("upstream_status") == _OVERLOADED:
        return "server_is_overloaded"
    return "server_error" if error.retryable else "invalid_prompt"


class Lifecycle(Struct, frozen=True, kw_only=True):
    """What of a response changes while it runs. `completed_at` is in seconds since the epoch."""

    status: ResponseStatus
    completed_at: int | None = None
    error: dict[str, Any] | None = None
    incomplete_details: dict[str, str] | None = None
    usage: ResponseUsage | None = None


def response_object(
    response_id: str, created_at: int, model: str, echo: Echo, state: Lifecycle, output: list[Any]
) -> dict[str, Any]:
    """The whole response, ready to be encoded.

    Args:
        created_at: seconds since the epoch.
        output: the items so far.
    """
    repeated = msgspec.structs.asdict(echo)
    if echo.conversation is None:
        del repeated["conversation"]
    return {
        "id": response_id,
        "object": "response",
        "created_at": created_at,
        "model": model,
        **msgspec.structs.asdict(state),
        "output": output,
        **repeated,
    }
