"""A client that goes away stops the upstream: in every phase of a turn, with FIN and with RST."""

from __future__ import annotations

import json
import socket
import statistics
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from support.upstream import Reply, Upstream, scripted_upstream

from trio_agent.agent import Agent, open_agent
from trio_agent.server.app import serve

RUNS = 3
LIMIT_S = 0.05


@dataclass
class Moments:
    """What the upstream and the server-side tool saw in one run."""

    arrived: trio.Event = field(default_factory=trio.Event)
    left_at: float | None = None
    left: trio.Event = field(default_factory=trio.Event)

    def note_left(self) -> None:
        self.left_at = trio.current_time()
        self.left.set()


@dataclass
class Stage:
    """The server under test. A new `Moments` for every run."""

    agent: Agent
    port: int
    upstream: Upstream
    moments: Moments

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def health(self) -> dict[str, Any]:
        async with await self.connect() as stream:
            await stream.send_all(
                b"GET /health/detailed HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
            )
            answer = b"".join([data async for data in stream])
        told: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
        return told

    async def idle(self) -> None:
        """Return once no turn is active; every look is a request of its own."""
        with trio.fail_after(2):
            while (await self.health())["active_turns"]:
                pass


Speak = Callable[[Reply], Awaitable[None]]


async def _silent(reply: Reply) -> None:
    """The upstream takes the request and says nothing."""


def _chunk(delta: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"


async def _text(reply: Reply) -> None:
    await reply.head()
    await reply.chunk(_chunk({"role": "assistant", "content": "Once upon"}))


def _call(name: str, arguments: str) -> bytes:
    function = {"name": name, "arguments": arguments}
    return _chunk({"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": function}]})


async def _half_a_call(reply: Reply) -> None:
    await reply.head()
    await reply.chunk(_call("weather", '{"city": "Ro'))


async def _server_tool(reply: Reply) -> None:
    await reply.head()
    await reply.chunk(_call("wait_for_ever", "{}"))
    await reply.chunk(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}\n\n')
    await reply.chunk(b"data: [DONE]\n\n")
    await reply.end()


@dataclass(frozen=True)
class Phase:
    """`speak` is what the upstream says before it falls silent, `shown` what the client waits for."""

    speak: Speak
    shown: bytes = b""
    stream: bool = True
    window: str = "5"
    committed_by: str | None = "content"


PHASES = {
    "preflight": Phase(_silent, committed_by=None),
    "after the role chunk": Phase(_silent, b'"role":"assistant"', window="0", committed_by="window"),
    "mid-text": Phase(_text, b"Once upon"),
    "mid-tool-call": Phase(_half_a_call, b"Ro"),
    "in a server tool": Phase(_server_tool, b'"role":"assistant"', window="0", committed_by="window"),
    "in a server tool, in preflight": Phase(_server_tool, committed_by=None),
    "unstreamed, nothing yet": Phase(_silent, stream=False, committed_by=None),
    "unstreamed, half of it": Phase(_text, stream=False, committed_by=None),
    "unstreamed, in a server tool": Phase(_server_tool, stream=False, committed_by=None),
}


@asynccontextmanager
async def stage(speak: Speak, home: Path) -> AsyncIterator[Stage]:
    """A server before a scripted upstream, both in this process, on real sockets."""

    async def wait_for_ever() -> str:
        """Never ends by itself."""
        set_up.moments.arrived.set()
        try:
            await trio.sleep_forever()
        finally:
            set_up.moments.note_left()
        raise AssertionError

    async def script(reply: Reply) -> None:
        moments = set_up.moments
        await speak(reply)
        if reply.keep_alive:
            return
        moments.arrived.set()
        await reply.until_client_leaves()
        moments.note_left()

    async with scripted_upstream(script) as upstream:
        lab = {"base_url": f"{upstream.url}/v1", "api_key": "k", "models": ["m"], "max_retries": 0}
        config = {"providers": {"lab": {"module": "chat-completions", "config": lab}}}
        async with (
            open_agent(config, home=home, env={}, tools=[wait_for_ever]) as agent,
            trio.open_nursery() as nursery,
        ):
            (address,) = await nursery.start(partial(serve, agent, port=0))
            set_up = Stage(agent, address[1], upstream, Moments())
            yield set_up
            nursery.cancel_scope.cancel()


def request(stream: bool, window: str) -> bytes:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    body = json.dumps(
        {"model": "m", "stream": stream, "tools": [tool], "messages": [{"role": "user", "content": "Hi"}]}
    ).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"x-preflight-timeout: {window}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def read_until(stream: trio.SocketStream, shown: bytes) -> None:
    seen = b""
    while shown not in seen:
        data = await stream.receive_some()
        assert data, f"the server closed the connection after {seen!r}"
        seen += data


def leave(stream: trio.SocketStream, how: str) -> float:
    """Close, with everything read (FIN) or at once (RST); the moment of it."""
    if how == "RST":
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()
    return trio.current_time()


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES.keys())
async def test_leaving_stops_the_upstream(phase: Phase, how: str, tmp_path: Path) -> None:
    """The upstream, or the running tool, sees it within 50 ms; one row `cancelled`; nothing stays behind."""
    delays: list[float] = []
    async with stage(phase.speak, tmp_path) as server:
        for _ in range(RUNS):
            server.moments = moments = Moments()
            client = await server.connect()
            await client.send_all(request(phase.stream, phase.window))
            with trio.fail_after(5):
                await moments.arrived.wait()
                await read_until(client, phase.shown)
                assert (await server.health())["active_turns"] == 1
                left_at = leave(client, how)
                await moments.left.wait()
            assert moments.left_at is not None
            delays.append(moments.left_at - left_at)
            await server.idle()
        assert statistics.median(delays) < LIMIT_S, delays
        rows = await server.agent.store.list_turns()
        assert [(row.outcome, row.reason) for row in rows] == [("cancelled", "client_disconnected")] * RUNS
        assert {row.committed_by for row in rows} == {phase.committed_by}
        assert len({row.state for row in rows} & {"preflight", "role_chunk", "streaming"}) == 1
        assert {row.states[-1].state for row in rows} == {"error"}
        assert [len(await server.agent.store.list_calls(row.id)) for row in rows] == [1] * RUNS
        if phase.speak is not _server_tool:
            assert server.upstream.open == 0


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("sent", ["head", "half the body", "half the head"])
async def test_leaving_before_the_request_is_whole(sent: str, how: str, tmp_path: Path) -> None:
    """Nothing was asked, so nothing was called and nothing is in the records."""
    whole = request(True, "5")
    head = whole.index(b"\r\n\r\n") + 4
    end = {"head": head, "half the body": (head + len(whole)) // 2, "half the head": head // 2}[sent]
    async with stage(_silent, tmp_path) as server:
        client = await server.connect()
        await client.send_all(whole[:end])
        await server.health()
        leave(client, how)
        await server.idle()
        assert server.upstream.requests == []
        assert await server.agent.store.list_turns() == []


async def test_leaving_between_two_model_calls_keeps_what_was_spent(tmp_path: Path) -> None:
    """The finished call's usage is in the cancelled turn's row."""

    async def speak(reply: Reply) -> None:
        await reply.head()
        await reply.chunk(_call("wait_for_ever", "{}"))
        await reply.chunk(
            b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}],'
            b'"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}\n\n'
        )
        await reply.chunk(b"data: [DONE]\n\n")
        await reply.end()

    async with stage(speak, tmp_path) as server:
        client = await server.connect()
        await client.send_all(request(True, "5"))
        await server.moments.arrived.wait()
        leave(client, "RST")
        await server.moments.left.wait()
        await server.idle()
        (row,) = await server.agent.store.list_turns()
        assert (row.outcome, row.usage.input_tokens, row.usage.output_tokens) == ("cancelled", 7, 3)


async def test_a_second_request_that_was_pipelined_hides_nothing(tmp_path: Path) -> None:
    """A client that sent its next request already is still seen to leave."""
    async with stage(_silent, tmp_path) as server:
        client = await server.connect()
        await client.send_all(request(True, "5") * 2)
        await server.moments.arrived.wait()
        left_at = leave(client, "FIN")
        with trio.fail_after(2):
            await server.moments.left.wait()
        assert server.moments.left_at is not None
        assert server.moments.left_at - left_at < 1
        await server.idle()
        assert [row.outcome for row in await server.agent.store.list_turns()] == ["cancelled"]


async def test_one_client_that_leaves_disturbs_no_other(tmp_path: Path) -> None:
    """Ten turns run, five clients go: five upstream connections stay open and finish."""
    go_on = trio.Event()

    async def speak(reply: Reply) -> None:
        await _text(reply)

        async def finish() -> None:
            await go_on.wait()
            await reply.chunk(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n')
            await reply.chunk(b"data: [DONE]\n\n")
            await reply.end()
            scope.cancel()

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(finish)
                await reply.until_client_leaves()
                scope.cancel()

    async with stage(speak, tmp_path) as server:
        clients = [await server.connect() for _ in range(10)]
        for client in clients:
            await client.send_all(request(True, "5"))
            await read_until(client, b"Once upon")
        for number, client in enumerate(clients[:5]):
            leave(client, "FIN" if number % 2 else "RST")
        with trio.fail_after(2):
            while (await server.health())["active_turns"] != 5:
                pass
        go_on.set()
        for client in clients[5:]:
            await read_until(client, b"data: [DONE]")
            leave(client, "FIN")
        await server.idle()
        outcomes = [row.outcome for row in await server.agent.store.list_turns()]
        assert sorted(outcomes) == ["cancelled"] * 5 + ["completed"] * 5
