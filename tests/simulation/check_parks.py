"""Turns that wait for their caller: who goes on with one, and for how long it waits; how many may run."""

from __future__ import annotations

from collections.abc import Mapping

from simulation.accounts import Account
from simulation.check_outcomes import DRAIN, code_told
from simulation.evidence import EPSILON, Evidence
from simulation.kernel import EPOCH
from simulation.reading import Response


def check_parks(evidence: Evidence, found: Mapping[str, Account]) -> None:
    for response in evidence.responses:
        before = response.follows
        if before is None or before.turn_id is None or not response.started:
            continue
        account = found.get(before.turn_id)
        if account is not None and account.sure and evidence.timely(response):
            _check_follower(evidence, response, before, before.turn_id)
    for account in found.values():
        _check_expiry(evidence, account)


def _check_follower(evidence: Evidence, response: Response, before: Response, turn_id: str) -> None:
    went_on = response.turn_id == turn_id
    stood, expires = _park_at(evidence, turn_id, response.mark)
    what = f"{response.name}, with the results that {turn_id} waits for,"
    code = code_told(response)
    if response.ask.results == "edited" or expires is None or response.sent_at > expires + EPSILON:
        if went_on:
            evidence.violate(6, f"{what} went on with it, though it is another conversation, or too late")
        return
    if (
        stood != "parked"
        or response.ask.model != before.ask.model
        or response.ask.copies > 1
        or response.sent_at > expires - EPSILON
        or evidence.going_down(response.sent_at)
        or evidence.ill(response)
        or code in ("server_shutdown", "store_unavailable")
        or (code == "rate_limited" and response.error is not None and not response.error.get("provider"))
    ):
        return  # either is right
    if response.ask.results == "some" and len(before.calls) > 1:
        if code != "invalid_tool_results":
            evidence.violate(6, f"{what} lacks one of them, and was told {code or response.finish}")
    elif response.ask.results == "some":
        if went_on:
            evidence.violate(6, f"{what} has none of them, and went on with it")
    elif not went_on:
        evidence.violate(6, f"{what} was taken for another turn, {response.turn_id}")


def _park_at(evidence: Evidence, turn_id: str, mark: int) -> tuple[str | None, float | None]:
    """Where a turn stood after so many writes, and when the park expires that it went into then."""
    stood, expires, fresh = None, None, True
    for change in evidence.ledger.changes[:mark]:
        if change.turn_id != turn_id:
            continue
        stood = change.then
        if (
            change.then == "parked"
            and change.row is not None
            and (fresh or change.row.reason == "tool_calls")
        ):
            expires, fresh = change.at + evidence.scenario.settings.ttl, False
    return stood, expires


def _check_expiry(evidence: Evidence, account: Account) -> None:
    row = account.turn
    if (
        (row.outcome, row.reason) != ("abandoned", "host_tool_timeout")
        or row.face == "embedded"
        or not account.sure
    ):
        return
    _, expires = _park_at(evidence, row.id, len(evidence.ledger.changes))
    ended = None if row.ended_at is None else row.ended_at - EPOCH
    if expires is not None and ended is not None and ended < expires - EPSILON:
        evidence.violate(6, f"{row.id} was given up {expires - ended:.3f} s before its time")


def check_concurrency(evidence: Evidence) -> None:
    """As many turns run as may, and none is turned away before."""
    most = evidence.scenario.settings.concurrent
    running: set[str] = set()
    for change in evidence.ledger.changes:
        if change.then in ("running", "resumed"):
            running.add(change.turn_id)
        else:
            running.discard(change.turn_id)
        if len(running - evidence.ledger.unsure) > most:
            evidence.violate(2, f"{len(running)} turns ran at once; {most} are allowed")
            break
    if not evidence.healthy:
        return
    for response in evidence.responses:
        row = evidence.rows.get(response.turn_id or "")
        if row is None or (row.outcome, row.reason) != ("rejected", "rate_limited"):
            continue
        at = row.created_at - EPOCH
        there = sum(
            other is not response
            and other.sent_at <= at + EPSILON
            and at <= other.ended_at + EPSILON + (0.0 if other.ended == "whole" else DRAIN + 1.0)
            for other in evidence.responses
        )
        if there < most:
            evidence.violate(2, f"{response.name} was turned away when {there} of {most} turns ran")
