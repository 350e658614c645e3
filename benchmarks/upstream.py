"""The upstream: a Chat Completions server that answers by plan, as cheaply as the standard library can.

`python -m benchmarks.upstream` takes a free port of 127.0.0.1, prints it, and serves until its standard
input is closed.
"""

from __future__ import annotations

import asyncio
import json
import sys

from benchmarks.plan import Plan

MODEL = "bench-model"
_HEAD = (
    '"id":"chatcmpl-00000000000000000000000000000000","object":"chat.completion.chunk",'
    f'"created":1700000000,"model":"{MODEL}","system_fingerprint":"fp_0000000000"'
)
_USAGE = '"usage":{"prompt_tokens":9,"completion_tokens":7,"total_tokens":16}'
_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_CHUNK = (
    "data: {"
    + _HEAD
    + ',"choices":[{"index":0,"delta":{"content":"%s"},"logprobs":null,"finish_reason":null}]}'
    "\n\n"
)
_ROLE = (
    "data: {" + _HEAD + ',"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,'
    '"finish_reason":null}]}\n\n'
)
_FINISH = (
    "data: {" + _HEAD + ',"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\n'
    "data: {" + _HEAD + ',"choices":[],' + _USAGE + "}\n\ndata: [DONE]\n\n"
)


def _framed(events: str) -> bytes:
    data = events.encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


_END = _framed(_FINISH) + b"0\r\n\r\n"


class Answering(asyncio.Protocol):
    """One connection. Requests come one after the other, each with a `Content-Length` body or none."""

    def __init__(self) -> None:
        self._received = b""
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        if not blank:
            return
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        if len(body) < length:
            return
        self._received = body[length:]
        if head.startswith(b"GET"):
            self._send_json({"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        else:
            self._answer(json.loads(body[:length]))

    def _answer(self, request: dict[str, object]) -> None:
        content = request["messages"][-1]["content"]  # type: ignore[index]
        if isinstance(content, list):
            content = content[0]["text"]
        plan = Plan.parse(content)
        if request.get("stream"):
            self._stream(plan)
            return
        message = {"role": "assistant", "content": plan.text()}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        head = {"id": "chatcmpl-0", "object": "chat.completion", "created": 1700000000, "model": MODEL}
        self._send_json({**head, "choices": [choice], **json.loads("{" + _USAGE + "}")})

    def _send_json(self, document: dict[str, object]) -> None:
        data = json.dumps(document).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(data)
        self._transport.write(head + data)

    def _stream(self, plan: Plan) -> None:
        chunks = [_framed(_CHUNK % word) for word in plan.words()]
        if not plan.every_us:
            end = b"" if plan.hold else _END
            self._transport.write(_STREAM + _framed(_ROLE) + b"".join(chunks) + end)
            return
        writes = [b"".join(chunks[at : at + plan.burst]) for at in range(0, len(chunks), plan.burst)]
        loop = asyncio.get_running_loop()
        start = loop.time() + plan.phase_us * 1e-6
        self._transport.write(_STREAM + _framed(_ROLE))

        def write(number: int) -> None:
            self._transport.write(writes[number])
            if number + 1 < len(writes):
                due = start + (number + 1) * plan.every_us * 1e-6
                self._timer = loop.call_at(due, write, number + 1)
            elif not plan.hold:
                self._transport.write(_END)

        self._timer = loop.call_at(start, write, 0)


async def serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Answering, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    closed = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), closed.set)
    async with server:
        await closed.wait()


if __name__ == "__main__":
    asyncio.run(serve())
