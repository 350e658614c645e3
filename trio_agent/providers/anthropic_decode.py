"""Anthropic's stream events into call events.

One `MessagesDecoder` reads one answer. What the events mean is taken from Anthropic's streaming
documentation and the types of its SDK:

- `end_turn` and `stop_sequence` finish with `stop`, or with `tool_calls` where the answer holds calls.
- `tool_use` finishes with `tool_calls`.
- `max_tokens` and `model_context_window_exceeded` finish with `length`. So does `pause_turn`: the vendor
  paused a long turn, so the answer is not whole and may be continued.
- `refusal` finishes with `content_filter`; the vendor's explanation, where it gives one, is refusal text.
- None, or one that is not known here, is read like `end_turn`: `message_stop` has said that the message
  is whole.

Blocks of types that are not known here (the vendor's own server tools, for one) are passed over.
"""

from __future__ import annotations

import msgspec

from trio_agent.providers.answer_decoder import AnswerDecoder, Reporter, WholeBody
from trio_agent.providers.upstream_failure import ErrorDetails, read_error
from trio_agent.statemachine.conversation import Usage
from trio_agent.statemachine.events import (
    CallEvent,
    CallFinished,
    FinishReason,
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
from trio_agent.wire import messages as wire
from trio_agent.wire.sse import SSEEvent

FINISH_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",
    "refusal": "content_filter",
}

# https://platform.claude.com/docs/en/api/errors: the status that each type of error has outside of a stream.
ERROR_STATUS: dict[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class _Block(msgspec.Struct):
    """An open content block. `said` tells whether any of it has been passed on."""

    said: bool = False


class _Text(_Block):
    pass


class _Thinking(_Block):
    signature: str = ""


class _ToolUse(_Block):
    tool_index: int = 0
    whole_input: str = ""


class _Skipped(_Block):
    pass


class MessagesDecoder(AnswerDecoder):
    """Turns the events of one answer into call events.

    The answer is over with `message_stop`; nothing that comes after it is read.

    Args:
        report: makes the errors.
    """

    def __init__(self, report: Reporter) -> None:
        super().__init__(report)
        self._blocks: dict[int, _Block] = {}
        self._call_ids: set[str] = set()
        self._usage = wire.MessageUsage()
        self._id: str | None = None
        self._model: str | None = None
        self._stop_reason: str | None = None
        self._stop_sequence: str | None = None

    def _take(self, event: SSEEvent, out: list[CallEvent]) -> None:
        try:
            if isinstance(event, WholeBody):
                self._take_whole(event.data, out)
                return
            received = wire.decode_event(event.data)
            if received is not None:
                self._receive(received, out)
            elif event.event == "error":
                # Another vendor's error object, from a server that merely speaks this format.
                details = read_error(msgspec.json.decode(event.data))
                raise self._report.reported(details or ErrorDetails())
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._report.error("malformed", f"sent an event that cannot be read: {error}") from None

    def _conclude(self, out: list[CallEvent]) -> None:
        raise self._report.error("truncated", "ended its answer without saying that it was complete")

    def _take_whole(self, body: bytes, out: list[CallEvent]) -> None:
        """An answer that came as one JSON object, though a stream was asked for."""
        message = wire.decode_message(body)
        if message.type == "error":
            raise self._report.reported(_details(wire.decode_error(body).error))
        if message.type != "message":
            raise self._report.error("malformed", "answered with JSON that is no message")
        blocks = [wire.decode_block(raw) for raw in message.content]
        self._receive(wire.MessageStart(wire.MessageStub(message.id, message.model)), out)
        for index, block in enumerate(blocks):
            self._receive(wire.ContentBlockStart(index, block), out)
            self._receive(wire.ContentBlockStop(index), out)
        change = wire.MessageChange(message.stop_reason, message.stop_details, message.stop_sequence)
        self._receive(wire.MessageDelta(change, message.usage), out)
        self._receive(wire.MessageStop(), out)

    def _receive(self, event: wire.StreamEvent, out: list[CallEvent]) -> None:
        match event:
            case wire.ContentBlockDelta(index=index, delta=delta):
                self._on_delta(index, delta, out)
            case wire.ContentBlockStart(index=index, content_block=block):
                self._on_block(index, block, out)
            case wire.ContentBlockStop(index=index):
                self._close(index, out)
            case wire.MessageStart(message=message):
                self._id, self._model = message.id, message.model
                self._on_usage(message.usage, out)
            case wire.MessageDelta(delta=change, usage=usage):
                self._on_change(change, usage, out)
            case wire.MessageStop():
                for index in list(self._blocks):
                    self._close(index, out)
                out.append(CallFinished(self._finish_reason(), self._id, self._model, self._stop_sequence))
                self.finished = True
            case wire.ErrorEvent(error=error):
                raise self._report.reported(_details(error))
            case wire.Ping():
                pass

    def _on_block(self, index: int, block: wire.ContentBlock | None, out: list[CallEvent]) -> None:
        self._close(index, out)
        self._close_signed(out)
        match block:
            case wire.TextBlock(text=text):
                self._blocks[index] = _Text()
                if text:
                    out.append(TextDelta(text))
            case wire.ThinkingBlock(thinking=thinking, signature=signature):
                self._blocks[index] = _Thinking(said=bool(thinking), signature=signature or "")
                if thinking:
                    out.append(ReasoningDelta(thinking))
            case wire.RedactedThinkingBlock(data=data):
                self._blocks[index] = _Skipped()
                out.append(RedactedReasoning(data))
            case wire.ToolUseBlock(id=call_id, name=name, input=raw):
                if not call_id or not name:
                    raise self._report.error("malformed", "began a tool call without an id or a name")
                if call_id in self._call_ids:
                    raise self._report.error("malformed", "gave two tool calls the same id")
                tool = _ToolUse(tool_index=len(self._call_ids), whole_input=bytes(raw).decode())
                self._blocks[index] = tool
                self._call_ids.add(call_id)
                out.append(ToolCallStarted(tool.tool_index, call_id, name))
            case None:
                self._blocks[index] = _Skipped()

    def _on_delta(self, index: int, delta: wire.BlockDelta, out: list[CallEvent]) -> None:
        block = self._blocks.get(index)
        match block, delta:
            case _Text(), wire.TextDelta(text=text):
                if text:
                    out.append(TextDelta(text))
            case _Thinking(), wire.ThinkingDelta(thinking=thinking):
                if thinking:
                    block.said = True
                    out.append(ReasoningDelta(thinking))
            case _Thinking(), wire.SignatureDelta(signature=signature):
                # The SDK sets the signature and does not append to it: the last one counts.
                block.signature = signature
            case _ToolUse(), wire.InputJSONDelta(partial_json=arguments):
                if arguments:
                    block.said = True
                    out.append(ToolCallDelta(block.tool_index, arguments))
            case _Skipped(), _:
                pass
            case None, _:
                raise self._report.error("malformed", f"continued content block {index} without starting it")
            case _:
                raise self._report.error("malformed", f"mixed two kinds of content in block {index}")

    def _close(self, index: int, out: list[CallEvent]) -> None:
        match self._blocks.pop(index, None):
            case _Thinking(signature=signature) if signature:
                out.append(ReasoningSigned(signature))
            case _Thinking(said=True):
                out.append(ReasoningEnded())
            case _ToolUse(said=False, tool_index=tool_index, whole_input=whole_input):
                # A call without arguments is `{}` on every wire; an empty string is not JSON.
                out.append(ToolCallDelta(tool_index, whole_input if whole_input.startswith("{") else "{}"))
            case _:
                pass

    def _close_signed(self, out: list[CallEvent]) -> None:
        """Close signed thinking before another block begins: the signature is for what came just before."""
        for index, block in list(self._blocks.items()):
            if isinstance(block, _Thinking) and block.signature:
                self._close(index, out)

    def _on_change(
        self, change: wire.MessageChange, usage: wire.MessageUsage | None, out: list[CallEvent]
    ) -> None:
        self._stop_reason = change.stop_reason or self._stop_reason
        self._stop_sequence = change.stop_sequence or self._stop_sequence
        if (
            change.stop_reason == "refusal"
            and change.stop_details is not None
            and change.stop_details.explanation
        ):
            out.append(RefusalDelta(change.stop_details.explanation))
        self._on_usage(usage, out)

    def _on_usage(self, usage: wire.MessageUsage | None, out: list[CallEvent]) -> None:
        if usage is None:
            return
        # Counts are cumulative. A later report may leave out what did not change, and some servers say 0.
        told = {
            name: value
            for name in usage.__struct_fields__
            if (value := getattr(usage, name)) is not None and not _falls(getattr(self._usage, name), value)
        }
        self._usage = msgspec.structs.replace(self._usage, **told)
        total = usage_of(self._usage)
        if total.total_tokens:
            out.append(UsageReported(total))

    def _finish_reason(self) -> FinishReason:
        reason = FINISH_REASONS.get(self._stop_reason or "", "stop")
        return "tool_calls" if reason == "stop" and self._call_ids else reason


def _falls(before: object, now: object) -> bool:
    return isinstance(before, int) and isinstance(now, int) and now < before


def usage_of(usage: wire.MessageUsage) -> Usage:
    """Anthropic's counts in our convention: cache reads and writes are part of the input tokens."""
    by_lifetime = usage.cache_creation or wire.CacheCreation()
    short, long = _count(by_lifetime.ephemeral_5m_input_tokens), _count(by_lifetime.ephemeral_1h_input_tokens)
    written = usage.cache_creation_input_tokens
    written = short + long if written is None else _count(written)
    read = _count(usage.cache_read_input_tokens)
    details = usage.output_tokens_details or wire.OutputTokensDetails()
    return Usage(
        input_tokens=_count(usage.input_tokens) + read + written,
        output_tokens=_count(usage.output_tokens),
        cached_input_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=min(long, written),
        reasoning_tokens=_count(details.thinking_tokens),
    )


def _count(tokens: int | None) -> int:
    return max(0, tokens or 0)


def _details(error: wire.ErrorObject) -> ErrorDetails:
    return ErrorDetails(
        message=error.message or None, type=error.type or None, status=ERROR_STATUS.get(error.type)
    )
