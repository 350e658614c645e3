"""Agents that record, in front of a scripted upstream."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from support.upstream import Reply, Script, scripted_upstream

from trio_agent import Record, open_agent
from trio_agent.agent import Agent
from trio_agent.server.app import create_app
from trio_agent.server.connection import CANCELS_ON_DISCONNECT

KEY = "sk-UPSTREAMKEY-0123456789"
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
RETURNED = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "42"},
]


def chunk(**delta: Any) -> bytes:
    return json.dumps({"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta}]}).encode()


def finish(reason: str = "stop") -> bytes:
    choice = {"index": 0, "delta": {}, "finish_reason": reason}
    return json.dumps({"id": "c", "model": "m", "choices": [choice]}).encode()


async def hello(reply: Reply) -> None:
    await reply.sse(chunk(role="assistant", content="Hello"), finish())


async def call_then_answer(reply: Reply) -> None:
    if reply.request.json()["messages"][-1]["role"] == "tool":
        await hello(reply)
    else:
        await reply.sse(chunk(role="assistant", tool_calls=[{"index": 0, **CALL}]), finish("tool_calls"))


def ask(text: str = "Hi", **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], "stream": True, **fields}


@asynccontextmanager
async def recording_agent(
    folder: Path,
    script: Script = hello,
    record: Record | None = None,
    *,
    name: str = "lab",
    module: str = "chat-completions",
    env: dict[str, str] | None = None,
    server: dict[str, Any] | None = None,
    tools: Sequence[Callable[..., Any]] = (),
    **settings: Any,
) -> AsyncIterator[Agent]:
    """An agent that records to `folder / "rec"`. `PORT` in `settings` and `env` is the upstream's."""
    async with scripted_upstream(script) as upstream:
        port = str(upstream.port)
        own = {"base_url": "http://127.0.0.1:PORT/v1", "api_key": KEY, "models": ["m"], **settings}
        config = json.dumps({"providers": {name: {"module": module, "config": own}}, "server": server or {}})
        async with open_agent(
            json.loads(config.replace("PORT", port)),
            home=folder / "home",
            env={key: value.replace("PORT", port) for key, value in (env or {}).items()},
            record=record or folder / "rec",
            tools=tools,
        ) as agent:
            yield agent


class Client:
    """A request to the application, without a socket.

    Args:
        takes: how many writes of the body it takes; the next one waits until `taking` is set. May be changed.
    """

    def __init__(self, agent: Agent, body: Any, *, takes: float = float("inf")) -> None:
        self.sent: list[bytes] = []
        self.held = trio.Event()
        self.taking = trio.Event()
        self.scope = trio.CancelScope()
        self.turn_id = ""
        self._app = create_app(agent, api_key=None)
        self._body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.takes = takes

    async def run(self) -> None:
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http",
            "method": "POST", "path": "/v1/chat/completions", "raw_path": b"/v1/chat/completions",
            "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
            "headers": [(b"host", b"127.0.0.1"), (b"content-length", b"%d" % len(self._body))],
            "extensions": {CANCELS_ON_DISCONNECT: {}},
        }  # fmt: skip
        incoming = [{"type": "http.request", "body": self._body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if incoming:
                return incoming.pop()
            await trio.sleep_forever()
            raise AssertionError

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.turn_id = dict(message["headers"]).get(b"x-turn-id", b"").decode()
                return
            self.sent.append(message["body"])
            if len(self.sent) > self.takes:
                self.held.set()
                await self.taking.wait()

        with self.scope:
            await self._app(scope, receive, send)  # type: ignore[arg-type]


async def asked(agent: Agent, body: Any) -> Client:
    """A request, and its whole answer."""
    client = Client(agent, body)
    await client.run()
    return client


def files(folder: Path) -> list[Path]:
    return sorted((folder / "rec").iterdir())


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
