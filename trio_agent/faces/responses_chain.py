"""The answers of one WebSocket that are stored nowhere, kept as long as the connection lasts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from trio_agent.faces.responses_request import History
from trio_agent.statemachine.conversation import Message
from trio_agent.wire.responses_tools import Definition

MOST_ANSWERS: Final = 32
"""Answers that one connection can go on from; of more, the oldest are forgotten."""

_encode = msgspec.json.Encoder().encode


class Kept(Struct, frozen=True):
    """What was said up to the end of one answer; `size` is in bytes, as JSON."""

    history: History
    size: int


class Chain:
    """What was said up to the end of each of the latest answers.

    `max_bytes` is for all of them; what two have in common counts twice. A conversation that is longer by
    itself is not kept: its client has to send it whole, as over HTTP.
    """

    def __init__(self, max_bytes: int = 0) -> None:
        self.max_bytes = max_bytes
        self._kept: dict[str, Kept] = {}

    def find(self, response_id: str) -> Kept | None:
        """The conversation up to the end of an answer, if that is kept."""
        return self._kept.get(response_id)

    def keep(
        self,
        response_id: str,
        previous: str | None,
        before: Sequence[Message],
        said: Sequence[Message],
        tools: Sequence[Definition],
    ) -> None:
        """Remember an answer, and forget the oldest ones if there is no room for all.

        Args:
            previous: the answer that it went on from.
            before: what was said up to that one's end.
            said: what was said since, by the client and then by the model.
            tools: those that came as input items, then or earlier.
        """
        known = None if previous is None else self._kept.get(previous)
        size = len(_encode(before)) if known is None else known.size
        size += len(_encode(said)) + len(_encode(tools))
        self._kept[response_id] = Kept(History((*before, *said), tuple(tools)), size)
        room = self.max_bytes
        for number, (name, kept) in enumerate(reversed([*self._kept.items()])):
            room -= kept.size
            if room < 0 or number >= MOST_ANSWERS:
                del self._kept[name]

    def forget(self, response_id: str | None) -> None:
        """An answer cannot be gone on from any more."""
        if response_id is not None:
            self._kept.pop(response_id, None)
