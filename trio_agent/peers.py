"""The other processes that serve with this one: workers under one supervisor, or nobody.

A process asks the others by the name of a question, and answers those that it knows. A peer that has died or
does not answer in time counts as one that has nothing to say: whoever asks must be right without it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

Answer: TypeAlias = Callable[[bytes], Awaitable[bytes | None]]
"""Answers one question of a peer's. `None`: this process has nothing to say to it."""


class Peers(Protocol):
    """What a process knows of those that serve beside it."""

    async def ask(self, question: str, payload: bytes = b"") -> list[bytes]:
        """The answers of the others, in no particular order. Never raises for what a peer does.

        Args:
            question: its name, such as `metrics`.
            payload: what the peers need to answer it (JSON).
        """

    def on(self, question: str, answer: Answer) -> None:
        """Answer a question of this name from now on. An answer that fails is logged, and is none."""


class Alone(Peers):
    """A process that serves by itself."""

    async def ask(self, question: str, payload: bytes = b"") -> list[bytes]:
        return []

    def on(self, question: str, answer: Answer) -> None:
        """Nobody asks."""


__all__ = ["Alone", "Answer", "Peers"]
