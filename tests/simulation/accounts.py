"""Which row belongs to which call: the rows of model calls beside what the upstreams saw of them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from simulation.evidence import EPSILON, Evidence
from simulation.kernel import EPOCH
from simulation.reading import Response
from simulation.upstream import Exchange

from trio_agent.store.contract import CallRow, TurnRow


class Entry(Struct, frozen=True):
    """One model call: its row, and what its upstream saw; `None` where it took no request."""

    row: CallRow
    exchange: Exchange | None

    @property
    def began_at(self) -> float:
        """On the run's clock, as all times here."""
        return self.row.started_at - EPOCH

    @property
    def ended_at(self) -> float:
        return self.row.ended_at - EPOCH

    @property
    def billed(self) -> bool:
        """Whether the upstream may charge for it: it failed before it said anything, or else it may."""
        if self.row.failure is None:
            return True
        return self.exchange is not None and any(at < self.ended_at - EPSILON for at in self.exchange.signs)

    @property
    def just_billed(self) -> bool:
        """Whether it began to answer in the very moment in which it failed, so that either came first."""
        return (
            self.row.failure is not None and not self.billed and bool(self.exchange and self.exchange.signs)
        )


class Account(Struct, frozen=True):
    """One turn: its row, its model calls in their order, and the responses that are known to be its own."""

    turn: TurnRow
    entries: Sequence[Entry]
    responses: Sequence[Response]
    sure: bool
    """Whether no crash and no failed write has come between what happened and what is written."""


def accounts(evidence: Evidence) -> list[Account]:
    """All turns that have a row."""
    free = {exchange.number: exchange for exchange in evidence.exchanges}
    by_id = {exchange.speaker.id: exchange for exchange in evidence.exchanges}
    by_prompt = {exchange.speaker.usage[0]: exchange for exchange in evidence.exchanges}
    found: dict[tuple[str, int], Exchange] = {}
    for turn_id, calls in evidence.calls.items():
        for place, row in enumerate(calls):
            exchange = by_id.get(row.response_id or "") or by_prompt.get(row.usage.input_tokens)
            if exchange is not None and free.pop(exchange.number, None) is not None:
                found[turn_id, place] = exchange
    listed = []
    for turn_id, turn in evidence.rows.items():
        responses = [each for each in evidence.responses if each.turn_id == turn_id]
        tokens = {each.token for each in responses}
        entries = []
        for place, row in enumerate(evidence.calls.get(turn_id, ())):
            exchange = found.get((turn_id, place)) or _likely(evidence, turn, row, tokens, free)
            entries.append(Entry(row, exchange))
        sure = turn_id not in evidence.ledger.unsure and turn_id not in evidence.ledger.crashed
        listed.append(
            Account(
                turn,
                sorted(entries, key=lambda each: (each.row.number, each.row.started_at)),
                responses,
                sure,
            )
        )
    return listed


def _likely(
    evidence: Evidence, turn: TurnRow, row: CallRow, tokens: set[str], free: dict[int, Exchange]
) -> Exchange | None:
    """By provider, time and client; where a client sends copies, by the names of those that were told."""
    session = turn.session_id or ""
    fit = [
        exchange
        for exchange in free.values()
        if exchange.provider == row.provider
        and row.started_at - EPSILON <= exchange.began_at + EPOCH <= row.ended_at + EPSILON
        and session.startswith(evidence.name_of_client(exchange.ask))
    ]
    fit.sort(key=lambda exchange: (exchange.ask not in tokens, exchange.began_at))
    return free.pop(fit[0].number) if fit else None
