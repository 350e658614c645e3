"""The server's application without sockets, on the replay provider and a store that can fail."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import trio
from support.memory_store import MemoryStore

from trio_agent.agent import Agent
from trio_agent.providers.contract import ProviderRequest
from trio_agent.server.app import Application, create_app
from trio_agent.statemachine.events import CallEvent
from trio_agent.testing import Answer, Client, open_test_agent
from trio_agent.world import CountingWorld

__all__ = ["Answer", "ChatApp", "chat_app"]


class ChatApp(Client):
    """A client that brings no key by itself. `requests` has every model call's request."""

    def __init__(
        self, agent: Agent, app: Application, store: MemoryStore, requests: list[ProviderRequest]
    ) -> None:
        super().__init__(agent, app)
        self.store = store
        self.requests = requests

    async def say(self, text: str = "Hello", model: str = "demo", **fields: Any) -> Answer:
        return await super().say(text, model, **fields)


@asynccontextmanager
async def chat_app(
    config: Mapping[str, Any] | None = None,
    *,
    api_key: str | None = None,
    tools: Sequence[Callable[..., Any]] = (),
) -> AsyncIterator[ChatApp]:
    """An application on the scripted provider and a store in memory, on Trio's own clock."""
    world = CountingWorld(clock=trio.current_time)
    store = MemoryStore(world.now)
    config = {"providers": {"replay": {}}, **(config or {})}
    async with open_test_agent(config=config, tools=tools, store=store, world=world) as agent:
        requests: list[ProviderRequest] = []
        for mounted in agent.providers.values():
            record(mounted.provider, requests)
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
