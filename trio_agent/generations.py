"""The configurations that an agent works under: the newest, and older ones that something still uses.

A request and its turn live under one generation from beginning to end. A new one takes the place of the
newest at once, and the old one's providers are closed when the last that began under it is over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TypeAlias

import trio

from trio_agent.admission import Admission
from trio_agent.config.schema import Config
from trio_agent.planning import Planner
from trio_agent.setup import Setup
from trio_agent.store.contract import Store
from trio_agent.token_count import TokenCounter
from trio_agent.turn.context import TurnContext
from trio_agent.turn.observer import TurnObserver
from trio_agent.use_count import UseCount
from trio_agent.world import World

logger = logging.getLogger("trio_agent")

LOG_MARGIN_SECONDS = 120.0
"""What a turn may take beside `server.session_wait` and `server.turn_timeout`: to be let in, to drain, and to
be written down."""

Contexts: TypeAlias = Callable[[World], TurnContext]
ContextsFor: TypeAlias = Callable[[Setup], Contexts]
"""Makes what requests stand in under one configuration."""


def plain_contexts(setup: Setup) -> Contexts:
    """Contexts that add nothing."""
    del setup
    return TurnContext


class Generation:
    """One configuration at work: what it comes to, and the rules made of it.

    `uses` counts the requests and turns that stand on it.
    """

    def __init__(self, setup: Setup, *, store: Store, observer: TurnObserver, contexts: Contexts) -> None:
        self.setup = setup
        self.config: Config = setup.config
        self.contexts = contexts
        self.uses = UseCount()
        providers, tools = setup.providers, setup.tools
        planner = Planner(
            setup.config,
            providers=providers,
            directory=setup.directory,
            prices=setup.prices,
            tools=tools,
        )
        self.admission = Admission(
            setup.config,
            planner,
            providers=providers,
            tools=tools,
            store=store,
            observer=observer,
            uses=self.uses,
        )
        self.counter = TokenCounter(
            planner,
            providers=providers,
            store=store,
            max_history_bytes=setup.config.server.max_history_bytes,
        )

    @property
    def lifetime(self) -> float:
        """Seconds that a turn of this configuration may take, all in all."""
        server = self.config.server
        return server.session_wait + server.turn_timeout + LOG_MARGIN_SECONDS


class Generations:
    """What an agent works under.

    Args:
        first: the generation that it begins with.
        nursery: where replaced ones wait for their end. Without it none can be replaced.
    """

    def __init__(self, first: Generation, nursery: trio.Nursery | None) -> None:
        self.newest = first
        self.number = 1
        """How many were the newest so far, this one included."""
        self._nursery = nursery
        self._coming: dict[Generation, None] = {}
        self._retired: dict[Generation, None] = {}

    def __iter__(self) -> Iterator[Generation]:
        """The newest, and those before it that are still used."""
        return iter((self.newest, *self._retired))

    @property
    def lifetime(self) -> float:
        """Seconds that any turn which runs now may take."""
        return max(each.lifetime for each in self)

    def add(self, generation: Generation) -> None:
        """Know one that may take the place of the newest, so that it is closed in any case."""
        self._coming[generation] = None

    async def discard(self, generation: Generation) -> None:
        """Close one that was added and not taken."""
        if generation in self._coming:
            del self._coming[generation]
            await generation.setup.close()

    def replace(self, generation: Generation) -> None:
        """Take one that was added for the newest. Its forerunner is closed after the last that uses it."""
        if self._nursery is None:
            raise RuntimeError("this agent has no nursery in which an old configuration could end")
        if generation not in self._coming:
            raise ValueError("this configuration was taken or discarded before")
        del self._coming[generation]
        forerunner, self.newest = self.newest, generation
        self.number += 1
        self._retired[forerunner] = None
        self._nursery.start_soon(self._retire, forerunner)

    async def _retire(self, generation: Generation) -> None:
        """Close a generation once it is unused. Cancelled, it leaves that to whoever closes the agent."""
        with trio.move_on_after(generation.lifetime) as scope:
            await generation.uses.over()
        if scope.cancelled_caught:
            logger.warning(
                "an old configuration is still used by %d requests, %g seconds after it was replaced; "
                "its providers are closed now",
                len(generation.uses),
                generation.lifetime,
            )
        del self._retired[generation]
        await generation.setup.close()

    async def close(self) -> None:
        """Close all, each provider shielded and within 5 seconds. Nothing may use them any more."""
        for generation in (*self._coming, *self):
            await generation.setup.close()


__all__ = ["Contexts", "ContextsFor", "Generation", "Generations", "plain_contexts"]
