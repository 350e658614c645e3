"""The row of each response's turn against what its client was told, or did (the first invariant).

A row is looked at as it was written when the response ended; what a later response made of it is that one's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from simulation.accounts import Account, Entry
from simulation.check_calls import failures_of
from simulation.evidence import EPSILON, Evidence, in_words
from simulation.kernel import EPOCH
from simulation.reading import Response

from trio_agent.store.contract import TurnRow

_WORDS = re.compile(r"\n\n\[(\w+)\] ")
UPSTREAMS = {"upstream_error", "truncated", "stalled", "rate_limited"}
REASONS = {
    "upstream_error": {"upstream_error", "truncated"},
    "upstream_stalled": {"stalled"},
    "upstream_rejected": {"upstream_rejected"},
    "invalid_request_error": {"upstream_rejected"},  # the code that the upstreams give
    "rate_limited": {"rate_limited"},
    "all_candidates_failed": UPSTREAMS,
    "turn_timeout": {"timeout"},
    "max_model_calls": {"max_model_calls"},
    "budget_exceeded": {"budget_exceeded"},
    "server_shutdown": {"shutdown"},
    "store_unavailable": {"store_unavailable"},
}
"""The reasons that a row may give, by the code that its client was told."""
DRAIN = 6.0
"""Seconds for which an upstream is read on after its client has left."""
LIMITS = {"max_model_calls", "budget_exceeded"}
KINDS = {
    "stalled": "stalled",
    "truncated": "truncated",
    "rate_limited": "rate_limited",
    "rejected": "upstream_rejected",
}


def check_outcome(evidence: Evidence, response: Response, account: Account) -> None:
    row = evidence.ledger.outcome_after(account.turn.id, response.mark)
    if row is None or not account.sure or _overlaps(response, account.responses):
        return
    entries = [each for each in account.entries if made_for(response, each)]
    code = code_told(response)
    if code is None and response.complete:
        due = _due_when_whole(response)
    elif code is not None:
        due = _due_when_told(evidence, response, code, entries)
        _check_error(evidence, response, row, code)
    elif response.ended == "left" and evidence.healthy and not response.slow:
        due = _due_when_left(evidence, response, entries)
    elif response.ended == "cut" and evidence.healthy:
        due = _due_when_cut(evidence, response)
    else:
        return
    if due and (row.outcome, row.reason) not in due:
        right = " or ".join(sorted(f"{outcome}, {reason}" for outcome, reason in due))
        what = code or response.finish or response.ended
        evidence.violate(
            1, f"{response.name}: {what}, recorded as {row.outcome}, {row.reason}; it should be {right}"
        )
    _check_commit(evidence, response, row, code)
    _check_names(evidence, response, row, entries)


def made_for(response: Response, entry: Entry) -> bool:
    """Whether a call of the response's turn was made while it lasted."""
    own = entry.exchange is None or entry.exchange.ask == response.token
    return own and response.sent_at - EPSILON <= entry.began_at <= response.ended_at + EPSILON


def code_told(response: Response) -> str | None:
    """The code of the error that the client was told, in whichever form."""
    if response.error is not None:
        return str(response.error["code"])
    if in_words(response) and (found := _WORDS.match(response.pieces[-1][2])):
        return found[1]
    return None


def _overlaps(response: Response, others: Sequence[Response]) -> bool:
    """Whether another request had to do with the turn meanwhile, so that the row may be of its making."""
    return (
        any(
            other is not response and other.mark <= response.mark and other.ended_at >= response.sent_at
            for other in others
        )
        or code_told(response) == "invalid_tool_results"
    )


Outcomes = set[tuple[str, str | None]]


def _due_when_whole(response: Response) -> Outcomes:
    return {("parked", "tool_calls")} if response.finish == "tool_calls" else {("completed", response.finish)}


def _due_when_told(evidence: Evidence, response: Response, code: str, entries: Sequence[Entry]) -> Outcomes:
    reasons = REASONS.get(code)
    if reasons is None:
        evidence.violate(1, f"{response.name}: told {code}, which nothing in the scenario brings about")
        return set()
    if code in ("upstream_error", "all_candidates_failed"):
        failures = failures_of(entries)
        reasons = {KINDS.get(kind, "upstream_error") for kind in failures} or reasons
    refused = code == "rate_limited" and not entries
    if refused:
        return {("rejected", code)}
    if response.live and code == "turn_timeout":
        return {("failed", "timeout"), ("abandoned", "host_tool_timeout")}
    outcome = "cancelled" if code == "server_shutdown" else "failed"
    # One that went on after a wait, and has shown nothing since, waits again.
    hidden = response.resumed and not (response.streamed and response.status == 200) and code not in LIMITS
    return {("parked" if hidden else outcome, reason) for reason in reasons}


def _due_when_left(evidence: Evidence, response: Response, entries: Sequence[Entry]) -> Outcomes:
    at = response.ended_at
    if _something_else_at(evidence, response, entries, at):
        return set()
    if response.live:
        return {("cancelled", "client_disconnected")}
    return {("cancelled", "client_disconnected"), ("parked", "client_disconnected")}


def _something_else_at(evidence: Evidence, response: Response, entries: Sequence[Entry], at: float) -> bool:
    """Whether the turn may have ended by itself in the moment in which its client left, or before that."""
    settings = evidence.scenario.settings
    if response.complete or evidence.going_down(at):
        return True
    for entry in entries:
        exchange = entry.exchange
        if exchange is None:
            if abs(entry.ended_at - at) < EPSILON:
                return True
        elif abs(exchange.ended_at - at) < EPSILON and exchange.ended != "left":
            return True
    last = entries[-1].exchange if entries else None
    if last is not None and any(
        abs(at - sign - settings.idle) < EPSILON for sign in (*last.signs, last.began_at)
    ):
        return True
    if last is not None and abs(at - last.began_at - settings.first_byte) < EPSILON:
        return True
    # Between two calls there is a tool of the server's at work, or a pause before a repeat.
    between = last is None or last.ended_at < at - EPSILON or last.ended == "whole"
    return between or at - response.sent_at > settings.turn - EPSILON


def _due_when_cut(evidence: Evidence, response: Response) -> Outcomes:
    kinds = {down.kind for down in evidence.downtimes if down.began <= response.ended_at <= down.up}
    if response.slow or response.live or kinds - {"kill", "shutdown"} or not kinds:
        return set()  # a program ends with its process, by itself
    if response.status == 429 and not response.resumed:
        return {("rejected", "rate_limited"), ("failed", "rate_limited")}  # only the body is missing
    due: Outcomes = {("cancelled", "shutdown"), ("parked", "shutdown"), ("parked", "tool_calls")}
    due |= {("completed", "stop"), ("completed", "length")}
    if kinds != {"kill"}:  # it may have failed by itself, and found no time to say so
        due |= {("failed", reason) for reason in (*UPSTREAMS, "timeout", "upstream_rejected")}
    return due


def _check_error(evidence: Evidence, response: Response, row: TurnRow, code: str) -> None:
    error = row.error or {}
    recorded = {error.get("upstream_code"), error.get("code")} - {None}
    if code not in recorded and row.outcome != "rejected":
        evidence.violate(1, f"{response.name}: told {code}, its row says {sorted(recorded)}")


def _check_commit(evidence: Evidence, response: Response, row: TurnRow, code: str | None) -> None:
    if response.live or response.ended != "whole" or response.slow or row.outcome == "rejected":
        return
    if not response.streamed:
        by = {"end"} if response.status == 200 else {None}
        said = response.text or response.reasoning or response.refusal or response.calls
        states = {"preflight", "streaming"} if code else {"streaming"} if said else {"preflight"}
        if code in LIMITS and response.resumed:
            states = {"host_tool_wait"} | states  # it was over before it began again
    else:
        settings = evidence.scenario.settings
        window = settings.preflight if response.ask.preflight is None else response.ask.preflight
        assert response.head_at is not None
        first = response.pieces[0][0] if response.pieces else None
        by = {"content", "window"}
        if first is None or first > response.head_at + EPSILON:
            by = {"window"}
        elif response.head_at < response.sent_at + window - EPSILON:
            by = {"content"}
        if first is None and code is None:  # an answer of nothing that a client sees
            by |= {"end"} if response.head_at < response.sent_at + window + EPSILON else set()
        content = [text for _, _, text in response.pieces if not _WORDS.match(text)]
        states = (
            {"streaming"}
            if content
            else {"role_chunk", "preflight"}
            if row.committed_by == "end"
            else {"role_chunk"}
        )
        if response.head_at == response.ended_at and code:
            by |= {"window"}
    if row.outcome == "parked":
        states = {"host_tool_wait"}
        by = by if code is None else {None}
    if response.status >= 400 and response.streamed:
        states, by = {"preflight"}, {None}
    for name, found, right in (("state", row.state, states), ("committed_by", row.committed_by, by)):
        if found not in right:
            due = " or ".join(sorted(map(str, right)))
            evidence.violate(1, f"{response.name}: {name} is recorded as {found}, it should be {due}")


def _check_names(evidence: Evidence, response: Response, row: TurnRow, entries: Sequence[Entry]) -> None:
    due: dict[str, object] = {"face": response.face}
    if not response.ask.model.startswith("role:"):
        due["model"] = response.ask.model
    if entries and (response.complete or not response.ask.model.startswith("role:")):
        due["provider"] = entries[-1].row.provider
    if not response.resumed:
        due["session_id"] = response.name
    if row.outcome not in ("running", "parked") and row.ended_at is not None:
        late = row.ended_at - EPOCH - response.ended_at
        if evidence.healthy and late > EPSILON and not response.slow and response.ended == "whole":
            evidence.violate(1, f"{response.name}: recorded as ended {late:.3f} s late")
    for name, right in due.items():
        if getattr(row, name) != right:
            evidence.violate(1, f"{response.name}: {name} is recorded as {getattr(row, name)}, not {right}")
