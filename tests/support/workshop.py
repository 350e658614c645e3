"""An agent whose configuration is exchanged: every mount of a provider is a new one, and is closed once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from support.memory_store import MemoryStore
from support.scripted import Scripted, answer

from trio_agent.agent import Agent
from trio_agent.boot import boot, limits_of
from trio_agent.config.load import Draft, parse_draft
from trio_agent.opening import running_agent
from trio_agent.providers.contract import Coordinator, ModelInfo, Mount, Provider
from trio_agent.reloading import Reload
from trio_agent.turn.observer import TurnObserver
from trio_agent.world import CountingWorld


class Mounted(Scripted):
    """One mount. `closed` is how often it was closed, `settings` its `config`."""

    def __init__(self, name: str, settings: Mapping[str, Any], script: Any) -> None:
        super().__init__(script, name=name)
        self.models = [ModelInfo(id=each) for each in settings.get("models", [f"{name}-1"])]
        self.settings = settings
        self.closed = 0


class Workshop:
    """The agent, and every mount there was, in order."""

    def __init__(self, script: Any, delay: float, env: Mapping[str, str]) -> None:
        self.script = script
        self.delay = delay
        self.env = env
        self.mounts: dict[str, Mount] = {}
        self.mounted: list[Mounted] = []
        self.agent: Agent
        self.store: MemoryStore
        self.closing: Callable[[], Any] | None = None

    async def mount(self, coordinator: Coordinator, config: Mapping[str, Any]) -> Provider:
        if config.get("fails"):
            raise RuntimeError("it fails")
        if self.delay:
            await trio.sleep(self.delay)
        script = self.script(config) if callable(self.script) else self.script
        made = Mounted(coordinator.provider_id, config, script)
        self.mounted.append(made)

        async def close() -> None:
            if self.closing is not None:
                await self.closing()
            made.closed += 1

        coordinator.resources.push_async_callback(close)
        return made

    @property
    def up(self) -> list[Mounted]:
        """The mounts that were not closed yet."""
        return [each for each in self.mounted if not each.closed]

    def draft(self, config: Mapping[str, Any] | None = None) -> Draft:
        return parse_draft({"providers": {"lab": {}}} | dict(config or {}), self.env)

    async def reload(self, config: Mapping[str, Any] | None = None) -> Reload:
        return await self.agent.reload(self.draft(config))


@asynccontextmanager
async def open_workshop(
    config: Mapping[str, Any] | None = None,
    *,
    script: Any = None,
    delay: float = 0.0,
    env: Mapping[str, str] | None = None,
    names: Sequence[str] = ("lab", "other"),
    observers: Sequence[TurnObserver] = (),
) -> AsyncIterator[Workshop]:
    """Boot it.

    Args:
        script: what every mount plays, or what makes that of a mount's settings.
        delay: seconds that a mount takes.
        names: the providers that a configuration may declare.
    """
    shop = Workshop(script or answer("Hello"), delay, env or {})
    shop.mounts.update(dict.fromkeys(names, shop.mount))
    world = CountingWorld(clock=trio.current_time)
    shop.store = MemoryStore(world.now)
    async with (
        boot(
            shop.draft(config),
            home=None,
            env=shop.env,
            world=world,
            mounts=shop.mounts,
            store=shop.store,
        ) as house,
        running_agent(house, observers=observers) as agent,
    ):
        shop.agent = agent
        shop.store.keep_to(limits_of(agent.config.store))
        yield shop
    assert all(each.closed == 1 for each in shop.mounted), "every mount is closed once"
