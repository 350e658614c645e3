"""How a running agent comes under another configuration: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import trio
from msgspec import Struct

from trio_agent.boot import House, limits_of
from trio_agent.config.changes import changed_keys
from trio_agent.config.load import Draft
from trio_agent.config.problems import ConfigError, ConfigProblem
from trio_agent.generations import ContextsFor, Generation, Generations
from trio_agent.providers.contract import Provider
from trio_agent.setup import Setup
from trio_agent.turn.observer import TurnObserver

Check: TypeAlias = Callable[[Draft], Sequence[ConfigProblem]]
"""What forbids a configuration that is to replace the one in force."""


class Reload(Struct, frozen=True):
    """What a reload changed. `keys` are the names of the keys that differ, and never what they hold."""

    providers_added: tuple[str, ...]
    providers_removed: tuple[str, ...]
    models_before: int
    models_after: int
    keys: tuple[str, ...]

    def __str__(self) -> str:
        parts = []
        moved = [f"+{name}" for name in self.providers_added] + [
            f"-{name}" for name in self.providers_removed
        ]
        if moved:
            parts.append(f"providers {' '.join(moved)}")
        parts.append(f"models {self.models_before}→{self.models_after}")
        parts.append(f"changed: {', '.join(self.keys) or 'nothing'}")
        return ", ".join(parts)


class Reloading:
    """The part of an agent that has to do with its configuration.

    Args:
        house: what the agent stands on.
        contexts: makes what a request stands in.
        observer: hears of turns.
        nursery: where an old configuration waits for the last that uses it. Without it there is no reload.
    """

    def __init__(
        self,
        house: House,
        *,
        contexts: ContextsFor,
        observer: TurnObserver,
        nursery: trio.Nursery | None,
    ) -> None:
        self._house = house
        self._contexts = contexts
        self._observer = observer
        self._generations = Generations(self._generation(house.setup), nursery)
        self._held: Generation | None = None
        self._checks: list[Check] = []
        self._one_at_a_time = trio.Lock()

    @property
    def generation(self) -> Generation:
        """The configuration in force, and what it comes to."""
        return self._held or self._generations.newest

    @contextmanager
    def checked_by(self, check: Check) -> Iterator[None]:
        """While the block runs, a new configuration is refused in which `check` finds a problem."""
        self._checks.append(check)
        try:
            yield
        finally:
            self._checks.remove(check)

    async def reload(self, draft: Draft) -> Reload:
        """Put another configuration in force: all of it, or nothing. One reload waits for the one before.

        Requests and turns that began under the old one end under it, and its providers are closed then. No
        request waits for a reload, and none is refused for it.

        Args:
            draft: as `trio_agent.config.load` makes it. Its problems are told with those of the boot.

        Raises:
            ConfigError: with every problem that was found; nothing has changed.
        """
        async with self._one_at_a_time:
            generation = await self.prepare(draft)
            try:
                return self.commit(generation)
            except BaseException:
                await self.discard(generation)  # noqa: ASYNC102 - each provider is closed shielded, with a limit
                raise

    async def prepare(self, draft: Draft) -> Generation:
        """Boot what another configuration needs, beside the one in force. `commit` or `discard` it then.

        Providers are mounted and list their models, all at once and each under its time limit; tools are
        loaded. Cancelled, it leaves nothing behind.

        Raises:
            ConfigError: with every problem that was found; nothing is left behind.
        """
        if self._house.set_up is None:
            raise RuntimeError("this agent cannot boot another configuration")
        setup = await self._house.set_up(draft.with_problems(self._problems_of(draft)))
        generation = self._generation(setup)
        self._generations.add(generation)
        return generation

    def commit(self, generation: Generation) -> Reload:
        """Put a prepared configuration in force, for every request from now on. Returns at once.

        Raises:
            ConfigError: it does not fit what is in force by now; discard it.
        """
        problems = self._problems_of(Draft(generation.config))
        if problems:
            raise ConfigError(problems)
        before = self._generations.newest
        self._generations.replace(generation)
        self._house.store.keep_to(limits_of(generation.config.store))
        return _difference(before.setup, generation.setup)

    async def discard(self, generation: Generation) -> None:
        """Let go of a prepared configuration that is not wanted: shielded, within 5 seconds a provider."""
        await self._generations.discard(generation)

    def mounted_providers(self) -> list[Provider]:
        """The providers that are up: of the configuration in force, and of older ones that are still used."""
        return [provider for each in self._generations for provider in each.setup.providers.values()]

    async def close_generations(self) -> None:
        """Close every provider. For whoever made the agent, when nothing of it runs any more."""
        await self._generations.close()

    def _generation(self, setup: Setup) -> Generation:
        return Generation(
            setup, store=self._house.store, observer=self._observer, contexts=self._contexts(setup)
        )

    def _problems_of(self, draft: Draft) -> list[ConfigProblem]:
        problems = [problem for check in self._checks for problem in check(draft)]
        started_with = self._generations.newest.config.store.path
        if draft.config and draft.config.store.path != started_with and not draft.lacks("store"):
            problems.append(
                ConfigProblem(
                    "config_needs_restart",
                    "store.url",
                    "the store of a running server cannot be changed",
                    "the store that the server was started with",
                    remedy="put the old value back, or restart the server",
                )
            )
        return problems


def _difference(old: Setup, new: Setup) -> Reload:
    return Reload(
        providers_added=tuple(name for name in new.mounted if name not in old.mounted),
        providers_removed=tuple(name for name in old.mounted if name not in new.mounted),
        models_before=len(old.directory.listing()),
        models_after=len(new.directory.listing()),
        keys=tuple(changed_keys(old.config, new.config)),
    )


__all__ = ["Check", "Reload", "Reloading"]
