"""A deliberate bug: a piece of the product replaced for as long as a block lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from msgspec import Struct

Mutation = Callable[[], AbstractContextManager[None]]


class Bug(Struct, frozen=True):
    """A mutation, the invariants that it contradicts (one must be named), what the complaint says, and the
    seeds that find it."""

    name: str
    invariants: frozenset[int]
    apply: Mutation
    seeds: range
    says: tuple[str, ...] = ()


BUGS: list[Bug] = []
"""Those that some seeds must find."""


def bug(
    *invariants: int, says: str | tuple[str, ...], first: int = 0, within: int = 10
) -> Callable[[Callable[[], Iterator[None]]], Mutation]:
    """Enter a mutation into the list, under its own name.

    Args:
        says: words of the complaint that the bug is named for, or several of which one is enough.
        first, within: it must be found within so many seeds, counted from this one.
    """

    def enter(function: Callable[[], Iterator[None]]) -> Mutation:
        apply = contextmanager(function)
        words = (says,) if isinstance(says, str) else says
        BUGS.append(Bug(function.__name__, frozenset(invariants), apply, range(first, first + within), words))
        return apply

    return enter
