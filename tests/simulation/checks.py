"""The invariants of docs/architecture.md, held against what a run left: rows, responses, and upstreams.

Each check is a function of the `Evidence`. What the clients got is compared with what the upstreams sent, and
what the rows say with both. Where a fault makes two outcomes right (bytes that were on their way when a
connection was closed), both pass. What can be seen at once is checked while the run goes on: the form of
responses in `reading.py`, writes in `ledger.py`, ends and what they leave in `server.py`.
"""

from __future__ import annotations

from msgspec.structs import replace
from simulation.accounts import accounts
from simulation.check_calls import check_account
from simulation.check_keys import check_keys
from simulation.check_memory import check_conversations, check_results
from simulation.check_outcomes import check_outcome
from simulation.check_parks import check_concurrency, check_parks
from simulation.check_records import check_row, check_rows, check_usage
from simulation.check_responses import check_content, check_ending, check_slow_reader, check_times
from simulation.evidence import Evidence
from simulation.upstream import Exchange


def check(evidence: Evidence) -> None:
    """Hold everything against everything; each contradiction goes to `evidence.violate`."""
    used: set[int] = set()
    by_response: dict[int, list[Exchange]] = {}
    for response in evidence.responses:
        if response.ask.key:  # its turn is another's as well: `check_keys` looks at them together
            by_response[id(response)] = []
            used |= {each.number for each in evidence.exchanges if each.ask == response.token}
            check_row(evidence, response)
            continue
        calls = evidence.calls_for(response)
        by_response[id(response)] = calls
        used |= {exchange.number for exchange in calls}
        check_content(evidence, response, calls)
        check_ending(evidence, response, calls)
        check_times(evidence, response, calls)
        check_row(evidence, response)
    for exchange in evidence.exchanges:
        if exchange.number not in used:
            evidence.violate(2, f"{exchange.name} was begun for a client that was not there")
        check_results(evidence, exchange)
    check_rows(evidence)
    found = {account.turn.id: account for account in accounts(evidence)}
    for account in found.values():
        check_account(evidence, account)
        for response in account.responses:
            earlier = [each for each in account.responses if each.mark < response.mark]
            response.resumed = bool(earlier)
            if not response.ask.key:
                check_outcome(evidence, response, account)
    check_keys(evidence)
    check_parks(evidence, found)
    check_concurrency(evidence)
    plain = [response for response in evidence.responses if not response.ask.key]
    evidence = replace(evidence, responses=plain)
    for response in plain:
        check_slow_reader(evidence, response, found.get(response.turn_id or ""))
    check_usage(evidence, by_response)
    check_conversations(evidence, by_response)
    if evidence.open_sockets:
        evidence.violate(2, f"{evidence.open_sockets} sockets were left open")
