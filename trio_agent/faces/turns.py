"""`GET /v1/turns` and `/v1/turns/{id}`: what turns did, for those who made them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from msgspec import Struct

from trio_agent.agent import Agent
from trio_agent.errors import AgentError
from trio_agent.faces.paging import number_of
from trio_agent.faces.request import SERVER_KEY_OWNER
from trio_agent.faces.turn_records import by_turn, cut, list_of, record_of
from trio_agent.store.contract import TURN_OUTCOMES, CallRow, TurnRow

MOST_TURNS: Final = 100
DEFAULT_TURNS: Final = 20
PARAMETERS: Final = ("session_id", "outcome", "model", "after", "before", "limit")
_encode = msgspec.json.Encoder().encode


class TurnQuery(Struct, frozen=True, kw_only=True):
    """Which turns are asked for. What is `None` narrows nothing."""

    limit: int = DEFAULT_TURNS
    session_id: str | None = None
    outcome: str | None = None
    model: str | None = None
    after: str | None = None
    before: str | None = None


def query_of(pairs: Iterable[tuple[str, str]]) -> TurnQuery:
    """What a query string asks for. A filter that is not understood would show what was not asked for.

    Raises:
        AgentError: a parameter is none that there is, stands there twice, or has a value that it cannot have.
    """
    query: dict[str, str] = {}
    for name, value in pairs:
        if name not in PARAMETERS:
            raise _refused(name, f"There is no parameter {name!r:.80}; there are {', '.join(PARAMETERS)}.")
        if name in query:
            raise _refused(name, f"`{name}` is there twice; it narrows the list to one value.")
        if not value:
            raise _refused(name, f"`{name}` is empty; leave it out to see all.")
        query[name] = value
    outcome = query.get("outcome")
    if outcome is not None and outcome not in TURN_OUTCOMES:
        raise _refused("outcome", f"`outcome` must be one of {', '.join(TURN_OUTCOMES)}.")
    if "after" in query and "before" in query:
        raise _refused("before", "A page is asked for with `after` or with `before`, not with both.")
    limit = number_of(query, "limit", least=1, most=MOST_TURNS)
    return TurnQuery(
        limit=DEFAULT_TURNS if limit is None else limit,
        session_id=query.get("session_id"),
        outcome=outcome,
        model=query.get("model"),
        after=query.get("after"),
        before=query.get("before"),
    )


async def listing(agent: Agent, owner: str, query: TurnQuery) -> bytes:
    """A page of the caller's turns, those that run as they stand now.

    Raises:
        AgentError: `after` or `before` is no turn of the caller's.
        StoreError: the store is out of reach.
    """
    for name, cursor in (("after", query.after), ("before", query.before)):
        if cursor is not None and await _found(agent, owner, cursor) is None:
            raise _refused(name, f"`{name}` must be the id of a turn of yours; {cursor!r:.80} is none.")
    rows = await agent.store.list_turns(
        limit=query.limit + 1,
        owner=_whose(owner),
        session_id=query.session_id,
        outcome=query.outcome,
        model=query.model,
        after=query.after,
        before=query.before,
    )
    shown, calls = await _present(agent, cut(rows, query.limit, forwards=query.before is not None))
    return _encode(list_of(shown, calls, has_more=len(rows) > query.limit))


async def one(agent: Agent, owner: str, turn_id: str) -> bytes:
    """The record of one turn. Others' turns are not there.

    Raises:
        AgentError: `not_found`.
        StoreError: the store is out of reach.
    """
    row = await _found(agent, owner, turn_id)
    if row is None:
        raise AgentError("not_found", f"The turn {turn_id[:80]!r} is not there, or it is not yours.")
    (shown,), calls = await _present(agent, [row])
    return _encode(record_of(shown, calls.get(row.id, ())))


async def _found(agent: Agent, owner: str, turn_id: str) -> TurnRow | None:
    row = await agent.store.get_turn(turn_id)
    return None if row is None or _whose(owner) not in (None, row.owner) else row


def _whose(owner: str) -> str | None:
    """Whose turns a caller may see; `None` is everybody's, for the server's own key."""
    return None if owner == SERVER_KEY_OWNER else owner


async def _present(
    agent: Agent, rows: Iterable[TurnRow]
) -> tuple[list[TurnRow], Mapping[str, list[CallRow]]]:
    """The rows, those of running turns as they stand, with the model calls of each."""
    rows = list(rows)
    running = await agent.in_flight.of([row.id for row in rows if row.outcome == "running"])
    # Read after that: what a turn has written since is in the store, and no call is missed in between.
    calls = by_turn(await agent.store.list_calls(*(row.id for row in rows)))
    for turn_id, present in running.items():
        written = calls.setdefault(turn_id, [])
        written += [call for call in present.calls if call not in written]
    return [running[row.id].row if row.id in running else row for row in rows], calls


def _refused(param: str, message: str) -> AgentError:
    return AgentError("invalid_request", message, param=param[:80])


__all__ = ["DEFAULT_TURNS", "MOST_TURNS", "TurnQuery", "listing", "one", "query_of"]
