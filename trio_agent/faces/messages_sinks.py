"""A turn's outputs as a Messages response: streamed, or collected into one message."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from trio_agent.errors import error_of
from trio_agent.event_log import LogReader
from trio_agent.faces.answer import (
    STREAM_HEADERS,
    Headers,
    InStreamErrors,
    Send,
    anthropic_error_body,
    progress_event,
    send_error,
    send_json,
)
from trio_agent.faces.messages_blocks import Blocks
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.conversation import Usage
from trio_agent.turn.sink import Sink
from trio_agent.wire import messages_response as wire
from trio_agent.wire.sse import frame


class Style(Struct, frozen=True):
    """How one response is to be written. It survives as JSON, so that the response can be written again.

    `progress` says that the client asked to see server-side tools at work. `headers` go on every answer of
    the turn, errors included.
    """

    response_id: str
    model: str
    headers: Headers
    stream: bool
    progress: bool = False
    errors: InStreamErrors = "event"


_decode = msgspec.json.Decoder(Style).decode


class _Said:
    """What has been said so far, as content blocks. `refusal` are the words with which the model declined."""

    def __init__(self) -> None:
        self.blocks = Blocks()
        self._refusal: list[str] = []

    @property
    def refusal(self) -> str:
        return "".join(self._refusal)

    def take(self, output: fx.Output) -> None:
        """Note content; other outputs are none."""
        blocks = self.blocks
        match output:
            case fx.SendText(text):
                blocks.say("text", text)
            case fx.SendRefusal(text):
                self._refusal.append(text)
                blocks.say("text", text)
            case fx.SendReasoning(text):
                blocks.say("thinking", text)
            case fx.SendReasoningSignature(signature):
                blocks.sign(signature)
            case fx.SendReasoningEnd():
                blocks.end_thinking()
            case fx.SendRedactedReasoning(data):
                blocks.redact(data)
            case fx.SendToolCall(index, call_id, name):
                blocks.start_call(index, call_id, name)
            case fx.SendToolArguments(index, arguments):
                blocks.add_arguments(index, arguments)
            case _:
                pass


class StreamSink:
    """Writes server-sent events, one write for each batch of outputs."""

    def __init__(self, send: Send, style: Style) -> None:
        self._send = send
        self._style = style
        self._said = _Said()

    async def send(self, outputs: Sequence[fx.Output]) -> None:
        last = outputs[-1]
        if type(last) is fx.SendText and len(outputs) == 1:
            body = self._said.blocks.more_text(last.text)
            if body:
                await self._send({"type": "http.response.body", "body": body, "more_body": True})
                return
        if isinstance(last, fx.Reject):
            await send_error(self._send, error_of(last.problem), self._style.headers, anthropic_error_body)
            return
        parts: list[bytes] = []
        for output in outputs:
            if isinstance(output, fx.Commit):
                headers = [*STREAM_HEADERS, *self._style.headers]
                await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            else:
                parts.append(self._bytes(output))
        more = not isinstance(last, fx.Finish | fx.SendError)
        data = b"".join(parts)
        if data or not more:
            await self._send({"type": "http.response.body", "body": data, "more_body": more})

    def _bytes(self, output: fx.Output) -> bytes:
        match output:
            case fx.SendText(text) if more := self._said.blocks.more_text(text):
                return more
            case fx.SendRole(usage):
                return wire.message_start(self._style.response_id, self._style.model, usage or Usage())
            case fx.SendKeepalive():
                return wire.PING
            case fx.SendToolProgress():
                return progress_event(output) if self._style.progress else b""
            case fx.Finish():
                state = wire.stop_state(output.finish_reason, output.stop_sequence, self._said.refusal)
                figures = wire.usage_of(output.usage, output.cost_usd, output.usage_source)
                return self._end(state, figures)
            case fx.SendError():
                return self._error(output)
            case _:
                self._said.take(output)
                return self._said.blocks.written()

    def _end(self, state: wire.StopState, usage: wire.MessagesUsage) -> bytes:
        rest = self._said.blocks.written(final=True)
        return rest + wire.message_delta(state, usage) + wire.MESSAGE_STOP

    def _error(self, output: fx.SendError) -> bytes:
        error = error_of(output.problem)
        parts: list[bytes] = []
        if self._style.errors != "event":
            self._said.blocks.say("text", f"\n\n[{error.shown_code}] {error.message}")
            # `final`: it must not wait behind a call that will never be whole.
            parts.append(self._said.blocks.written(final=True))
        if self._style.errors == "content":
            usage = wire.usage_of(output.usage, output.cost_usd, output.usage_source)
            parts.append(self._end(wire.StopState("end_turn"), usage))
        else:
            parts.append(frame(anthropic_error_body(error), event="error"))
        return b"".join(parts)


class CollectSink:
    """Keeps the outputs and answers with one message at the end, under the true status."""

    def __init__(self, send: Send, style: Style) -> None:
        self._send = send
        self._style = style
        self._said = _Said()

    async def send(self, outputs: Sequence[fx.Output]) -> None:
        headers = self._style.headers
        for output in outputs:
            match output:
                case fx.Reject(problem) | fx.SendError(problem):
                    await send_error(self._send, error_of(problem), headers, anthropic_error_body)
                case fx.Finish():
                    await send_json(self._send, 200, self._message(output), headers)
                case _:
                    self._said.take(output)

    def _message(self, output: fx.Finish) -> bytes:
        state = wire.stop_state(output.finish_reason, output.stop_sequence, self._said.refusal)
        message = wire.WholeMessage(
            id=self._style.response_id,
            model=self._style.model,
            content=self._said.blocks.collected(),
            stop_reason=state.stop_reason,
            stop_sequence=state.stop_sequence,
            stop_details=state.stop_details,
            usage=wire.usage_of(output.usage, output.cost_usd, output.usage_source),
        )
        return wire.encode(message)


def make_sink(style: Style, send: Send) -> Sink:
    """The sink that writes a response, streamed or not."""
    return StreamSink(send, style) if style.stream else CollectSink(send, style)


def sink_of(reader: LogReader, send: Send) -> Sink:
    """The sink that writes a response again; its style is the head of its log."""
    return make_sink(_decode(reader.head), send)


__all__ = ["CollectSink", "StreamSink", "Style", "make_sink", "sink_of"]
