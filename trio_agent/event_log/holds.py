"""Who reads an answer in another worker than the one that makes it.

Readers elsewhere read what the store has, so their worker tells the one that makes the answer that they are
there: else it would leave the turn when the last reader of its own has gone. What a worker held is let go of
when it has died.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
from msgspec import Struct

from trio_agent.event_log.live import LiveLog
from trio_agent.peers import Peers

HOLD: Final = "log.hold"
LET_GO: Final = "log.let_go"
_HELD: Final = b"held"
_LEFT: Final = b"left"
_MOST_LET_GO: Final = 1000


class Hold(Struct, frozen=True):
    """One reader of a log. `token` begins with the name of its process."""

    owner: str
    log_id: str
    token: str


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Hold).decode


class Holds:
    """The readers of other workers that this process's logs have, and those that it has of theirs.

    Args:
        peers: the other workers.
        logs: those that are being written here.
    """

    def __init__(self, peers: Peers, logs: Callable[[], Iterable[LiveLog]]) -> None:
        self._peers = peers
        self._logs = logs
        self._ids = itertools.count(1)
        self._let_go: dict[str, None] = {}
        peers.on(HOLD, self._held)
        peers.on(LET_GO, self._released)
        peers.on_gone(self._died)

    @contextmanager
    def held(self, owner: str, log_id: str) -> Iterator[Hold]:
        """Count as a reader of a log inside the block, once `confirm` or `announce` has said so."""
        hold = Hold(owner, log_id, f"{self._peers.name}/{next(self._ids)}")
        try:
            yield hold
        finally:
            self._peers.tell(LET_GO, _encode(hold))

    async def confirm(self, hold: Hold) -> bool:
        """Have the one that makes the answer count this reader, and wait until it does.

        Returns:
            False where it is leaving the turn, since nobody read it: there will be no answer. True also where
            nobody makes it any more; the store has it then.
        """
        return _LEFT not in await self._peers.ask(HOLD, _encode(hold))

    def announce(self, hold: Hold) -> None:
        """The same, without waiting."""
        self._peers.tell(HOLD, _encode(hold))

    # --- what the others say ----------------------------------------------------------------------------

    async def _held(self, payload: bytes) -> bytes | None:
        hold = _decode(payload)
        for log in self._logs():
            if log.id == hold.log_id and log.owner == hold.owner:
                if log.left or (log.ended and not log.sealed):
                    return _LEFT
                if hold.token not in self._let_go:  # two messages may overtake each other
                    log.hold(hold.token)
                return _HELD
        return None

    async def _released(self, payload: bytes) -> None:
        hold = _decode(payload)
        self._let_go[hold.token] = None
        if len(self._let_go) > _MOST_LET_GO:
            del self._let_go[next(iter(self._let_go))]
        for log in list(self._logs()):
            log.let_go(lambda token: token == hold.token)

    def _died(self, name: str) -> None:
        for log in list(self._logs()):
            log.let_go(lambda token: token.startswith(f"{name}/"))


__all__ = ["Hold", "Holds"]
