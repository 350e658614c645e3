"""What clients were told (the third and fourth invariant), and when (the second)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from simulation.accounts import Account
from simulation.client import NEVER_READS_FOR
from simulation.evidence import EPSILON, STORE_LIMIT, Evidence, in_words
from simulation.kernel import EPOCH
from simulation.reading import Response
from simulation.upstream import Exchange
from simulation.wires import Piece

CLOSE_WITHIN = 0.05
"""Seconds within which an upstream must see that its caller's client has left."""

SLACK = 1.0
"""Seconds that the end of a turn may take beside what is limited."""
LAST_WORDS = 1.5
"""Seconds beyond its turn's time that a client which does not read is given to take what is on its way."""
STORE_WRITES = 4
"""That a turn may have to wait for: its park taken, its row opened and closed, and its clean-up."""

HALF_MILLISECOND = 0.0005

# --- 3 and 4: what the client was told ----------------------------------------------------------------


def check_content(evidence: Evidence, response: Response, calls: Sequence[Exchange]) -> None:
    sent = evidence.sent(response, calls)
    # What a call said at the very end of its life is certain if it is the last one's.
    expected = [each.piece for each in sent if each.sure or each.call == calls[-1].number]
    wrong = _contradiction(evidence, response, expected)
    if wrong and len(expected) < len(sent):
        wrong = _contradiction(evidence, response, [each.piece for each in sent])
    if wrong:
        evidence.violate(4, f"{response.name}: {wrong}")


def _contradiction(evidence: Evidence, response: Response, expected: Sequence[Piece]) -> str:
    said = _said_by(response)
    meant = [(_kind_shown(response, piece), piece.text) for piece in expected]
    if evidence.scenario.settings.errors != "event" and response.streamed and said:
        kind, text = said[-1]
        if kind == "text" and text.startswith("\n\n["):
            said.pop()
    if not response.streamed:
        meant, said = _joined(meant), _joined(said)
    if response.complete and not in_words(response):
        return "" if said == meant else _difference(said, meant, "the whole answer is")
    if response.streamed and said != meant[: len(said)]:
        return _difference(said, meant, "it should begin like")
    return ""


def _kind_shown(response: Response, piece: Piece) -> str:
    """As what a piece is shown; Messages has no word for a refusal."""
    return "text" if response.face == "messages" and piece.kind == "refusal" else piece.kind


def _said_by(response: Response) -> list[tuple[str, str]]:
    if response.streamed:
        return [(kind, text) for _, kind, text in response.pieces]
    said = [("reasoning", response.reasoning), ("text", response.text), ("refusal", response.refusal)]
    said += [("call", f"{call.id} {call.name}") for call in response.calls]
    said += [("arguments", call.arguments) for call in response.calls]
    return [each for each in said if each[1]]


def _joined(pieces: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """By kind; calls apart from each other. One body does not tell in which order the kinds came."""
    texts: dict[str, str] = defaultdict(str)
    for kind, text in pieces:
        texts[kind] += text + ("\n" if kind == "call" else "")
    return sorted(texts.items())


def _difference(said: Sequence[tuple[str, str]], meant: Sequence[tuple[str, str]], what: str) -> str:
    place = next(
        (i for i, (a, b) in enumerate(zip(said, meant, strict=False)) if a != b), min(len(said), len(meant))
    )
    return f"got {_shown(said, place)} at piece {place}; {what} {_shown(meant, place)}"


def _shown(pieces: Sequence[tuple[str, str]], place: int) -> str:
    return " ".join(f"{kind} {text[:40]!r}" for kind, text in pieces[place : place + 2]) or "nothing"


def check_ending(evidence: Evidence, response: Response, calls: Sequence[Exchange]) -> None:
    name = response.name
    if response.status == 200 and response.ended == "whole" and not (response.finish or response.error):
        evidence.violate(3, f"{name}: a success without an answer")
    if response.complete and not in_words(response):
        last = calls[-1] if calls else None
        if last is None or last.ended != "whole":
            how = "no call" if last is None else f"{last.name} {last.ended or 'still running'}"
            evidence.violate(3, f"{name}: finished as {response.finish}, but its upstream: {how}")
        elif response.finish != _finish_of(last):
            evidence.violate(3, f"{name}: finished as {response.finish}, its upstream as {_finish_of(last)}")
    sent = evidence.sent(response, calls)
    for before, after in pairwise(calls):
        # A call that broke off after content is the last one.
        if before.ended == "broken" and any(each.call == before.number and each.sure for each in sent):
            evidence.violate(4, f"{name}: {after.name} was made though {before.name} had begun to answer")
    if response.streamed and calls and calls[-1].ended == "broken" and _is_upstreams(response):
        meant = sum(each.sure for each in sent)
        said = sum(not text.startswith("\n\n[") for _, _, text in response.pieces)
        if said < meant and response.ask.reading == "at once":
            evidence.violate(4, f"{name}: {said} of {meant} pieces came before the error")
    if response.ended == "cut" and not _may_be_cut(evidence, response, calls):
        evidence.violate(3, f"{name}: the connection was closed without an answer (status {response.status})")


def _is_upstreams(response: Response) -> bool:
    return response.error is not None and response.error.get("provider") is not None


def _finish_of(exchange: Exchange) -> str:
    if exchange.reply.ending == "length":
        return "length"
    if exchange.speaker.calls:
        return "tool_calls"
    return "stop"


def _may_be_cut(evidence: Evidence, response: Response, calls: Sequence[Exchange]) -> bool:
    if (
        calls
        and evidence.healthy
        and not (response.slow or response.live)
        and _ended_in_order(evidence, response.ended_at)
    ):
        return False  # a turn that a shutdown ends is told so
    return (
        evidence.going_down(response.ended_at)
        or response.slow
        or bool(response.ask.spoiled)
        or (response.status == 0 and response.reused)
    )


def _ended_in_order(evidence: Evidence, at: float) -> bool:
    """Whether the server was ending at that moment, by a shutdown and nothing else."""
    kinds = {down.kind for down in evidence.downtimes if down.began <= at <= down.up}
    return kinds == {"shutdown"}


# --- 2 and 4: when ------------------------------------------------------------------------------------


def queued(evidence: Evidence, response: Response) -> float:
    """Seconds that a response may have waited for another turn to end: what its record says, rounded up.

    Records have such waits in whole milliseconds; what is rounded to none is not in them.
    """
    if len(evidence.responses) <= evidence.scenario.settings.concurrent:
        return 0.0
    row = evidence.rows.get(response.turn_id or "")
    notes = () if row is None else row.notes
    return HALF_MILLISECOND + sum(float(note.split()[2]) for note in notes if note.startswith("it waited "))


def check_times(evidence: Evidence, response: Response, calls: Sequence[Exchange]) -> None:
    settings = evidence.scenario.settings
    lasted = response.ended_at - response.sent_at
    limit = settings.turn + SLACK + (0.0 if evidence.timely(response) else STORE_WRITES * STORE_LIMIT)
    limit += queued(evidence, response)
    limit += settings.write + NEVER_READS_FOR if response.slow else 0.0
    if lasted > limit and response.ended != "left" and not (response.ask.spoiled or response.live):
        evidence.violate(1, f"{response.name}: lasted {lasted:.3f} s; {limit:g} s are allowed")
    if not evidence.timely(response) or response.slow:
        return
    if response.streamed:
        if response.quiet > settings.keepalive + EPSILON:
            evidence.violate(3, f"{response.name}: silent for {response.quiet:.3f} s, without a keepalive")
        sent = evidence.sent(response, calls)
        waits = [got[0] - each.at for got, each in zip(response.pieces, sent, strict=False)]
        late = [wait for wait in waits if wait > EPSILON]
        if late and all(each.sure for each in sent):
            evidence.violate(4, f"{response.name}: a piece was held back for {late[0]:.3f} s")
        window = settings.preflight if response.ask.preflight is None else response.ask.preflight
        waited = 0.0 if response.head_at is None else response.head_at - response.sent_at
        if waited > window + queued(evidence, response) + EPSILON:
            evidence.violate(4, f"{response.name}: the head came after {waited:.3f} s")
    for exchange in calls:
        if exchange.provider in settings.drains and response.ended == "left":
            continue
        if exchange.ended_at > response.ended_at + CLOSE_WITHIN:
            evidence.violate(2, f"{exchange.name} was open when {response.name} was over ({response.ended})")


def check_slow_reader(evidence: Evidence, response: Response, account: Account | None) -> None:
    """A client that does not read holds nothing for longer than its turn may last, at any write limit."""
    if not response.slow or account is None or not account.sure or not evidence.timely(response):
        return
    limit = response.sent_at + evidence.scenario.settings.turn + LAST_WORDS
    drained = 6.0 if evidence.scenario.settings.drains else 0.0
    row = evidence.ledger.outcome_after(account.turn.id, response.mark)
    if row is not None and row.ended_at is not None and row.ended_at - EPOCH > limit + drained:
        late = row.ended_at - EPOCH - limit
        evidence.violate(2, f"{response.name}: its client does not read, and it ended {late:.3f} s late")
    for entry in account.entries:
        exchange = entry.exchange
        if exchange is not None and exchange.ask == response.token and exchange.ended_at > limit + drained:
            late = exchange.ended_at - limit
            evidence.violate(2, f"{exchange.name} was open {late:.3f} s after the time of {response.name}")
