"""Requests with one Idempotency-Key: one turn at a time, one answer for all (the eighth invariant)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from simulation.check_responses import CLOSE_WITHIN, check_content
from simulation.evidence import EPSILON, Evidence, in_words
from simulation.reading import Response
from simulation.upstream import Exchange


def check_keys(evidence: Evidence) -> None:
    groups: dict[str, list[Response]] = defaultdict(list)
    for response in evidence.responses:
        if response.ask.key:
            groups[response.token].append(response)
    for name, group in groups.items():
        calls = [exchange for exchange in evidence.exchanges if exchange.ask == name]
        _check_calls(evidence, name, calls)
        _check_leaving(evidence, name, group, calls)
        whole = [each for each in group if each.complete and not in_words(each)]
        if whole:
            _check_answers(evidence, name, whole, calls)


def _check_calls(evidence: Evidence, name: str, calls: Sequence[Exchange]) -> None:
    """A turn makes one call after the other, and a key has one turn."""
    open_until = 0.0
    for exchange in calls:
        if exchange.began_at < open_until - EPSILON:
            evidence.violate(8, f"{exchange.name} was begun for the key of {name} while another one ran")
        if exchange.provider not in evidence.scenario.settings.drains:
            open_until = max(open_until, exchange.ended_at)


def _check_leaving(
    evidence: Evidence, name: str, group: Sequence[Response], calls: Sequence[Exchange]
) -> None:
    """When the last one has left, the turn is left."""
    if any(each.ended != "left" or not evidence.timely(each) for each in group):
        return
    last = max(each.ended_at for each in group)
    for exchange in calls:
        drained = exchange.provider in evidence.scenario.settings.drains
        if exchange.ended_at > last + CLOSE_WITHIN and not drained:
            evidence.violate(
                2, f"{exchange.name} was open when all had left that asked with the key of {name}"
            )


def _check_answers(
    evidence: Evidence, name: str, whole: Sequence[Response], calls: Sequence[Exchange]
) -> None:
    turns = {each.turn_id for each in whole}
    if len(turns) > 1:
        evidence.violate(8, f"the key of {name} was answered by {len(turns)} turns")
        return
    if len({(each.status, each.content) for each in whole}) > 1:
        evidence.violate(8, f"the key of {name} was answered in {len(whole)} ways")
    told = min(each.told_at for each in whole if each.told_at is not None)
    for exchange in calls:
        if exchange.began_at > told + EPSILON:
            evidence.violate(8, f"{exchange.name} was begun though the key of {name} had its answer")
    (turn_id,) = turns
    own = {call.response_id for call in evidence.calls.get(turn_id or "", ()) if call.finish_reason}
    for each in whole:
        check_content(evidence, each, [exchange for exchange in calls if exchange.speaker.id in own])
