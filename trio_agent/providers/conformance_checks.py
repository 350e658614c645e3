"""The conformance checks of a provider's structure and of one plain answer."""

from __future__ import annotations

import inspect
from decimal import Decimal
from typing import cast, get_args

from trio_agent.errors import AgentError
from trio_agent.statemachine.conversation import (
    Usage,
)
from trio_agent.statemachine.events import (
    CallFinished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    UsageReported,
)

from .conformance_subject import FailedCheckError, Subject
from .contract import (
    CallLimits,
    Provider,
    ProviderInfo,
    ProviderResponse,
)
from .folding import fold

# --- structure ----------------------------------------------------------------------------------


async def check_limits(subject: Subject) -> None:
    if not isinstance(subject.provider.limits, CallLimits):
        raise FailedCheckError("`limits` is not a CallLimits.", "Leave it out when subclassing, or set one.")
    name: object = subject.provider.name
    if not isinstance(name, str) or name == "":
        raise FailedCheckError("`name` is not a non-empty string.", "Set it to coordinator.provider_id.")


async def check_get_info(subject: Subject) -> None:
    info = cast("object", subject.provider.get_info())
    if inspect.iscoroutine(info):
        info.close()
        raise FailedCheckError("get_info is async.", "Make it a plain function; it does no input or output.")
    if not isinstance(info, ProviderInfo) or not info.id or not info.display_name:
        raise FailedCheckError("get_info did not return a ProviderInfo with an id and a display name.")


async def check_list_models(subject: Subject) -> None:
    model = await subject.model()
    for each in await subject.models():
        for name in ("context_window", "max_output_tokens"):
            tokens = getattr(each, name)
            if tokens is not None and (not isinstance(tokens, int) or tokens <= 0):
                raise FailedCheckError(
                    f"{name} of model {each.id!r} is {tokens!r}.",
                    "Use None where it is unknown.",
                )
        if not isinstance(each.capabilities, tuple):
            raise FailedCheckError(f"The capabilities of model {each.id!r} are not a tuple of strings.")
        for price in (each.cost_per_input_token, each.cost_per_output_token):
            if price is not None and not isinstance(price, Decimal):
                raise FailedCheckError(
                    f"A price of model {each.id!r} is not a Decimal.",
                    "Money is never a float.",
                )
    if "streaming" in model.capabilities and type(subject.provider).stream is Provider.stream:
        raise FailedCheckError(
            "The model claims streaming, but `stream` only wraps `complete`.",
            "Write a stream.",
        )


async def check_check(subject: Subject) -> None:
    request = await subject.request("Hello")
    try:
        outcome = cast("object", subject.provider.check(request))
    except AgentError as error:
        raise FailedCheckError(
            f"check refuses a plain request: {error}.",
            "Refuse only what cannot be carried.",
        ) from None
    if inspect.iscoroutine(outcome):
        outcome.close()
        raise FailedCheckError("check is async.", "Make it a plain function; it does no input or output.")


# --- a plain answer -------------------------------------------------------------------------------


async def check_stream(subject: Subject) -> None:
    await subject.ask_plain()
    if not any(isinstance(event, TextDelta | RefusalDelta) for event in await subject.plain()):
        raise FailedCheckError(
            "A plain question got no text.", "Yield TextDelta for the words of the answer."
        )


async def check_end(subject: Subject) -> None:
    events = await subject.plain()
    ends = [index for index, event in enumerate(events) if isinstance(event, CallFinished)]
    if not ends:
        raise FailedCheckError(
            "The stream ended without CallFinished.",
            "Yield it when the upstream says that the answer is complete, "
            'and raise UpstreamError("truncated", …) when it ends without saying so.',
        )
    if len(ends) > 1 or ends[0] != len(events) - 1:
        raise FailedCheckError(
            "CallFinished came more than once, or not as the last event.",
            "Hold it back to the end.",
        )
    reason = cast("CallFinished", events[-1]).finish_reason
    if reason not in get_args(FinishReason):
        raise FailedCheckError(
            f"{reason!r} is no finish reason.",
            f"Map it to one of {', '.join(get_args(FinishReason))}.",
        )


async def check_usage(subject: Subject) -> None:
    reports = [event for event in await subject.plain() if isinstance(event, UsageReported)]
    if not reports:
        raise FailedCheckError("No usage was reported.", "Yield UsageReported before CallFinished.")
    _sound_usage(reports[-1].usage, reports[-1].cost_usd)


def _sound_usage(usage: Usage, cost_usd: object) -> None:
    if usage.input_tokens <= 0 or usage.output_tokens <= 0:
        raise FailedCheckError(
            f"Usage counts no tokens in or out: {usage}.",
            "Report what the upstream counted.",
        )
    inside = usage.cached_input_tokens + usage.cache_write_tokens
    if inside > usage.input_tokens or usage.reasoning_tokens > usage.output_tokens:
        raise FailedCheckError(
            f"Parts of the usage exceed the whole: {usage}.",
            "input_tokens includes cached and written tokens, output_tokens includes reasoning.",
        )
    if cost_usd is not None and not isinstance(cost_usd, Decimal):
        raise FailedCheckError("cost_usd is not a Decimal.", "Money is never a float.")


async def check_deltas(subject: Subject) -> None:
    for event in await subject.plain():
        if isinstance(event, TextDelta | RefusalDelta | ReasoningDelta) and not event.text:
            raise FailedCheckError(f"An empty {type(event).__name__} was yielded.", "Leave empty pieces out.")


async def check_complete(subject: Subject) -> None:
    streamed = fold(await subject.plain())
    response = await subject.provider.complete(await subject.request("Reply with the one word: pong"))
    if not isinstance(response, ProviderResponse):
        raise FailedCheckError(
            f"complete returned a {type(response).__name__}.", "Return a ProviderResponse."
        )
    if response.message.role != "assistant" or not response.message.parts:
        raise FailedCheckError("complete returned no message of the assistant, or an empty one.")
    if response.usage is None:
        raise FailedCheckError("complete reported no usage.", "Fill in ProviderResponse.usage.")
    _sound_usage(response.usage, response.cost_usd)
    if response.finish_reason != streamed.finish_reason:
        raise FailedCheckError(
            f"complete finished with {response.finish_reason!r}, stream with {streamed.finish_reason!r} "
            "for the same request.",
            "Decode both with the same code.",
        )
    if subject.deterministic and (response.message, response.usage) != (streamed.message, streamed.usage):
        raise FailedCheckError("complete and stream answered the same request differently.")
    if list(subject.provider.parse_tool_calls(response)) != list(response.message.tool_calls):
        raise FailedCheckError("parse_tool_calls found other calls than the message holds.")
