"""A turn's outputs as a Responses response: streamed, or collected into one body."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trio_agent.errors import error_of
from trio_agent.faces.answer import STREAM_HEADERS, Headers, Send, send_error, send_json
from trio_agent.faces.responses_output import Head, Output
from trio_agent.statemachine import effects as fx
from trio_agent.wire.responses_events import encode


class StreamSink:
    """Writes server-sent events, one write for each batch of outputs.

    Args:
        headers: go on every answer of the turn, errors included.
        ended_at: gives the wall time at which the answer was whole, in seconds since the epoch.
    """

    def __init__(self, send: Send, head: Head, headers: Headers, ended_at: Callable[[], float]) -> None:
        self._send = send
        self._headers = headers
        self._ended_at = ended_at
        self._output = Output(head)
        self._more_text = self._output.more_text

    async def send(self, outputs: Sequence[fx.Output]) -> None:
        last = outputs[-1]
        if type(last) is fx.SendText and len(outputs) == 1:
            body = self._more_text(last.text)
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
            return
        if isinstance(last, fx.Reject):
            await send_error(self._send, error_of(last.problem), self._headers)
            return
        if any(isinstance(output, fx.Commit) for output in outputs):
            headers = [*STREAM_HEADERS, *self._headers]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        ended = isinstance(last, fx.Finish | fx.SendError)
        data = self._output.write(outputs, at=int(self._ended_at()) if ended else None)
        if data or ended:
            await self._send({"type": "http.response.body", "body": data, "more_body": not ended})


class CollectSink:
    """Keeps the outputs and answers with one response object at the end, under the true status.

    Args:
        headers: go on every answer of the turn, errors included.
        ended_at: gives the wall time at which the answer was whole, in seconds since the epoch.
    """

    def __init__(self, send: Send, head: Head, headers: Headers, ended_at: Callable[[], float]) -> None:
        self._send = send
        self._headers = headers
        self._ended_at = ended_at
        self._output = Output(head, streamed=False)

    async def send(self, outputs: Sequence[fx.Output]) -> None:
        last = outputs[-1]
        if isinstance(last, fx.Reject | fx.SendError):
            await send_error(self._send, error_of(last.problem), self._headers)
            return
        ended = isinstance(last, fx.Finish)
        self._output.write(outputs, at=int(self._ended_at()) if ended else None)
        if ended:
            await send_json(self._send, 200, encode(self._output.body()), self._headers)


__all__ = ["CollectSink", "StreamSink"]
