"""Scripts: a resumed response that fails before its commit, and the request that repeats it."""

from __future__ import annotations

from machine_values import (
    ALIVE_SIGN,
    BEGIN,
    BY_CONTENT,
    CALL_OVER,
    COST,
    HI,
    OPEN,
    OPEN_WHOLE,
    STOP,
    STREAM,
    TOOLS,
    USAGE,
    USED,
    WHOLE,
    WINDOW,
    A,
    B,
    Renewed,
    Script,
    call_tool,
    closed,
    failed,
    failure,
    finished,
    make_spec,
    problem,
    put_back,
    rejected,
    result,
    row,
    row_used,
    start,
    tool_done,
)

from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import ToolCall
from trio_agent.statemachine.failure import Failure

BACK = ev.Resume((result("h1"),), 0.0)
PARKED = [BEGIN, call_tool("ask", "h1"), USED, TOOLS, Renewed()]
RESUMED = [*PARKED, BACK]
COLLECTED = [BEGIN, call_tool("ask", "h1"), USED, TOOLS, Renewed(WHOLE), BACK]
ONCE = {"usage": USAGE, "usage_source": "provider", "cost_usd": COST}
TWICE = {"usage": USAGE + USAGE, "usage_source": "provider", "cost_usd": 2 * COST}
UNSURE = {"usage": USAGE, "usage_source": "unknown", "cost_usd": None}

NO_KEY = problem("upstream_error", provider="a", upstream_status=401, retryable=False)
CUT = problem("upstream_error", provider="a")
STALLED = problem("upstream_stalled", provider="a")
TOO_LATE = problem("turn_timeout")
CLOSING = problem("server_shutdown", retry_after=5.0)
BROKEN = problem("internal_error", retry_after=5.0)
FULL = problem("store_unavailable", retry_after=5.0)
BUG = ev.ServerFailed("internal_error", "", 1.0)
DISK = ev.ServerFailed("store_unavailable", "", 1.0)
UNOPENED = ev.ServerFailed("store_unavailable", "", 1.0, call_begun=False)
UNAUTHORIZED = failed("unauthorized", status=401)
STOPPED = [fx.StopCall(), row(2)]


def silence(words: str) -> Failure:
    return Failure(kind="stalled", message=words)


BEFORE_CONTENT = [
    Script(
        "a failed call of a resumed response puts the park back, and a repeat goes on with the next number",
        STREAM,
        RESUMED,
        [
            (
                UNAUTHORIZED,
                [
                    *CALL_OVER,
                    row(2, failure=failure("unauthorized", status=401)),
                    *put_back("upstream_error", NO_KEY, **ONCE),
                ],
            ),
            (Renewed(), []),
            (BACK, [*OPEN, *start(3)]),
            (HI, [*ALIVE_SIGN, *BY_CONTENT, fx.SendText("Hi")]),
            (USED, []),
            (
                STOP,
                [
                    *CALL_OVER,
                    row_used(3),
                    closed("completed", "stop", usage=USAGE + USAGE, source="provider", cost=2 * COST),
                    finished("stop", usage=USAGE, source="provider", cost=COST),
                ],
            ),
        ],
    ),
    Script(
        "a resumed response that stalls puts the park back",
        STREAM,
        RESUMED,
        [
            (
                ev.StallTimerFired(300.0),
                [
                    fx.StopCall(),
                    *CALL_OVER,
                    row(2, failure=silence("no answer began for 300 s")),
                    *put_back("stalled", STALLED, **ONCE),
                ],
            )
        ],
    ),
    Script(
        "a resumed response whose time is up puts the park back",
        STREAM,
        RESUMED,
        [(ev.TurnTimerFired(600.0), [*STOPPED, *put_back("timeout", TOO_LATE, **UNSURE)])],
    ),
    Script(
        "a client that leaves a resumed response finds the park again, and nobody is told",
        STREAM,
        RESUMED,
        [
            (ev.Cancel("client_disconnected", 1.0), [*STOPPED, *put_back("client_disconnected", **UNSURE)]),
            (Renewed(), []),
            (BACK, [*OPEN, *start(3)]),
        ],
    ),
    Script(
        "a server that stops puts the park back for the next one",
        STREAM,
        RESUMED,
        [(ev.Cancel("shutdown", 1.0), [*STOPPED, *put_back("shutdown", CLOSING, **UNSURE)])],
    ),
    Script(
        "a server that fails puts the park back",
        STREAM,
        RESUMED,
        [(BUG, [*STOPPED, *put_back("internal_error", BROKEN, **UNSURE)])],
    ),
    Script(
        "a park that cannot be put back is the end of the turn",
        STREAM,
        [*RESUMED, UNOPENED],
        [(DISK, rejected("failed", "store_unavailable", FULL, usage=USAGE, source="provider", cost=COST))],
    ),
    Script(
        "a resumed response whose row cannot be written has made no call, and costs nothing",
        STREAM,
        RESUMED,
        [
            (UNOPENED, put_back("store_unavailable", FULL, **ONCE)),
            (Renewed(), []),
            (BACK, [*OPEN, *start(2)]),
        ],
    ),
    Script(
        "what the server's tools returned before the park is kept, what they returned after it is not",
        STREAM,
        [
            BEGIN,
            call_tool("ask", "h1"),
            call_tool("look", "s1", 1),
            TOOLS,
            tool_done("s1"),
            Renewed(),
            BACK,
            call_tool("look", "s2"),
            TOOLS,
        ],
        [
            (ev.Cancel("client_disconnected", 1.0), put_back("client_disconnected")),
            (Renewed(), []),
            (BACK, [*OPEN, *start(3)]),
            (call_tool("look", "s2"), ALIVE_SIGN),
            (
                TOOLS,
                [*CALL_OVER, row(3, finish_reason="tool_calls"), fx.RunTool(ToolCall("s2", "look", ""))],
            ),
        ],
    ),
    Script(
        "a park is put back as often as its response fails, until the limit of model calls",
        make_spec(limits={"model_calls": 3}),
        [*RESUMED, UNAUTHORIZED, Renewed(), BACK, UNAUTHORIZED, Renewed()],
        [
            (
                BACK,
                rejected(
                    "failed",
                    "max_model_calls",
                    problem("max_model_calls", retryable=False),
                    usage=USAGE,
                    source="provider",
                    cost=COST,
                ),
            )
        ],
    ),
    Script(
        "a resumed turn that somebody cancelled is over",
        STREAM,
        RESUMED,
        [
            (
                ev.Cancel("cancelled", 1.0),
                [
                    *STOPPED,
                    *rejected(
                        "cancelled", "cancelled", problem("turn_cancelled", retryable=False), usage=USAGE
                    ),
                ],
            )
        ],
    ),
    Script(
        "the park is gone when the window has committed the response",
        STREAM,
        [*RESUMED, WINDOW],
        [
            (
                UNAUTHORIZED,
                [
                    *CALL_OVER,
                    row(2, failure=failure("unauthorized", status=401)),
                    closed("failed", "upstream_error", NO_KEY, usage=USAGE, source="provider", cost=COST),
                    fx.SendError(NO_KEY),
                ],
            )
        ],
    ),
    Script(
        "a back-off that is running is forgotten with its response",
        STREAM,
        [*RESUMED, failed("refused")],
        [
            (ev.Cancel("client_disconnected", 1.0), put_back("client_disconnected", **ONCE)),
            (Renewed(), []),
            (BACK, [*OPEN, *start(3)]),
        ],
    ),
    Script(
        "the park is put back for the model that was to go on first",
        make_spec(A, B, routed=True),
        [*RESUMED, UNAUTHORIZED, ev.Cancel("client_disconnected", 1.0)],
        [(BACK, [*OPEN, *start(3)])],
    ),
]

COLLECTED_ANSWERS = [
    Script(
        "an answer that is not streamed puts the park back even when it breaks off in the middle",
        STREAM,
        [*COLLECTED, HI],
        [
            (
                failed("truncated"),
                [*CALL_OVER, row(2, failure=failure("truncated")), *put_back("truncated", CUT, **UNSURE)],
            ),
            (Renewed(WHOLE), []),
            (BACK, [*OPEN_WHOLE, *start(3)]),
        ],
    ),
    Script(
        "an answer that is not streamed puts the park back when it stalls in the middle",
        STREAM,
        [*COLLECTED, HI, USED],
        [
            (
                ev.StallTimerFired(120.0),
                [
                    fx.StopCall(),
                    *CALL_OVER,
                    row(
                        2,
                        usage=USAGE,
                        usage_source="estimated",
                        cost_usd=COST,
                        failure=silence("the answer fell silent for 120 s"),
                    ),
                    *put_back("stalled", STALLED, **(TWICE | {"usage_source": "estimated"})),
                ],
            )
        ],
    ),
    *[
        Script(
            f"an answer that is not streamed puts the park back in the middle of it: {reason}",
            STREAM,
            [*COLLECTED, HI],
            [(event, [*STOPPED, *put_back(reason, told, **UNSURE)])],
        )
        for event, reason, told in (
            (ev.TurnTimerFired(600.0), "timeout", TOO_LATE),
            (ev.Cancel("client_disconnected", 1.0), "client_disconnected", None),
            (BUG, "internal_error", BROKEN),
        )
    ],
    Script(
        "an answer that is not streamed, and parks anew, keeps no way back to the older park",
        STREAM,
        [*COLLECTED, call_tool("tell", "h2"), TOOLS],
        [(DISK, rejected("failed", "store_unavailable", FULL, usage=USAGE))],
    ),
]

SCRIPTS = [*BEFORE_CONTENT, *COLLECTED_ANSWERS]
