"""The server's application without sockets: requests go in, and what is sent comes out with its time."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio
from support.memory_store import MemoryStore
from support.serving import chunks

from trio_agent.accounting.prices import PriceBook
from trio_agent.agent import Agent
from trio_agent.boot import House
from trio_agent.config.load import parse_config
from trio_agent.providers.contract import ProviderRequest
from trio_agent.providers.credentials import Credentials
from trio_agent.providers.registry import ProviderSpec, boot_providers
from trio_agent.server.app import create_app
from trio_agent.server.asgi import TurnApp
from trio_agent.server.connection import CANCELS_ON_DISCONNECT
from trio_agent.statemachine.events import CallEvent
from trio_agent.tools.box import PythonToolBox
from trio_agent.tools.python import python_tool
from trio_agent.world import CountingWorld


@dataclass
class Answer:
    """What one request was answered with. `sent` has each write with the moment of it, in seconds."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    sent: list[tuple[float, bytes]] = field(default_factory=list)
    started_at: float = -1.0

    @property
    def body(self) -> bytes:
        return b"".join(data for _, data in self.sent)

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json()["error"]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        return chunks(self.text)


@dataclass
class ChatApp:
    """An application with its agent and store. `requests` has every model call's request."""

    agent: Agent
    app: TurnApp
    store: MemoryStore
    requests: list[ProviderRequest]

    async def ask(
        self,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "POST",
        path: str = "/v1/chat/completions",
        seen: Callable[[Answer], None] = lambda answer: None,
    ) -> Answer:
        """One request, from its first byte to its last. `seen` is called after every write."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        answer = Answer()
        given = [(b"host", b"127.0.0.1"), (b"content-length", b"%d" % len(data))]
        for name, value in (headers or {}).items():
            given = [each for each in given if each[0] != name.lower().encode()]
            given.append((name.lower().encode(), value.encode("latin-1")))
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http",
            "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
            "headers": given, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
            "extensions": {CANCELS_ON_DISCONNECT: {}},
        }  # fmt: skip
        incoming = [{"type": "http.request", "body": data, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if incoming:
                return incoming.pop()
            await trio.sleep_forever()
            raise AssertionError

        async def send(message: dict[str, Any]) -> None:
            await trio.lowlevel.checkpoint()
            if message["type"] == "http.response.start":
                assert answer.status == 0, "a second response"
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
                answer.started_at = trio.current_time()
            else:
                assert answer.status, "a body before its head"
                answer.sent.append((trio.current_time(), message["body"]))
            seen(answer)

        await self.app(scope, receive, send)  # type: ignore[arg-type]
        return answer

    async def say(self, text: str = "Hello", model: str = "demo", **fields: Any) -> Answer:
        return await self.ask({"model": model, "messages": [{"role": "user", "content": text}], **fields})


@asynccontextmanager
async def chat_app(
    config: Mapping[str, Any] | None = None,
    *,
    api_key: str | None = None,
    tools: Sequence[Callable[..., Any]] = (),
) -> AsyncIterator[ChatApp]:
    """An application on the scripted provider and a store in memory, on Trio's own clock."""
    parsed = parse_config({"providers": {"replay": {}}, **(config or {})}, {})
    world = CountingWorld(clock=trio.current_time)
    store = MemoryStore(world.now)
    async with AsyncExitStack() as resources:
        specs = {name: ProviderSpec(each.module, each.config) for name, each in parsed.providers.items()}
        booted = await boot_providers(specs, credentials=Credentials({}), resources=resources)
        assert not booted.problems
        directory = booted.directory()
        book = PriceBook.load(
            {name: each.price() for name, each in parsed.prices.items()}, wall_clock=world.now
        )
        requests: list[ProviderRequest] = []
        for mounted in booted.providers.values():
            record(mounted.provider, requests)
        house = House(
            parsed,
            booted.providers,
            directory,
            {ref.full_name: book.lookup(ref.provider_id, ref.model.id, module="replay", own=ref.model.price)
             for ref in directory.listing()},
            PythonToolBox([python_tool(each, timeout=parsed.agent.tool_timeout) for each in tools]),
            store,
            world,
        )  # fmt: skip
        agent = Agent(house)
        yield ChatApp(agent, create_app(agent, api_key=api_key), store, requests)


def record(provider: Any, requests: list[ProviderRequest]) -> None:
    """Note every request that a provider's stream is asked with."""
    stream = provider.stream

    async def recorded(request: ProviderRequest) -> AsyncGenerator[Sequence[CallEvent], None]:
        requests.append(request)
        async with aclosing(stream(request)) as batches:
            async for batch in batches:
                yield batch

    provider.stream = recorded
