"""A turn's outputs as a Responses response: streamed, collected into one body, or streamed once more."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct

from trio_agent.errors import error_of
from trio_agent.event_log import BROKEN, LogReader
from trio_agent.faces.answer import STREAM_HEADERS, Headers, Send, send_error, send_json
from trio_agent.faces.responses_output import Head, Output
from trio_agent.statemachine import effects as fx
from trio_agent.turn.sink import Sink
from trio_agent.wire.responses_events import encode
from trio_agent.wire.sse import DONE


class Style(Struct, frozen=True):
    """How one response is to be written. It survives as JSON, so that the response can be written again.

    `headers` go on every answer of the turn, errors included.
    """

    head: Head
    headers: Headers
    stream: bool


decode_style = msgspec.json.Decoder(Style).decode


class StreamSink:
    """Writes server-sent events, one write for each batch of outputs, and `[DONE]` behind the last one.

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
        if ended:
            await self._send({"type": "http.response.body", "body": data + DONE, "more_body": False})
        elif data:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})


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


class ResumedStream:
    """Writes the events of a response that is made elsewhere, or was made: all, or those after one.

    The status is 200 from the start, for there is a response. So whatever becomes of it is told as an event.

    Args:
        style: of the response.
        after: the number of the last event that the client has seen.
    """

    def __init__(self, send: Send, style: Style, *, after: int = -1) -> None:
        self._send = send
        self._style = style
        self._after = after

    async def copy(self, reader: LogReader) -> None:
        """Write what is in a log, and what comes, to its end.

        Raises:
            StoreError: the store is out of reach; the stream has no end then.
        """
        output = Output(self._style.head, after=self._after)
        headers = [*STREAM_HEADERS, *self._style.headers]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._write(output.open())
        while (batches := await reader.next()) is not None:
            for batch in batches:
                last = batch[-1]
                ended = isinstance(last, fx.Finish | fx.SendError | fx.Reject)
                if isinstance(last, fx.SendError | fx.Reject) and last.problem is BROKEN:
                    output.skip_to(self._after + 1)
                await self._write(output.write(batch, at=int(reader.ended_at) if ended else None))
        await self._send({"type": "http.response.body", "body": DONE, "more_body": False})

    async def _write(self, data: bytes) -> None:
        if data:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})


def make_sink(style: Style, send: Send, ended_at: Callable[[], float]) -> Sink:
    """The sink that writes a response, streamed or not, for whoever asked for it.

    Args:
        ended_at: gives the wall time at which the answer was whole, in seconds since the epoch.
    """
    make = StreamSink if style.stream else CollectSink
    return make(send, style.head, style.headers, ended_at)


__all__ = ["CollectSink", "ResumedStream", "StreamSink", "Style", "decode_style", "make_sink"]
