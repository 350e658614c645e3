"""Chat Completions answers, as clients expect them.

Shapes follow OpenAI's `ChatCompletion` and `ChatCompletionChunk`; `reasoning_content` and `cost_usd` are
the extensions that agents read. No chunk ever has a member `error` unless it is one: clients take it for
one even when it is null.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from trio_agent.statemachine.conversation import Usage
from trio_agent.statemachine.effects import UsageSource

_encode = msgspec.json.Encoder(decimal_format="string").encode


class PromptDetails(Struct):
    """`cache_write_tokens` is there where some were written: few vendors count them."""

    cached_tokens: int
    cache_write_tokens: int | UnsetType = UNSET


class CompletionDetails(Struct):
    reasoning_tokens: int


class ChatUsage(Struct):
    """`cost_usd` is an exact decimal, absent when unknown; `usage_source` is there unless the provider
    itself reported the figures."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails
    cost_usd: str | UnsetType = UNSET
    usage_source: str | UnsetType = UNSET


def usage_of(usage: Usage, cost_usd: Decimal | None, source: UsageSource) -> ChatUsage:
    return ChatUsage(
        usage.input_tokens,
        usage.output_tokens,
        usage.total_tokens,
        PromptDetails(usage.cached_input_tokens, usage.cache_write_tokens or UNSET),
        CompletionDetails(usage.reasoning_tokens),
        UNSET if cost_usd is None else f"{cost_usd:f}",
        UNSET if source == "provider" else source,
    )


class FunctionOut(Struct, omit_defaults=True):
    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class ToolCallDelta(Struct):
    """Id, type and name come with the first fragment only: SDKs append what is repeated."""

    index: int
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    function: FunctionOut | UnsetType = UNSET


class Delta(Struct):
    role: str | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    refusal: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET


class ToolCallOut(Struct):
    id: str
    function: FunctionOut
    type: str = "function"


class AssistantMessage(Struct):
    role: str
    content: str | None
    refusal: str | None = None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallOut] | UnsetType = UNSET


class Choice(Struct):
    index: int
    message: AssistantMessage
    finish_reason: str
    logprobs: None = None


class Completion(Struct):
    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: ChatUsage
    object: str = "chat.completion"


class ChunkWriter:
    """Writes the chunks of one response; all of them share id, time and model.

    What never changes is encoded once, so that a chunk costs the encoding of its delta.
    """

    def __init__(self, response_id: str, created: int, model: str) -> None:
        head = _encode(
            {"id": response_id, "object": "chat.completion.chunk", "created": created, "model": model}
        )
        self._head = b"data: " + head[:-1]
        self._choice = self._head + b',"choices":[{"index":0,"delta":'

    def delta(self, delta: Delta) -> bytes:
        return self._choice + _encode(delta) + b',"finish_reason":null}]}\n\n'

    def text(self, text: str) -> bytes:
        return self._choice + b'{"content":' + _encode(text) + b'},"finish_reason":null}]}\n\n'

    def finish(self, reason: str, usage: ChatUsage | None) -> bytes:
        """The chunk with the finish reason, and the usage where it does not come apart."""
        end = b"" if usage is None else b',"usage":' + _encode(usage)
        return self._choice + b'{},"finish_reason":' + _encode(reason) + b"}]" + end + b"}\n\n"

    def usage(self, usage: ChatUsage) -> bytes:
        """The extra chunk of `stream_options.include_usage`: empty `choices`."""
        return self._head + b',"choices":[],"usage":' + _encode(usage) + b"}\n\n"


def encode(value: Any) -> bytes:
    """A completion (or any struct of this module) as JSON."""
    return _encode(value)
