"""What each model call cost, and how many there may be: rows against upstreams, limits against both (5)."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise

from simulation.accounts import Account, Entry
from simulation.check_memory import calls_in, results_in
from simulation.evidence import EPSILON, Evidence
from simulation.kernel import EPOCH
from simulation.server import PRICES
from simulation.wires import SERVER_TOOL

BACKOFF, JITTER = 0.25, 0.25
RETRIED_STATUS = {408, 500, 502, 503, 529}
KINDS = {400: "rejected", 413: "rejected", 422: "rejected", 401: "unauthorized", 429: "rate_limited"}
BROKEN = {"cut": "truncated", "short": "truncated", "garbage": "malformed", "error": "unavailable"}
_WORST = ("provider", "estimated", "unknown")


def check_account(evidence: Evidence, account: Account) -> None:
    if not account.sure:
        return
    for entry in account.entries:
        _check_entry(evidence, account, entry)
    _check_sums(evidence, account)
    _check_numbers(evidence, account)
    _check_limits(evidence, account)
    check_stalls(evidence, account)
    _check_tools(evidence, account)
    for first, second in pairwise(account.entries):
        if first.row.number == second.row.number and first.row.provider == second.row.provider:
            _check_retry(evidence, account, first, second)


# --- one call -----------------------------------------------------------------------------------------


def cost_of(figures: tuple[int, int]) -> Decimal:
    return figures[0] * Decimal(PRICES["input"]) + figures[1] * Decimal(PRICES["output"])


def failure_due(entry: Entry) -> str | None:
    """What kind of failure an upstream's breaking off is; `None` where two are right."""
    exchange = entry.exchange
    if exchange is None or exchange.ended != "broken":
        return None
    reply = exchange.reply
    if reply.dropped:
        return "truncated"
    if reply.status != 200:
        return KINDS.get(reply.status, "unavailable")
    return BROKEN.get(reply.ending)


def _check_entry(evidence: Evidence, account: Account, entry: Entry) -> None:
    row, exchange = entry.row, entry.exchange
    what = f"{account.turn.id}: call {row.number}.{row.attempt}"
    if row.model != "one":
        evidence.violate(5, f"{what}: the model is {row.model!r}")
    if exchange is None:
        _compare(evidence, what, "usage_source", row.usage_source, {"unknown"})
        _compare(evidence, what, "cost_usd", row.cost_usd, {None})
        return
    told = (row.usage.input_tokens, row.usage.output_tokens)
    if row.finish_reason is not None:
        reported = exchange.reported[-1:]
        _compare(evidence, what, "served_model", row.served_model, {exchange.speaker.model})
        _compare(evidence, what, "response_id", row.response_id, {exchange.speaker.id})
        _compare(evidence, what, "failure", row.failure, {None})
        _compare(evidence, what, "finish_reason", row.finish_reason, {finish_of(entry)})
        _compare(evidence, what, "usage", told, set(reported or [(0, 0)]))
        _compare(evidence, what, "usage_source", row.usage_source, {"provider" if reported else "unknown"})
    else:
        sources = {"unknown"} if told == (0, 0) else {"estimated"}
        if account.turn.provider in evidence.scenario.settings.drains and exchange.ended == "whole":
            sources |= {"provider"}  # it was read to its end for a client that had left
        _compare(evidence, what, "usage_source", row.usage_source, sources)
        kind = failure_due(entry)
        held_up = any(each.slow or not evidence.timely(each) for each in account.responses)
        if (
            kind
            and row.failure is not None
            and not held_up
            and abs(entry.ended_at - exchange.ended_at) > EPSILON
        ):
            evidence.violate(
                5, f"{what}: recorded {entry.ended_at:.3f} s, it broke off at {exchange.ended_at:.3f} s"
            )
        if kind and row.failure is not None and row.failure["kind"] != "stalled":
            _compare(evidence, what, "failure", row.failure["kind"], {kind})
    _compare(evidence, what, "cost_usd", row.cost_usd, {cost_of(told) if told != (0, 0) else None})


def finish_of(entry: Entry) -> str:
    assert entry.exchange is not None
    if entry.exchange.reply.ending == "length":
        return "length"
    return "tool_calls" if entry.exchange.speaker.calls else "stop"


def _compare(evidence: Evidence, what: str, name: str, found: object, right: set[object]) -> None:
    if found not in right:
        due = " or ".join(sorted(repr(each) for each in right))
        evidence.violate(5, f"{what}: {name} is {found!r}, it should be {due}")


# --- the turn's sums ----------------------------------------------------------------------------------


def _check_sums(evidence: Evidence, account: Account) -> None:
    turn = account.turn
    if turn.outcome == "rejected" or any(entry.just_billed for entry in account.entries):
        return
    billed = [entry.row for entry in account.entries if entry.billed]
    costs = [row.cost_usd for row in billed]
    known = [cost for cost in costs if cost is not None]
    total = sum(known, Decimal(0)) if known and len(known) == len(costs) else None
    _compare(evidence, turn.id, "cost_usd", turn.cost_usd, {total})
    source = max((row.usage_source for row in billed), key=_WORST.index, default="unknown")
    _compare(evidence, turn.id, "usage_source", turn.usage_source, {source})


def _check_tools(evidence: Evidence, account: Account) -> None:
    """Each of the server's tools whose result a model was sent is in the record, once."""
    recorded = [tool["tool_call_id"] for tool in account.turn.tools]
    known = {call.id for entry in account.entries if entry.exchange for call in entry.exchange.speaker.calls}
    sent = {
        call_id: found
        for entry in account.entries
        if entry.exchange is not None
        for call_id, found in results_in(entry.exchange).items()
        if call_id in known and calls_in(entry.exchange).get(call_id, ("",))[0] == SERVER_TOOL
    }
    for call_id in sent.keys() - set(recorded):
        evidence.violate(5, f"{account.turn.id}: the tool that ran for {call_id} is not in its record")
    for tool in account.turn.tools:
        failed = f"done {tool['tool_call_id'].removeprefix('call_')}" not in sent.get(
            tool["tool_call_id"], ""
        )
        if recorded.count(tool["tool_call_id"]) > 1:
            evidence.violate(5, f"{account.turn.id}: {tool['tool_call_id']} is in its record twice")
        if tool["tool_call_id"] in sent and tool["failed"] != failed:
            evidence.violate(5, f"{account.turn.id}: {tool['tool_call_id']} is recorded as {tool}")


# --- how many -----------------------------------------------------------------------------------------


def _check_numbers(evidence: Evidence, account: Account) -> None:
    """Calls are numbered from 1, and the attempts of each with one provider from 0."""
    settings = evidence.scenario.settings
    before: Entry | None = None
    for entry in account.entries:
        number, attempt = entry.row.number, entry.row.attempt
        what = f"{account.turn.id}: call {number}.{attempt}"
        if number > settings.model_calls:
            evidence.violate(5, f"{what} was made; {settings.model_calls} calls are allowed")
        if attempt > settings.retries:
            evidence.violate(5, f"{what} was made; {settings.retries} retries are allowed")
        same = before is not None and before.row.number == number
        last = before.row.number if before is not None else 0
        again = before is not None and same and before.row.provider == entry.row.provider
        due = (last if same else last + 1, before.row.attempt + 1 if again and before is not None else 0)
        if (number, attempt) != due:
            evidence.violate(5, f"{what} follows call {last}; {due[0]}.{due[1]} is due")
        before = entry


def _check_limits(evidence: Evidence, account: Account) -> None:
    limit = evidence.scenario.settings.cost
    spent = Decimal(0)
    for entry in account.entries:
        if limit is not None and spent >= Decimal(limit):
            evidence.violate(
                5, f"{account.turn.id}: call {entry.row.number} was made when {spent} of {limit} was spent"
            )
        spent += entry.row.cost_usd or 0


def _check_retry(evidence: Evidence, account: Account, first: Entry, second: Entry) -> None:
    what = f"{account.turn.id}: call {second.row.number}.{second.row.attempt}"
    exchange, failure = first.exchange, first.row.failure
    if failure is None:
        evidence.violate(5, f"{what} repeats one that had not failed")
        return
    pause = second.began_at - first.ended_at
    if exchange is not None and exchange.ended == "broken" and exchange.reply.status == 429:
        after = exchange.reply.retry_after
        if after is None or abs(pause - after) > EPSILON:
            evidence.violate(5, f"{what} came {pause:.3f} s after a 429 that said {after}")
    else:
        allowed = {"truncated", "unavailable"} if exchange is not None else {"refused", "truncated"}
        if failure["kind"] not in allowed:
            evidence.violate(5, f"{what} repeats one that was {failure['kind']}")
        due = BACKOFF * 2**first.row.attempt
        if not due * (1 - JITTER) - EPSILON <= pause <= due * (1 + JITTER) + EPSILON:
            evidence.violate(5, f"{what} came after {pause:.3f} s; {due:g} s, give or take a quarter, is due")
    window = _window_of(evidence, account, second)
    if window is not None and second.began_at > window + EPSILON:
        evidence.violate(5, f"{what} is a retry {second.began_at - window:.3f} s after the preflight window")
    if (
        exchange is not None
        and any(piece.host for _, piece in exchange.pieces)
        and exchange.ended == "broken"
    ):
        evidence.violate(5, f"{what} repeats one that had begun to answer")


def _window_of(evidence: Evidence, account: Account, entry: Entry) -> float | None:
    """When the preflight window of the response closed that made this call."""
    for response in account.responses:
        if response.sent_at - EPSILON <= entry.began_at <= response.ended_at + EPSILON:
            window = response.ask.preflight
            began = evidence.ledger.begun_at(account.turn.id, entry.row.started_at - EPOCH)
            if began is None:
                return None
            return began + (evidence.scenario.settings.preflight if window is None else window)
    return None


def failures_of(entries: Sequence[Entry]) -> set[str]:
    return {entry.row.failure["kind"] for entry in entries if entry.row.failure is not None}


def check_stalls(evidence: Evidence, account: Account) -> None:
    """A call has stalled when its upstream was silent for so long while it was awaited, and then at once."""
    settings = evidence.scenario.settings
    for entry in account.entries:
        failure, exchange = entry.row.failure, entry.exchange
        if failure is None or failure["kind"] != "stalled":
            continue
        # What is sent in the moment in which the limit is over may come too late.
        now = entry.ended_at - EPSILON
        signs = [] if exchange is None else [at for at in exchange.signs if at < now]
        events = [] if exchange is None else [at for at in exchange.events if at < now]
        limit = settings.idle if signs else settings.first_byte
        since = max(events, default=entry.began_at)
        silent = entry.ended_at - since
        what = f"{account.turn.id}: call {entry.row.number}.{entry.row.attempt} was given up"
        if silent < limit - EPSILON:
            evidence.violate(5, f"{what} after a silence of {silent:.3f} s; {limit:g} s are allowed")
        slow = [each for each in account.responses if each.slow or not evidence.timely(each)]
        if not slow and exchange is not None and silent > limit + EPSILON:
            evidence.violate(
                5, f"{what} after a silence of {silent:.3f} s, which is late; {limit:g} s are due"
            )
        if exchange is not None and (exchange.blocked_since < now or exchange.freed_at > now):
            evidence.violate(5, f"{what} as silent for {limit:g} s, though nobody took what it had to say")
