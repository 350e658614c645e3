"""Scripts: turns that stall, are cancelled, run out of time, or meet a failure of the server's own."""

from __future__ import annotations

import msgspec
from machine_values import (
    ALIVE,
    BEGIN,
    CALL_OVER,
    COST,
    HI,
    STREAM,
    TOOLS,
    TWO,
    USAGE,
    USED,
    WHOLE,
    WINDOW,
    Script,
    broken,
    call_tool,
    closed,
    failed,
    failure,
    problem,
    rejected,
    row,
    start,
)

from trio_agent.statemachine import TurnSpec
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.failure import Problem

LEFT = ev.Cancel("client_disconnected", 2.0)
LEFT_ROW = closed("cancelled", "client_disconnected")
STOPPED: list[fx.Effect] = [fx.StopCall(), row()]

# Where a turn may stand when it has to end: what came before, what stops, and whether it is committed.
STORE_GONE = ev.ServerFailed("store_unavailable", "gone", 2.0)
PLACES: dict[str, tuple[TurnSpec, list[ev.Event], list[fx.Effect], bool]] = {
    "in preflight": (STREAM, [BEGIN], STOPPED, False),
    "in a back-off": (STREAM, [BEGIN, failed("refused")], [], False),
    "after the window": (STREAM, [BEGIN, WINDOW], STOPPED, True),
    "after content": (STREAM, [BEGIN, HI], STOPPED, True),
    "after content that is not streamed": (WHOLE, [BEGIN, HI], STOPPED, False),
    "while tools run": (STREAM, [BEGIN, HI, call_tool("look", "s1"), TOOLS], [], True),
}
WAITING = (ALIVE, [BEGIN, call_tool("ask", "h1"), TOOLS], [], True)

ENDS: dict[str, tuple[ev.Event, str, str, Problem]] = {
    "a shutdown": (
        ev.Cancel("shutdown", 2.0),
        "cancelled",
        "shutdown",
        problem("server_shutdown", retry_after=5.0),
    ),
    "a cancelled turn": (
        ev.Cancel("cancelled", 2.0),
        "cancelled",
        "cancelled",
        problem("turn_cancelled", retryable=False),
    ),
    "the turn's time limit": (ev.TurnTimerFired(600.0), "failed", "timeout", problem("turn_timeout")),
    "a store that is gone": (
        STORE_GONE,
        "failed",
        "store_unavailable",
        problem("store_unavailable", retry_after=5.0),
    ),
    "a bug of the server": (
        ev.ServerFailed("internal_error", "bug", 2.0),
        "failed",
        "internal_error",
        problem("internal_error", retry_after=5.0),
    ),
}


def _told() -> list[Script]:
    scripts = []
    for what, (event, outcome, reason, told) in ENDS.items():
        places = PLACES if isinstance(event, ev.TurnTimerFired) else PLACES | {"in a live wait": WAITING}
        for where, (spec, given, stops, committed) in places.items():
            ending = broken if committed else rejected
            scripts.append(
                Script(
                    f"{what} {where} is told {'in the stream' if committed else 'as a status'}",
                    spec,
                    given,
                    [(event, [*stops, *ending(outcome, reason, told)])],
                )
            )
    return scripts + [
        Script(
            f"{what} before the call is made costs nothing",
            STREAM,
            [BEGIN],
            [(msgspec.structs.replace(event, call_begun=False), rejected(outcome, reason, told))],
        )
        for what, (event, outcome, reason, told) in ENDS.items()
    ]


STALLS = [
    *[
        Script(
            f"an upstream that never answers is given up {where}, and the next one is asked",
            TWO,
            [BEGIN, *before],
            [
                (
                    ev.StallTimerFired(300.0),
                    [
                        fx.StopCall(),
                        *CALL_OVER,
                        row(failure=failure("stalled", message="no answer began for 300 s")),
                        *start(1, 1),
                    ],
                )
            ],
        )
        for where, before in {"in preflight": [], "after the window": [WINDOW]}.items()
    ],
    *[
        Script(
            f"with no other candidate left the turn has stalled {where}",
            STREAM,
            [BEGIN, *before],
            [
                (
                    ev.StallTimerFired(300.0),
                    [
                        fx.StopCall(),
                        *CALL_OVER,
                        row(failure=failure("stalled", message="no answer began for 300 s")),
                        *ending("failed", "stalled", problem("upstream_stalled", provider="a")),
                    ],
                )
            ],
        )
        for where, before, ending in (("in preflight", [], rejected), ("after the window", [WINDOW], broken))
    ],
    Script(
        "an answer that falls silent ends as a failure",
        TWO,
        [BEGIN, HI],
        [
            (
                ev.StallTimerFired(130.0),
                [
                    fx.StopCall(),
                    *CALL_OVER,
                    row(failure=failure("stalled", message="the answer fell silent for 120 s")),
                    *broken("failed", "stalled", problem("upstream_stalled", provider="a")),
                ],
            )
        ],
    ),
]

SCRIPTS = [
    *STALLS,
    *_told(),
    *[
        Script(
            f"a client that leaves {where} stops the upstream, and nobody is told",
            spec,
            given,
            [(LEFT, [*stops, LEFT_ROW])],
        )
        for where, (spec, given, stops, _) in (PLACES | {"in a live wait": WAITING}).items()
    ],
    Script(
        "a client that leaves before the turn began has an outcome too",
        STREAM,
        then=[(LEFT, [LEFT_ROW])],
    ),
    Script(
        "a shutdown before the turn began turns it away",
        STREAM,
        then=[
            (
                ev.Cancel("shutdown", 0.0),
                rejected("cancelled", "shutdown", problem("server_shutdown", retry_after=5.0)),
            )
        ],
    ),
    *[
        Script(
            f"the usage of a cancelled call is {source} {how}",
            STREAM,
            [BEGIN, HI, USED],
            [
                (
                    ev.Cancel("client_disconnected", 2.0, drained),
                    [
                        fx.StopCall(),
                        row(usage=USAGE, usage_source=source, cost_usd=COST),
                        closed("cancelled", "client_disconnected", usage=USAGE, source=source, cost=COST),
                    ],
                )
            ],
        )
        for drained, source, how in (
            (False, "estimated", "where it was cut off"),
            (True, "provider", "where it was read to its end first"),
        )
    ],
]
