"""Turns in flight, as they stand: their rows say so only when they end, those who run them know before."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

import msgspec
from msgspec import Struct

from trio_agent.peers import Peers
from trio_agent.store.contract import CallRow, TurnRow

QUESTION: Final = "turns.in_flight"
_encode = msgspec.json.Encoder().encode
_decode_ids = msgspec.json.Decoder(list[str]).decode


class InFlightTurn(Struct, frozen=True):
    """A turn that runs, as its row would be written now. `calls` are those that are not in the store yet."""

    row: TurnRow
    calls: tuple[CallRow, ...]


_decode_turns = msgspec.json.Decoder(list[InFlightTurn]).decode


class InFlightTurns:
    """The turns that run in this process, or in one that serves beside it.

    Args:
        here: gives those of some turns that run in this process.
        peers: asked for the others.
    """

    def __init__(self, here: Callable[[Collection[str]], list[InFlightTurn]], peers: Peers) -> None:
        self._here = here
        self._peers = peers
        peers.on(QUESTION, self._answer)

    async def of(self, turn_ids: Collection[str]) -> dict[str, InFlightTurn]:
        """Those of these turns that run, by their ids. What a peer does not answer is left out."""
        found = {each.row.id: each for each in self._here(turn_ids)}
        missing = [turn_id for turn_id in turn_ids if turn_id not in found]
        if missing:
            for answer in await self._peers.ask(QUESTION, _encode(missing)):
                found |= {each.row.id: each for each in _read(answer)}
        return found

    async def _answer(self, payload: bytes) -> bytes | None:
        turns = self._here(_decode_ids(payload))
        return _encode(turns) if turns else None


def _read(answer: bytes) -> list[InFlightTurn]:
    try:
        return _decode_turns(answer)
    except msgspec.DecodeError:
        return []  # a peer of another version; the store's rows stand


__all__ = ["QUESTION", "InFlightTurn", "InFlightTurns"]
