"""Writing down what goes out to whoever reads the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from trio_agent.recording.format import Status, Told
from trio_agent.recording.trace import Trace, bytes_line
from trio_agent.statemachine.effects import Output
from trio_agent.turn.context import Send
from trio_agent.turn.sink import Sink


def traced_send(send: Send, trace: Trace) -> Send:
    """ASGI's `send`, written down."""

    async def traced(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
            trace.begin_write(Status(t=trace.now(), status=message["status"], headers=headers), 300)
        else:
            content = message.get("body", b"")
            end = not message.get("more_body", False)
            trace.begin_write(bytes_line(trace.now(), content, end), 100 + len(content))
        try:
            await send(message)
        except BaseException:
            trace.tear_write()
            raise
        trace.end_write()

    return traced


class TracedSink:
    """The sink of an embedding program, written down."""

    def __init__(self, inner: Sink, trace: Trace) -> None:
        self._inner = inner
        self._trace = trace

    async def send(self, outputs: Sequence[Output]) -> None:
        trace = self._trace
        plain = [msgspec.to_builtins(each, enc_hook=str) for each in outputs]
        trace.begin_write(Told(t=trace.now(), outputs=plain), 200 * len(plain))
        try:
            await self._inner.send(outputs)
        except BaseException:
            trace.tear_write()
            raise
        trace.end_write()
