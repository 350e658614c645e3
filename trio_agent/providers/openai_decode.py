"""From the events of a Chat Completions stream to `CallEvent`s.

An answer is complete when a `finish_reason` came and then `[DONE]` or the end of the response. Whatever
ends otherwise is a failure, and what came before the failure is delivered first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec

from trio_agent.providers.answer_decoder import AnswerDecoder, Reporter, WholeBody
from trio_agent.providers.contract import UpstreamError
from trio_agent.providers.openai_quirks import Quirks
from trio_agent.providers.openai_reasoning import ReasoningBlocks, words_of
from trio_agent.providers.openai_tool_calls import ToolCallAssembler
from trio_agent.providers.upstream_failure import ErrorDetails, read_error
from trio_agent.statemachine.conversation import Usage
from trio_agent.statemachine.events import (
    CallEvent,
    CallFinished,
    FinishReason,
    ReasoningData,
    ReasoningDelta,
    ReasoningEnded,
    RefusalDelta,
    TextDelta,
    UsageReported,
)
from trio_agent.wire.chat import ChatChunk, ChatDelta, ChatUsage, decode_chunk, encode_json
from trio_agent.wire.sse import SSEEvent

_TICKS: Final = Decimal("1e-10")
_MILLION_USD: Final = Decimal(10**6)

FINISH_REASONS: Final[dict[str, FinishReason]] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "complete": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "max_output_tokens": "length",
    "tool_calls": "tool_calls",
    "tool_call": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "content_filtered": "content_filter",
    "safety": "content_filter",
    "recitation": "content_filter",
    "refusal": "content_filter",
    "sensitive": "content_filter",
    "blocklist": "content_filter",
    "prohibited_content": "content_filter",
    "spii": "content_filter",
}
"""The words that servers use. Any other word fails the call, since it does not say that the answer is
whole."""

_BROKEN_OFF: Final = frozenset(
    {
        "error",
        "abort",
        "aborted",
        "cancelled",
        "network_error",
        "insufficient_system_resource",  # DeepSeek
        "function_call_filter",  # Gemini could not read its own model's call
        "malformed_function_call",
        "unexpected_tool_call",
    }
)


class ChatDecoder(AnswerDecoder):
    """Decodes one answer.

    Args:
        report: makes the errors.
        quirks: the server's ways.
        new_id: a fresh tool-call id, for servers that send none.
        taken: the ids of the calls that the conversation holds already; no new call gets one of them.
    """

    def __init__(
        self, report: Reporter, quirks: Quirks, new_id: Callable[[], str], taken: Collection[str] = ()
    ) -> None:
        super().__init__(report)
        self._quirks = quirks
        self._tool_calls = ToolCallAssembler(new_id, taken)
        self._blocks = ReasoningBlocks()
        self._reasoning_open = False
        self._said_something = False
        self._finish: str | None = None
        self._stop_sequence: str | None = None
        self._usage: UsageReported | None = None
        self._id: str | None = None
        self._model: str | None = None

    def _take(self, event: SSEEvent, out: list[CallEvent]) -> None:
        data = event.data
        if data == b"[DONE]" or not data or data.isspace() or event.event == "ping":
            if data.strip() == b"[DONE]":
                self._conclude(out)
            return
        try:
            chunk = decode_chunk(data)
        except msgspec.DecodeError as error:
            if data.strip() == b"[DONE]":
                self._conclude(out)
                return
            if event.event == "error":
                text = data.decode("utf-8", "replace")
                raise self._report.reported(ErrorDetails(message=text)) from None
            raise self._report.error("malformed", f"sent a chunk that is not JSON: {error}") from None
        if chunk.error or chunk.object == "error" or event.event == "error":
            raise self._reported(data)
        self._take_chunk(chunk, out)
        if isinstance(event, WholeBody):
            if not chunk.choices:
                raise self._report.error("malformed", "answered with JSON that is no chat completion")
            self._conclude(out)

    def _reported(self, data: bytes) -> UpstreamError:
        body = msgspec.json.decode(data)
        details = read_error(body) or read_error({"error": body}) or ErrorDetails()
        return self._report.reported(details)

    def _take_chunk(self, chunk: ChatChunk, out: list[CallEvent]) -> None:
        self._id = self._id or chunk.id
        self._model = self._model or chunk.model
        for choice in chunk.choices or ():
            if choice.index not in (None, 0):
                continue
            delta = choice.delta if choice.delta is not None else choice.message
            if delta is not None:
                self._take_delta(delta, out)
            if choice.finish_reason:
                self._finish = choice.finish_reason
                stopped_by = choice.stop_reason
                self._stop_sequence = stopped_by if isinstance(stopped_by, str) else None
        extra = chunk.x_groq
        if extra is not None and extra.error:
            raise self._report.reported(read_error({"error": extra.error}) or ErrorDetails())
        usage = chunk.usage or (extra.usage if extra is not None else None)
        if usage is not None:
            report = usage_of(usage, self._quirks)
            if report is not None and report != self._usage:
                self._usage = report
                out.append(report)

    def _take_delta(self, delta: ChatDelta, out: list[CallEvent]) -> None:
        reasoning = delta.reasoning_content or delta.reasoning
        if delta.reasoning_details:
            self._blocks.take(delta.reasoning_details)
            reasoning = reasoning or words_of(delta.reasoning_details)
        if reasoning:
            self._reason(reasoning, out)
        content = delta.content
        if isinstance(content, str):
            if content:
                self._end_reasoning(out)
                out.append(TextDelta(content))
        elif content is not None:
            self._take_parts(content, out)
        if delta.refusal:
            self._end_reasoning(out)
            out.append(RefusalDelta(delta.refusal))
        for fragment in delta.tool_calls or ():
            self._end_reasoning(out)
            self._tool_calls.take(fragment, out)

    def _take_parts(self, parts: Sequence[Any], out: list[CallEvent]) -> None:
        """Content as parts: Mistral's `thinking` beside `text`."""
        for part in parts:
            if not isinstance(part, dict):
                continue
            text, thinking = part.get("text"), part.get("thinking")
            if isinstance(thinking, list):
                thinking = "".join(
                    piece["text"]
                    for piece in thinking
                    if isinstance(piece, dict) and isinstance(piece.get("text"), str)
                )
            if isinstance(thinking, str) and thinking:
                self._reason(thinking, out)
            if isinstance(text, str) and text:
                self._end_reasoning(out)
                out.append(TextDelta(text))

    def _reason(self, text: str, out: list[CallEvent]) -> None:
        self._reasoning_open = True
        self._said_something = True
        out.append(ReasoningDelta(text))

    def _end_reasoning(self, out: list[CallEvent]) -> None:
        self._said_something = True
        if self._reasoning_open:
            self._reasoning_open = False
            out.append(ReasoningEnded())

    def _conclude(self, out: list[CallEvent]) -> None:
        """Say that the answer is complete, if it is."""
        word = self._finish
        if word is None:
            raise self._report.error("truncated", "ended its answer without saying that it was complete")
        # Gemini adds its own word: `content_filter: SAFETY`.
        known = word.lower().partition(":")[0].strip()
        reason = FINISH_REASONS.get(known)
        if known in _BROKEN_OFF:
            raise self._report.error("unavailable", f"gave up in its answer (finish_reason {word[:60]!r})")
        if reason is None:
            raise self._report.error("malformed", f"finished for a reason that is not known: {word[:60]!r}")
        if self._tool_calls.nameless:
            raise self._report.error("malformed", "made a tool call without a name")
        if reason == "stop" and self._tool_calls.any:
            reason = "tool_calls"  # Ollama and Gemini have said `stop` here
        if reason == "tool_calls" and not self._tool_calls.any:
            if not self._said_something:
                raise self._report.error("malformed", "finished for a tool call that it did not make")
            reason = "stop"
        self._end_reasoning(out)
        if reason == "tool_calls":
            self._tool_calls.complete(out)
        if blocks := self._blocks.whole():
            out.append(ReasoningData(encode_json({"reasoning_details": blocks}).decode()))
        out.append(CallFinished(reason, self._id, self._model, self._stop_sequence))
        self.finished = True


def usage_of(usage: ChatUsage, quirks: Quirks) -> UsageReported | None:
    """A server's usage in ours, or `None` where it counts nothing.

    Cached and reasoning tokens are inside the prompt and the completion, as OpenAI counts. Servers that
    count reasoning beside the completion are known by the total, which is then larger than the sum.
    """
    prompt, completion, total = (
        max(0, count or 0) for count in (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
    )
    in_prompt, in_completion = usage.prompt_tokens_details, usage.completion_tokens_details
    reasoning = (in_completion.reasoning_tokens if in_completion else None) or usage.reasoning_tokens or 0
    beside = total - prompt - completion
    if beside > 0 and (quirks.hidden_reasoning or beside == reasoning):
        completion += beside
        reasoning = reasoning or beside
    cached = (in_prompt.cached_tokens if in_prompt else None) or usage.prompt_cache_hit_tokens
    written = (in_prompt.cache_write_tokens or in_prompt.cache_creation_tokens) if in_prompt else None
    counted = Usage(
        input_tokens=prompt,
        output_tokens=completion,
        cached_input_tokens=_within(cached or usage.cached_tokens, prompt),
        cache_write_tokens=_within(written, prompt),
        reasoning_tokens=_within(reasoning, completion),
    )
    cost = _cost_of(usage, quirks)
    if not counted.total_tokens and not cost:
        return None
    return UsageReported(counted, cost)


def _within(count: int | None, whole: int) -> int:
    return min(max(0, count or 0), whole)


def _cost_of(usage: ChatUsage, quirks: Quirks) -> Decimal | None:
    cost = _amount(usage.cost_usd)
    if cost is None and usage.cost_in_usd_ticks is not None:
        cost = _amount(usage.cost_in_usd_ticks * _TICKS)
    if cost is None and quirks.cost:
        cost = _amount(usage.cost)
        details = usage.cost_details
        charged = _amount(details.upstream_inference_cost) if usage.is_byok and details is not None else None
        if cost is not None and charged is not None:
            cost += charged  # by the vendor, beside the router's fee
    return cost


def _amount(usd: Decimal | None) -> Decimal | None:
    return usd if usd is not None and usd.is_finite() and 0 <= usd < _MILLION_USD else None
