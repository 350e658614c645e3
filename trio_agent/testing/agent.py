"""An agent for tests: booted like any other, but with its rows in memory and everything repeatable."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar, TypeVarTuple

import trio
from trio.testing import MockClock

from trio_agent.agent import Agent
from trio_agent.boot import boot
from trio_agent.config.load import parse_draft
from trio_agent.opening import running_agent
from trio_agent.peers import Peers
from trio_agent.providers.contract import Coordinator, Mount, Provider
from trio_agent.store.contract import Store
from trio_agent.store.memory import MemoryStore
from trio_agent.testing.provider import ScriptedProvider
from trio_agent.turn.observer import TurnObserver
from trio_agent.world import CountingWorld, World

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@asynccontextmanager
async def open_test_agent(
    *providers: Provider,
    config: Mapping[str, Any] | None = None,
    tools: Sequence[Callable[..., Any]] = (),
    env: Mapping[str, str] | None = None,
    store: Store | None = None,
    world: World | None = None,
    observers: Sequence[TurnObserver] = (),
    peers: Peers | None = None,
) -> AsyncIterator[Agent]:
    """Boot an agent on these providers, and close it when the block is left.

    It touches no disk, no network and no variable of the process, unless a provider or a tool does. Its ids
    are numbered, its wall time begins in November 2023 and follows Trio's clock, so that a run on a virtual
    clock is the same each time. What a server does now and then, such as closing expired turns, it leaves.

    Args:
        providers: built already, such as a `ScriptedProvider`. They go before those of `config`.
        config: like the configuration file; it may be left out, and may name providers of its own.
        tools: server-side tools: callables with type hints and a docstring.
        env: where `${…}` and credentials are looked up; by default nowhere.
        store: what keeps the rows; by default a new store in memory. A store that lives on may be given to a
            second agent: for it the server was started anew.
        world: where wall time, ids and random numbers come from.
        observers: hear of every turn that begins or ends.
        peers: the processes that serve with this one; by default there are none.

    Raises:
        ConfigError: with every problem that was found.
        ValueError: two providers have the same name, or `config` has one of theirs.
        Exception: what a function in a provider's script raised, when the block is left.
    """
    began = trio.current_time()
    world = world or CountingWorld(clock=lambda: trio.current_time() - began)
    mounts = {provider.name: _mounting(provider) for provider in providers}
    given = dict(config or {})
    declared = dict(given.get("providers", {}))
    if len(mounts) < len(providers) or mounts.keys() & declared:
        raise ValueError("two of the providers have the same name")
    draft = parse_draft(given | {"providers": {name: {} for name in mounts} | declared}, env or {})
    with _raising_own_errors(providers):
        async with (
            boot(
                draft,
                home=None,
                env=env or {},
                world=world,
                tools=tools,
                mounts=mounts,
                store=MemoryStore(world.now) if store is None else store,
            ) as house,
            running_agent(house, observers=observers, peers=peers) as agent,
        ):
            yield agent


@contextmanager
def _raising_own_errors(providers: Sequence[Provider]) -> Iterator[None]:
    """Raise what the test's own functions raised, rather than what the turn made of it."""
    try:
        yield
    except Exception:
        _raise_own_error(providers)
        raise
    _raise_own_error(providers)


def _raise_own_error(providers: Sequence[Provider]) -> None:
    for provider in providers:
        if isinstance(provider, ScriptedProvider) and provider.errors:
            raise provider.errors[0] from None


def _mounting(provider: Provider) -> Mount:
    async def mount(coordinator: Coordinator, config: Mapping[str, Any]) -> Provider:
        return provider

    return mount


def run(main: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Run an async function on a virtual clock, which jumps ahead when everybody waits: nothing takes time.

    It is `trio.run` with a `trio.testing.MockClock`. Threads and sockets do not mix with such a clock,
    because it does not know that something is under way there.
    """
    return trio.run(main, *args, clock=MockClock(autojump_threshold=0))
