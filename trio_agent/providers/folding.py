"""A stream's events folded together into one whole answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from decimal import Decimal

from trio_agent.statemachine.answer import Answer, CallFold
from trio_agent.statemachine.conversation import Message, ProviderReasoning, RedactedThinking, Usage
from trio_agent.statemachine.events import (
    CallEvent,
    CallFinished,
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

from .contract import ProviderResponse, UpstreamError


def fold(events: Iterable[CallEvent]) -> ProviderResponse:
    """The answer that these events of one model call add up to; what `complete` may return.

    Raises UpstreamError `truncated` where the events end without `CallFinished`, and `malformed` for a
    fragment of a tool call that never began.
    """
    answer = Answer()
    usage: Usage | None = None
    cost_usd: Decimal | None = None
    finished: CallFinished | None = None
    for event in events:
        match event:
            case UsageReported():
                usage, cost_usd = event.usage, event.cost_usd
            case CallFinished():
                finished = event
            case _:
                _fold_content(answer, event)
    if finished is None:
        raise UpstreamError("truncated", "The answer ended before the upstream said that it was complete.")
    return ProviderResponse(
        message=Message("assistant", answer.message("").parts),
        finish_reason=finished.finish_reason,
        usage=usage,
        cost_usd=cost_usd,
        response_id=finished.response_id,
        model=finished.model,
        stop_sequence=finished.stop_sequence,
    )


async def fold_stream(batches: AsyncGenerator[Sequence[CallEvent], None]) -> ProviderResponse:
    """The whole answer of a stream, which it reads to its end and closes. Raises UpstreamError."""
    async with aclosing(batches):
        return fold([event async for batch in batches for event in batch])


def _fold_content(answer: Answer, event: CallEvent) -> None:
    match event:
        case TextDelta(text=text):
            answer.say("text", text)
        case RefusalDelta(text=text):
            answer.say("refusal", text)
        case ReasoningDelta(text=text):
            answer.say("thinking", text)
        case ReasoningSigned(signature=signature):
            answer.sign(signature)
        case ReasoningEnded():
            answer.close()
        case RedactedReasoning(data=data):
            answer.add(RedactedThinking(data))
        case ReasoningData(data=data):
            answer.add(ProviderReasoning(data))
        case ToolCallStarted(index=index, id=id_, name=name, provider_data=provider_data):
            answer.start_call(index, CallFold(id_, name, answer.next_position(), provider_data))
        case ToolCallDelta(index=index, arguments=arguments):
            if index not in answer.calls:
                raise UpstreamError(
                    "malformed", f"A fragment of tool call {index} came before the call began."
                )
            answer.calls[index].fragments.append(arguments)
        case _:
            pass
