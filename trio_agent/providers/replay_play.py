"""Playing the steps of a scripted model call as a provider's stream."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping

import trio
from msgspec import Struct

from trio_agent.statemachine.conversation import (
    REASONING_PARTS,
    Image,
    Part,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
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

from .contract import ProviderRequest, UpstreamError
from .replay_steps import (
    Batch,
    CallTools,
    Content,
    Crash,
    EndReasoning,
    Fail,
    Finish,
    OwnReasoning,
    PlannedCall,
    Redacted,
    ReportUsage,
    Say,
    Sign,
    Sleep,
    SpokenKind,
    Stall,
    Step,
)

_DELTAS: Mapping[SpokenKind, Callable[[str], CallEvent]] = {
    "text": TextDelta,
    "refusal": RefusalDelta,
    "reasoning": ReasoningDelta,
}
CONVERSATIONS_MAX = 4096
CHARACTERS_PER_TOKEN = 4
TOKENS_PER_IMAGE = 100


class Attempts:
    """How often each conversation was asked for: the only memory that a replay provider has.

    It keeps the latest 4096 conversations. The count makes the ids of a repeated request differ from
    those of the first, and lets a model fail a few times before it answers.
    """

    def __init__(self) -> None:
        self._counts: OrderedDict[str, int] = OrderedDict()

    def count(self, conversation: str) -> int:
        """How many attempts came before this one."""
        before = self._counts.pop(conversation, 0)
        self._counts[conversation] = before + 1
        if len(self._counts) > CONVERSATIONS_MAX:
            self._counts.popitem(last=False)
        return before


class CallContext(Struct, frozen=True):
    """One model call as the scripted models see it.

    `attempt` counts the earlier calls with the same model and messages. `nonce` is what ids are made
    of: a digest of seed, model, messages and attempt, so the same calls in the same order have the
    same ids, and no two calls share one.
    """

    request: ProviderRequest
    attempt: int
    nonce: str

    @classmethod
    def of(cls, request: ProviderRequest, attempts: Attempts, seed: str) -> CallContext:
        digest = hashlib.sha256(f"{seed}\n{request.model}\n".encode())
        digest.update(repr(request.messages).encode(errors="backslashreplace"))
        attempt = attempts.count(digest.hexdigest())
        digest.update(f"\n{attempt}".encode())
        return cls(request, attempt, digest.hexdigest()[:20])

    def call_id(self, index: int) -> str:
        """The id of this model call's tool call number `index`."""
        model = re.sub("[^A-Za-z0-9]", "_", self.request.model)[:20]
        return f"call_{model}_{self.nonce}_{index}"


class _Tally(Struct):
    """What a call has produced so far."""

    characters: int = 0
    reasoning_characters: int = 0
    calls: int = 0
    usage_said: bool = False
    ended: FinishReason | None = None
    stop_sequence: str | None = None


async def play(steps: Iterable[Step], context: CallContext) -> AsyncGenerator[list[CallEvent], None]:
    """The stream of these steps: one item per piece. Raises UpstreamError where a step says so."""
    tally = _Tally()
    for step in steps:
        match step:
            case Sleep(seconds=seconds):
                await trio.sleep(seconds)
            case Stall():
                await trio.sleep_forever()
            case Crash(message=message):
                raise RuntimeError(message)
            case Fail():
                _fail(step, context)
            case Finish(reason=reason, stop_sequence=stop_sequence):
                tally.stop_sequence = stop_sequence
                tally.ended = reason
                break
            case Batch(steps=inner):
                await trio.lowlevel.checkpoint()
                yield [
                    event for content in inner for read in _reads(content, context, tally) for event in read
                ]
            case _:
                for read in _reads(step, context, tally):
                    await trio.lowlevel.checkpoint()
                    yield read
    await trio.lowlevel.checkpoint()
    yield _end(context, tally)


def _fail(step: Fail, context: CallContext) -> None:
    if step.times is not None and context.attempt % (step.times + 1) == step.times:
        return
    failure = step.failure
    raise UpstreamError(
        failure.kind,
        failure.message,
        status=failure.status,
        code=failure.code,
        retry_after=failure.retry_after,
    )


def _end(context: CallContext, tally: _Tally) -> list[CallEvent]:
    reason: FinishReason = tally.ended or ("tool_calls" if tally.calls else "stop")
    end = CallFinished(reason, f"replay_{context.nonce}", context.request.model, tally.stop_sequence)
    if tally.usage_said:
        return [end]
    return [UsageReported(_usage_of(context.request, tally)), end]


def _reads(step: Content, context: CallContext, tally: _Tally) -> Iterator[list[CallEvent]]:
    match step:
        case Say(kind=kind, pieces=pieces):
            for piece in pieces:
                if kind == "reasoning":
                    tally.reasoning_characters += len(piece)
                else:
                    tally.characters += len(piece)
                yield [_DELTAS[kind](piece)]
        case Sign(signature=signature):
            yield [ReasoningSigned(signature)]
        case EndReasoning():
            yield [ReasoningEnded()]
        case Redacted(data=data):
            yield [RedactedReasoning(data)]
        case OwnReasoning(data=data):
            yield [ReasoningData(data)]
        case ReportUsage(usage=usage, cost_usd=cost_usd):
            tally.usage_said = True
            if usage is not None:
                yield [UsageReported(usage, cost_usd)]
        case CallTools(calls=calls):
            yield from _tool_calls(calls, context, tally)


def _tool_calls(
    calls: tuple[PlannedCall, ...], context: CallContext, tally: _Tally
) -> Iterator[list[CallEvent]]:
    first = tally.calls
    tally.calls += len(calls)
    for place, call in enumerate(calls):
        index = first + place
        tally.characters += len(call.name) + len(call.arguments)
        yield [ToolCallStarted(index, call.id or context.call_id(index), call.name, call.provider_data)]
    pieces = [_pieces(call.arguments, call.fragments) for call in calls]
    for turn in range(max(len(fragments) for fragments in pieces)):
        for place, fragments in enumerate(pieces):
            if turn < len(fragments):
                yield [ToolCallDelta(first + place, fragments[turn])]


def _pieces(text: str, count: int) -> list[str]:
    """`text` in at most `count` pieces of about equal length, none empty."""
    size = max(1, math.ceil(len(text) / count))
    return [text[start : start + size] for start in range(0, len(text), size)]


# --- counting -------------------------------------------------------------------------------------


def tokens_in(characters: int) -> int:
    """The replay provider's own way of counting: one token for every four characters begun."""
    return math.ceil(characters / CHARACTERS_PER_TOKEN)


def _usage_of(request: ProviderRequest, tally: _Tally) -> Usage:
    """Usage by the replay provider's own count, at least one token each way.

    The prompt is the text of all messages (reasoning, tool calls and results included), the names,
    descriptions and schemas of the tools, and 100 tokens for each image. The answer is its words and its
    tool calls; its reasoning is counted apart and added.
    """
    reasoning = tokens_in(tally.reasoning_characters)
    return Usage(
        input_tokens=prompt_tokens(request),
        output_tokens=max(1, tokens_in(tally.characters) + reasoning),
        reasoning_tokens=reasoning,
    )


def prompt_tokens(request: ProviderRequest) -> int:
    """What the prompt of a request counts."""
    prompt = sum(_characters(part) for message in request.messages for part in message.parts)
    prompt += sum(_tool_characters(tool) for tool in request.tools)
    images = sum(_images(part) for message in request.messages for part in message.parts)
    return max(1, tokens_in(prompt) + images * TOKENS_PER_IMAGE)


def _tool_characters(tool: Tool) -> int:
    return len(tool.name) + len(tool.description or "") + len(json.dumps(tool.parameters or {}))


def _characters(part: Part) -> int:
    match part:
        case Text(text=text) | Refusal(text=text) | Thinking(text=text):
            return len(text)
        case ToolCall():
            return len(part.name) + len(part.arguments)
        case ToolResult(content=content):
            return sum(_characters(inner) for inner in content)
        case _ if isinstance(part, REASONING_PARTS):
            return len(part.data)
        case _:
            return 0


def _images(part: Part) -> int:
    match part:
        case Image():
            return 1
        case ToolResult(content=content):
            return sum(isinstance(inner, Image) for inner in content)
        case _:
            return 0
