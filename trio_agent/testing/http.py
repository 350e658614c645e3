"""An agent's HTTP API without sockets: requests go in, and what is sent comes out with its time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec
import trio

from trio_agent.agent import Agent
from trio_agent.server.app import Application, create_app
from trio_agent.server.connection import CANCELS_ON_DISCONNECT
from trio_agent.wire.sse import SSEEvent, SSEParser


class Answer:
    """What one request was answered with. Times are seconds of Trio's clock.

    `sent` has each write of the body with its time; `started_at` is when the status went out, `None` (as
    `status` is 0) before that. Header names are in lower case.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.sent: list[tuple[float, bytes]] = []
        self.started_at: float | None = None

    @property
    def body(self) -> bytes:
        return b"".join(data for _, data in self.sent)

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        """The body, where it is JSON. Raises msgspec.DecodeError."""
        return msgspec.json.decode(self.body)

    @property
    def error(self) -> Any:
        """The error object of an answer that is one. Raises KeyError."""
        return self.json()["error"]

    @property
    def events(self) -> list[SSEEvent]:
        """The server-sent events that are complete; comments (keepalives) are none."""
        return SSEParser().feed(self.body)

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """The JSON of a stream's events in order, an error event too.

        Raises AssertionError where the stream has no `[DONE]` at its end: such an answer is not whole.
        """
        events = [event.data for event in self.events]
        if events[-1:] != [b"[DONE]"]:
            raise AssertionError(f"the stream does not end with [DONE]: {self.text[-200:]!r}")
        return [msgspec.json.decode(data) for data in events[:-1]]

    def __repr__(self) -> str:
        return f"<Answer {self.status}, {len(self.sent)} writes>"


class Client:
    """A client of one agent. To cancel a request is to leave: the turn ends as if the client had hung up."""

    def __init__(self, agent: Agent, app: Application, api_key: str | None = None) -> None:
        self.agent = agent
        self.app = app
        self._api_key = api_key

    async def ask(
        self,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "POST",
        path: str = "/v1/chat/completions",
        seen: Callable[[Answer], None] = lambda answer: None,
    ) -> Answer:
        """One request, from its first byte to the last one of its answer.

        Args:
            body: JSON, or bytes that are sent as they are.
            headers: more of them, or others in place of those that every client sends.
            seen: called after the status and after every write with the answer so far.
        """
        data = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        given = {"host": "127.0.0.1", "content-length": str(len(data))}
        if self._api_key is not None:
            given["authorization"] = f"Bearer {self._api_key}"
        given |= {name.lower(): value for name, value in (headers or {}).items()}
        answer = Answer()
        incoming = [{"type": "http.request", "body": data, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if not incoming:
                await trio.sleep_forever()
            return incoming.pop()

        async def send(message: dict[str, Any]) -> None:
            await trio.lowlevel.checkpoint()
            _take(answer, message)
            seen(answer)

        await self.app(_scope(method, path, given), cast("Any", receive), cast("Any", send))
        return answer

    async def say(self, text: str = "Hello", model: str = "scripted", **fields: Any) -> Answer:
        """A chat request with one message of the user's. `fields` are more of it, such as `stream`."""
        return await self.ask({"model": model, "messages": [{"role": "user", "content": text}], **fields})

    async def get(self, path: str) -> Answer:
        return await self.ask(method="GET", path=path)


def client(agent: Agent, *, api_key: str | None = None) -> Client:
    """A client for an agent's HTTP API: the real application, without a server before it.

    Args:
        api_key: the server's key; the client sends it.
    """
    return Client(agent, create_app(agent, api_key=api_key), api_key)


def _take(answer: Answer, message: Mapping[str, Any]) -> None:
    if message["type"] == "http.response.start":
        if answer.status:
            raise AssertionError("the server began a second response")
        answer.status = message["status"]
        answer.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        answer.started_at = trio.current_time()
    else:
        if not answer.status:
            raise AssertionError("the server sent a body before its head")
        answer.sent.append((trio.current_time(), message["body"]))


def _scope(method: str, target: str, headers: Mapping[str, str]) -> Any:
    path, _, query = target.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "extensions": {CANCELS_ON_DISCONNECT: {}},
    }
