"""From a scenario that contradicts an invariant to a small one that still does.

Greedy: leave things out (clients, requests, faults, replies, steps), then make what is left plainer. A
change stays if a run of the smaller scenario still violates the same invariant. It ends when no change helps,
or after `most_runs` runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace
from simulation.scenario import Ask, Client, Reply, Scenario, Settings, Step

MOST_RUNS = 400


def shrink(
    scenario: Scenario, violates: Callable[[Scenario], bool], *, most_runs: int = MOST_RUNS
) -> Scenario:
    """The smallest scenario that was found. `violates` runs one and says whether it shows the same fault."""
    runs = 0
    changed = True
    while changed:
        changed = False
        for smaller in _smaller(scenario):
            if runs >= most_runs:
                return scenario
            runs += 1
            if violates(smaller):
                scenario, changed = smaller, True
                break
    return scenario


def size(scenario: Scenario) -> int:
    """How much there is to read."""
    return len(msgspec.json.encode(scenario))


def _smaller(scenario: Scenario) -> Iterator[Scenario]:
    """Neighbours that are smaller, those that leave out most first."""
    for name in ("clients", "outages", "disk", "acts", "reloads"):
        for fewer in _fewer(getattr(scenario, name)):
            if fewer or name != "clients":
                yield replace(scenario, **{name: fewer})
    for place, client in enumerate(scenario.clients):
        for less in _smaller_client(client):
            yield replace(scenario, clients=_with(scenario.clients, place, less))
    yield from _plainer(scenario, "restores", 0.0)
    yield from _plainer(scenario, "settings", Settings())
    for name in Settings.__struct_fields__:
        for settings in _plainer(scenario.settings, name, getattr(Settings(), name)):
            yield replace(scenario, settings=settings)


def _smaller_client(client: Client) -> Iterator[Client]:
    for fewer in _fewer(client.asks):
        if fewer:
            yield replace(client, asks=fewer)
    for place, ask in enumerate(client.asks):
        for less in _smaller_ask(ask):
            yield replace(client, asks=_with(client.asks, place, less))
    yield from _plainer(client, "start", 0.0)
    yield from _plainer(client, "keeps_alive", True)
    yield from _plainer(client, "face", "chat")
    yield from _plainer(client, "keeps", "")


def _smaller_ask(ask: Ask) -> Iterator[Ask]:
    plain = Ask("")
    for fewer in _fewer(ask.replies):
        yield replace(ask, replies=fewer)
    for place, reply in enumerate(ask.replies):
        for less in _smaller_reply(reply):
            yield replace(ask, replies=_with(ask.replies, place, less))
    for name in Ask.__struct_fields__:
        if name not in ("name", "replies"):
            yield from _plainer(ask, name, getattr(plain, name))


def _smaller_reply(reply: Reply) -> Iterator[Reply]:
    plain = Reply()
    for fewer in _fewer(reply.steps):
        yield replace(reply, steps=fewer)
    for place, step in enumerate(reply.steps):
        for name in ("pieces", "seconds", "manner", "size", "passes"):
            for less in _plainer(step, name, getattr(Step("text"), name)):
                yield replace(reply, steps=_with(reply.steps, place, less))
    for name in ("delay", "gap", "ending", "retry_after", "usage", "joined", "closes", "passes", "dropped"):
        yield from _plainer(reply, name, getattr(plain, name))


def _fewer(items: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """Half of them, then all but one."""
    if len(items) > 2:
        half = len(items) // 2
        yield tuple(items[half:])
        yield tuple(items[:half])
    for place in range(len(items)):
        yield (*items[:place], *items[place + 1 :])


def _with(items: Sequence[Any], place: int, item: Any) -> tuple[Any, ...]:
    return (*items[:place], item, *items[place + 1 :])


def _plainer(owner: Any, name: str, plain: Any) -> Iterator[Any]:
    if getattr(owner, name) != plain:
        yield replace(owner, **{name: plain})
