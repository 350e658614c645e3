"""What a run left behind: what was asked, told, sent and written. The checks read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct
from simulation.kernel import EPOCH
from simulation.ledger import Ledger
from simulation.reading import Response
from simulation.scenario import Client, DiskFault, Scenario
from simulation.server import Downtime
from simulation.upstream import Exchange
from simulation.wires import Piece

from trio_agent.store.contract import CallRow, TurnRow

EPSILON = 1e-6
"""Seconds; less apart is the same moment."""


STORE_LIMIT = 10.0
"""Seconds that a write may take before its caller is told that it has failed."""


class Sent(Struct, frozen=True):
    """A piece of content: which call said it, when, and whether the server certainly received it."""

    call: int
    at: float
    piece: Piece
    sure: bool


class Evidence(Struct):
    """All that a run left behind."""

    scenario: Scenario
    responses: Sequence[Response]
    exchanges: Sequence[Exchange]
    ledger: Ledger
    downtimes: Sequence[Downtime]
    rows: Mapping[str, TurnRow]
    calls: Mapping[str, Sequence[CallRow]]
    open_sockets: int
    violate: Callable[[int, str], None]

    @property
    def healthy(self) -> bool:
        """Whether the disk never failed."""
        return not self.scenario.disk

    def ill(self, response: Response) -> bool:
        """Whether the disk was ill at any time while the response lasted."""
        return bool(self._faults(response))

    def timely(self, response: Response) -> bool:
        """Whether the disk took no time while the response lasted, whatever else was wrong with it."""
        return not any(fault.kind in ("slow", "hangs") for fault in self._faults(response))

    def _faults(self, response: Response) -> list[DiskFault]:
        return [
            fault
            for fault in self.scenario.disk
            if fault.at <= response.ended_at + EPSILON
            and response.sent_at <= fault.until + fault.seconds + STORE_LIMIT
        ]

    def client_of(self, token: str) -> Client:
        """Whose request it was that the upstreams know by this name."""
        return self._clients[token.partition("_")[0]]

    def name_of_client(self, token: str) -> str:
        """As it stands at the beginning of the labels of its requests."""
        client = self.client_of(token)
        number = next(i for i, each in enumerate(self.scenario.clients) if each is client)
        return f"{'program' if client.embedded else 'client'} {number} "

    @property
    def _clients(self) -> Mapping[str, Client]:
        return {ask.name: client for client in self.scenario.clients for ask in client.asks}

    def calls_for(self, response: Response) -> list[Exchange]:
        """The model calls that this response caused, in order."""
        return [
            exchange
            for exchange in self.exchanges
            if exchange.ask == response.token and response.sent_at <= exchange.began_at <= response.ended_at
        ]

    def raced(self, response: Response, exchange: Exchange) -> bool:
        """Whether the server gave the call up in the moment in which it ended, so that either came first."""
        own = in_words(response) or (response.error is not None and response.error.get("provider") is None)
        return (own and abs(exchange.ended_at - response.ended_at) < EPSILON) or any(
            call.provider == exchange.provider
            and call.finish_reason is None
            and (call.failure is None or call.failure["kind"] == "stalled")
            and abs(call.ended_at - EPOCH - exchange.ended_at) < EPSILON
            for call in self.calls.get(response.turn_id or "", ())
        )

    def sent(self, response: Response, calls: Sequence[Exchange]) -> list[Sent]:
        """The content that the client should have, in order.

        What was sent in the moment in which the server closed the connection may have been on its way.
        """
        return [
            Sent(exchange.number, at, piece, not (unsure and at >= exchange.ended_at - EPSILON))
            for exchange in calls
            for unsure in (exchange.ended == "left" or self.raced(response, exchange),)
            for at, piece in exchange.pieces
            if piece.host
        ]

    def going_down(self, at: float) -> bool:
        """Whether the server was on its way down, or down, at that moment."""
        return any(down.began <= at <= down.up for down in self.downtimes)


def in_words(response: Response) -> bool:
    """Whether the answer tells in its text that it failed (`in_stream_errors: content`)."""
    return response.streamed and any(
        text.startswith("\n\n[") for _, kind, text in response.pieces if kind == "text"
    )
