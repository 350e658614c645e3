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
    """What a process knows of those that serve beside it.

    `number` is the place of this process among them, from 1 on, `count` how many places there are. `name` is
    this process's own: another one that takes its place later has another name.
    """

    number: int
    count: int
    name: str

    async def ask(self, question: str, payload: bytes = b"") -> list[bytes]:
        """The answers of the others, in no particular order. Never raises for what a peer does.

        Args:
            question: its name, such as `metrics`.
            payload: what the peers need to answer it (JSON).
        """

    def tell(self, question: str, payload: bytes = b"") -> None:
        """Ask, and wait for no answer. What the others do not hear is lost without a word."""

    def on(self, question: str, answer: Answer) -> None:
        """Answer a question of this name from now on. An answer that fails is logged, and is none."""

    def on_gone(self, gone: Callable[[str], None]) -> None:
        """From now on, call `gone` with the name of a process that has ended, whyever. It returns at once."""


class Alone(Peers):
    """A process that serves by itself."""

    number = 1
    count = 1
    name = ""

    async def ask(self, question: str, payload: bytes = b"") -> list[bytes]:
        return []

    def tell(self, question: str, payload: bytes = b"") -> None:
        """Nobody hears it."""

    def on(self, question: str, answer: Answer) -> None:
        """Nobody asks."""

    def on_gone(self, gone: Callable[[str], None]) -> None:
        """Nobody can go."""


__all__ = ["Alone", "Answer", "Peers"]
