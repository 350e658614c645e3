"""A deliberate bug: a piece of the product replaced for as long as a block lasts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias

from msgspec import Struct
from simulation.kernel import replaced

from trio_agent.faces import chat_sinks, messages_sinks, responses_sinks

Send: TypeAlias = Callable[[Any, Any], Awaitable[None]]
SINKS: tuple[Any, ...] = (chat_sinks.StreamSink, messages_sinks.StreamSink, responses_sinks.StreamSink)
"""What writes streams, for each face."""

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


def sinks_sending(change: Callable[[Any, Any, Send], Awaitable[None]]) -> AbstractContextManager[None]:
    """All streams of all faces, sending through `change(sink, outputs, send)`."""

    def changed(send: Send) -> Send:
        async def sending(sink: Any, outputs: Any) -> None:
            await change(sink, outputs, send)

        return sending

    return replaced(*((sink, "send", changed(sink.send)) for sink in SINKS))
