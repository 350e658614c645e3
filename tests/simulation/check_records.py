"""What the database says of turns: outcomes (the first invariant) and figures (the fifth)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from simulation.evidence import Evidence, in_words
from simulation.reading import Response
from simulation.server import PRICES
from simulation.upstream import Exchange

from trio_agent.store.contract import CallRow

# --- 1: rows ------------------------------------------------------------------------------------------


def check_rows(evidence: Evidence) -> None:
    for turn_id, row in evidence.rows.items():
        if row.outcome == "running":
            evidence.violate(1, f"{turn_id} has no outcome")
        crashed = turn_id in evidence.ledger.crashed
        if row.outcome == "abandoned" and row.reason == "crash" and evidence.healthy and not crashed:
            evidence.violate(1, f"{turn_id} was abandoned, but its process did not crash")
        if turn_id not in evidence.ledger.standing and turn_id not in evidence.ledger.unsure:
            evidence.violate(1, f"{turn_id} was written by nobody")
        written = evidence.ledger.last_written(turn_id)
        expired = (row.outcome, row.reason) == ("abandoned", "host_tool_timeout")
        if written is not None and not expired and turn_id not in evidence.ledger.unsure and row != written:
            differ = [name for name in row.__struct_fields__ if getattr(row, name) != getattr(written, name)]
            evidence.violate(1, f"{turn_id}: {', '.join(differ)} differ from what was written")
    for turn_id in evidence.ledger.standing:
        if turn_id not in evidence.rows:
            evidence.violate(1, f"{turn_id} has no row, though it was written")


def check_row(evidence: Evidence, response: Response) -> None:
    """A response that names a turn has a row; `check_outcomes.py` compares what is in it."""
    turn_id = response.turn_id
    if turn_id is None and response.status == 200:
        evidence.violate(1, f"{response.name}: a success without X-Turn-Id")
    if turn_id is not None and turn_id not in evidence.rows and turn_id not in evidence.ledger.unsure:
        evidence.violate(1, f"{response.name}: {turn_id} has no row")


# --- 5: usage -----------------------------------------------------------------------------------------


def check_usage(evidence: Evidence, by_response: Mapping[int, Sequence[Exchange]]) -> None:
    by_prompt = {exchange.speaker.usage[0]: exchange for exchange in evidence.exchanges}
    counted: dict[int, str] = {}
    for turn_id, row in evidence.rows.items():
        calls = evidence.calls.get(turn_id, ())
        for name in ("input_tokens", "output_tokens"):
            total = sum(getattr(call.usage, name) for call in calls)
            if getattr(row.usage, name) != total and turn_id not in evidence.ledger.unsure:
                evidence.violate(
                    5, f"{turn_id}: {name} {getattr(row.usage, name)}, its calls' sum is {total}"
                )
        for call in calls:
            if call.usage.input_tokens:
                _check_call(evidence, call, by_prompt.get(call.usage.input_tokens), counted)
    for response in evidence.responses:
        _check_told(evidence, response, by_response[id(response)], counted)


def _check_call(
    evidence: Evidence, call: CallRow, exchange: Exchange | None, counted: dict[int, str]
) -> None:
    what = f"{call.turn_id}: call {call.number}.{call.attempt}"
    if exchange is None:
        evidence.violate(5, f"{what} has figures that nobody reported")
        return
    if exchange.number in counted:
        evidence.violate(5, f"{what} counts {exchange.name}, as {counted[exchange.number]} does")
    counted[exchange.number] = what
    figures = (call.usage.input_tokens, call.usage.output_tokens)
    if figures not in exchange.reported:
        evidence.violate(5, f"{what}: {figures}, the upstream reported {exchange.reported}")
    if call.finish_reason is not None and figures != exchange.reported[-1]:
        evidence.violate(5, f"{what}: {figures} are not the last figures of {exchange.name}")
    cost = figures[0] * Decimal(PRICES["input"]) + figures[1] * Decimal(PRICES["output"])
    if call.cost_usd != cost:
        evidence.violate(5, f"{what}: cost {call.cost_usd}, it is {cost}")


def _check_told(
    evidence: Evidence, response: Response, calls: Sequence[Exchange], counted: Mapping[int, str]
) -> None:
    turn_id = response.turn_id
    if turn_id is None or turn_id in evidence.ledger.unsure or turn_id in evidence.ledger.crashed:
        return
    for exchange in calls:
        sure = exchange.ended == "broken" or (exchange.ended == "whole" and response.ended == "whole")
        if (
            sure
            and not evidence.raced(response, exchange)
            and exchange.reported
            and exchange.number not in counted
            and not response.slow
        ):
            evidence.violate(5, f"{response.name}: the figures of {exchange.name} are in no row")
    if response.usage is None or in_words(response):
        return
    for name, place in (("prompt_tokens", 0), ("completion_tokens", 1)):
        total = sum(each.reported[-1][place] for each in calls if each.number in counted)
        if response.usage[name] != total:
            evidence.violate(
                5, f"{response.name}: told {response.usage[name]} {name}, its calls' sum is {total}"
            )
