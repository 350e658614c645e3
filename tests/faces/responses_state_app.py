"""What tests of stored responses share: a server on a scripted model, asked in few words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from responses_app import PATH
from support.memory_store import MemoryStore

from trio_agent.agent import Agent
from trio_agent.peers import Peers
from trio_agent.server.app import create_app
from trio_agent.testing import Answer, Client, ScriptedProvider, open_test_agent
from trio_agent.world import CountingWorld


class Named(CountingWorld):
    """A world whose ids have a name in them, for a second one on the same store."""

    def __init__(self, name: str) -> None:
        super().__init__(clock=trio.current_time)
        self._name = name

    def new_id(self, prefix: str) -> str:
        return super().new_id(prefix + self._name)


class State(Client):
    """A client of the Responses format, with the store behind it."""

    def __init__(self, agent: Agent, provider: ScriptedProvider, store: MemoryStore) -> None:
        super().__init__(agent, create_app(agent, api_key=None))
        self.provider = provider
        self.store = store

    async def create(
        self, said: Any = "Hi", seen: Callable[[Answer], None] | None = None, **fields: Any
    ) -> Answer:
        body = {"model": "scripted", "input": said, **fields}
        body = {name: value for name, value in body.items() if value is not None}
        return await self.ask(body, path=PATH, seen=seen or (lambda answer: None))

    async def made(self, said: Any = "Hi", **fields: Any) -> dict[str, Any]:
        """The response to a request that must succeed."""
        answer = await self.create(said, **fields)
        assert answer.status == 200, answer.body
        return dict(answer.json())

    async def shown(self, response_id: str, query: str = "") -> dict[str, Any]:
        answer = await self.get(f"{PATH}/{response_id}{query}")
        assert answer.status == 200, answer.body
        return dict(answer.json())

    async def post(self, path: str, body: Any = None, method: str = "POST") -> Answer:
        return await self.ask(body, method=method, path=path)

    @property
    def prompts(self) -> list[list[tuple[str, str]]]:
        """What the model was sent in each call: roles and texts."""
        return [
            [(message.role, message.text) for message in call.request.messages]
            for call in self.provider.calls
        ]


@asynccontextmanager
async def state(
    *scripts: Any,
    store: MemoryStore | None = None,
    name: str = "",
    tools: Sequence[Callable[..., Any]] = (),
    peers: Peers | None = None,
    **config: Any,
) -> AsyncIterator[State]:
    """A server; a second one on the same store has another `name`."""
    world = Named(name)
    provider = ScriptedProvider(list(scripts), name="scripted")
    store = store or MemoryStore(world.now)
    async with open_test_agent(
        provider, config=config, store=store, world=world, tools=tools, peers=peers
    ) as agent:
        yield State(agent, provider, store)
