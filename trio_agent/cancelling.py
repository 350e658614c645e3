"""Ending turns that run beside their callers by their ids, in whichever worker they run."""

from __future__ import annotations

from typing import Final

import msgspec
import trio
from msgspec import Struct

from trio_agent.peers import Peers
from trio_agent.running import RunningTurns

CANCEL: Final = "turn.cancel"
PATIENCE_SECONDS: Final = 0.75
"""How long the answer waits for the turn's end. Then it says that the turn is ending."""


class _Named(Struct, frozen=True):
    owner: str
    log_id: str


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Named).decode


class Cancelling:
    """Ends turns wherever they run.

    Args:
        running: the turns of this process.
        nursery: where a turn is ended for another worker, which may not wait for that.
    """

    def __init__(self, peers: Peers, running: RunningTurns, nursery: trio.Nursery | None) -> None:
        self._peers = peers
        self._running = running
        if nursery is not None:
            self._nursery = nursery
            peers.on(CANCEL, self._cancel_for_peer)

    async def cancel(self, owner: str, log_id: str) -> bool:
        """End the turn that writes this log; whether anybody runs it.

        One of this process has ended when this returns. One of another worker may need a moment more.
        """
        turn = self._running.started(owner, log_id)
        if turn is not None:
            await turn.cancel()
            await turn.wait()
            return True
        return bool(await self._peers.ask(CANCEL, _encode(_Named(owner, log_id))))

    async def _cancel_for_peer(self, payload: bytes) -> bytes | None:
        named = _decode(payload)
        turn = self._running.started(named.owner, named.log_id)
        if turn is None:
            return None
        self._nursery.start_soon(turn.cancel)
        with trio.move_on_after(PATIENCE_SECONDS):
            await turn.wait()
        return b"1"


__all__ = ["Cancelling"]
