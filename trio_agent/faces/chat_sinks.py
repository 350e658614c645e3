"""A turn's outputs as a Chat Completions response: streamed, or collected into one body."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, Struct

from trio_agent.errors import error_of
from trio_agent.event_log import LogReader
from trio_agent.faces.answer import (
    STREAM_HEADERS,
    Headers,
    InStreamErrors,
    Send,
    error_body,
    progress_event,
    send_error,
    send_json,
)
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.events import FinishReason
from trio_agent.turn.sink import Sink
from trio_agent.wire import chat_response as wire
from trio_agent.wire.sse import COMMENT, DONE, frame


class Style(Struct, frozen=True):
    """How one response is to be written. It survives as JSON, so that the response can be written again.

    `include_usage` is the client's `stream_options.include_usage`. `progress` says that the client asked
    to see server-side tools at work. `headers` go on every answer of the turn, errors included.
    """

    response_id: str
    created: int
    model: str
    headers: Headers
    stream: bool
    include_usage: bool = False
    progress: bool = False
    errors: InStreamErrors = "event"


_decode = msgspec.json.Decoder(Style).decode


class StreamSink:
    """Writes server-sent events, one write for each batch of outputs."""

    def __init__(self, send: Send, style: Style) -> None:
        self._send = send
        self._style = style
        self._write = wire.ChunkWriter(style.response_id, style.created, style.model)

    async def send(self, outputs: Sequence[fx.Output]) -> None:
        last = outputs[-1]
        if type(last) is fx.SendText and len(outputs) == 1:
            await self._send(
                {"type": "http.response.body", "body": self._write.text(last.text), "more_body": True}
            )
            return
        if isinstance(last, fx.Reject):
            await send_error(self._send, error_of(last.problem), self._style.headers)
            return
        body: list[bytes] = []
        for output in outputs:
            if isinstance(output, fx.Commit):
                headers = [*STREAM_HEADERS, *self._style.headers]
                await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            else:
                body.append(self._bytes(output))
        more = not isinstance(last, fx.Finish | fx.SendError)
        data = b"".join(body)
        if data or not more:
            await self._send({"type": "http.response.body", "body": data, "more_body": more})

    def _bytes(self, output: fx.Output) -> bytes:
        write = self._write
        match output:
            case fx.SendText(text):
                return write.text(text)
            case fx.SendReasoning(text):
                return write.delta(wire.Delta(reasoning_content=text))
            case fx.SendRefusal(text):
                return write.delta(wire.Delta(refusal=text))
            case fx.SendToolArguments(index, arguments):
                function = wire.FunctionOut(arguments=arguments)
                return write.delta(wire.Delta(tool_calls=[wire.ToolCallDelta(index, function=function)]))
            case fx.SendToolCall(index, call_id, name):
                function = wire.FunctionOut(name, "")
                call = wire.ToolCallDelta(index, call_id, "function", function)
                return write.delta(wire.Delta(tool_calls=[call]))
            case fx.SendRole():
                return write.delta(wire.Delta(role="assistant", content=""))
            case fx.SendKeepalive():
                return COMMENT
            case fx.SendToolProgress() if self._style.progress:
                return progress_event(output)
            case fx.Finish():
                return self._finish(output.finish_reason, output) + DONE
            case fx.SendError():
                return self._error(output)
            case _:
                # What this wire has no place for: signatures and encrypted reasoning stay on the server.
                return b""

    def _finish(self, reason: FinishReason, output: fx.Finish | fx.SendError) -> bytes:
        usage = wire.usage_of(output.usage, output.cost_usd, output.usage_source)
        if self._style.include_usage:
            return self._write.finish(reason, None) + self._write.usage(usage)
        return self._write.finish(reason, usage)

    def _error(self, output: fx.SendError) -> bytes:
        error = error_of(output.problem)
        parts: list[bytes] = []
        if self._style.errors != "event":
            parts.append(self._write.text(f"\n\n[{error.shown_code}] {error.message}"))
        if self._style.errors == "content":
            parts.append(self._finish("stop", output))
        else:
            parts.append(frame(error_body(error)))
        return b"".join([*parts, DONE])


class CollectSink:
    """Keeps the outputs and answers with one JSON body at the end, under the true status."""

    def __init__(self, send: Send, style: Style) -> None:
        self._send = send
        self._style = style
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[tuple[str, str, list[str]]] = []

    async def send(self, outputs: Sequence[fx.Output]) -> None:
        for output in outputs:
            match output:
                case fx.SendText(text):
                    self._text.append(text)
                case fx.SendRefusal(text):
                    self._refusal.append(text)
                case fx.SendReasoning(text):
                    self._reasoning.append(text)
                case fx.SendToolCall(_, call_id, name):
                    self._calls.append((call_id, name, []))
                case fx.SendToolArguments(index, arguments):
                    self._calls[index][2].append(arguments)
                case fx.Reject(problem) | fx.SendError(problem):
                    await send_error(self._send, error_of(problem), self._style.headers)
                case fx.Finish():
                    await send_json(self._send, 200, self._completion(output), self._style.headers)
                case _:
                    pass

    def _completion(self, output: fx.Finish) -> bytes:
        calls = [
            wire.ToolCallOut(call_id, wire.FunctionOut(name, "".join(arguments)))
            for call_id, name, arguments in self._calls
        ]
        text = "".join(self._text)
        message = wire.AssistantMessage(
            "assistant",
            text if text or not (calls or self._refusal) else None,
            "".join(self._refusal) or None,
            "".join(self._reasoning) or UNSET,
            calls or UNSET,
        )
        style = self._style
        usage = wire.usage_of(output.usage, output.cost_usd, output.usage_source)
        choice = wire.Choice(0, message, output.finish_reason)
        return wire.encode(wire.Completion(style.response_id, style.created, style.model, [choice], usage))


def make_sink(style: Style, send: Send) -> Sink:
    """The sink that writes a response, streamed or not."""
    return StreamSink(send, style) if style.stream else CollectSink(send, style)


def sink_of(reader: LogReader, send: Send) -> Sink:
    """The sink that writes a response again; its style is the head of its log."""
    return make_sink(_decode(reader.head), send)


__all__ = ["CollectSink", "StreamSink", "Style", "make_sink", "sink_of"]
