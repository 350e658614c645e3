"""Scripts: model calls that fail, retries and fallbacks."""

from __future__ import annotations

import msgspec
from machine_values import (
    BEGIN,
    CALL_OVER,
    HI,
    ROUTED,
    STREAM,
    TOOLS,
    TWO,
    WHOLE,
    WINDOW,
    A,
    Renewed,
    Script,
    T,
    broken,
    call_tool,
    failed,
    failure,
    make_spec,
    problem,
    put_back,
    rejected,
    result,
    row,
    set_timer,
    start,
    tool_done,
)

from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.recovery import retry_delay

REFUSED = failure("refused")
UPSTREAM = problem("upstream_error", provider="a")
NEVER = ("unauthorized", "rejected", "unexpected", "malformed", "stalled", "crashed")


def back_off(attempt: int) -> fx.Effect:
    delay = retry_delay(REFUSED, attempt=attempt, max_retries=9, window_left=99.0, seed=STREAM.seed)
    assert delay is not None
    return set_timer(T.RETRY, delay)


def gone(kind: str, *, candidate: int = 0, attempt: int = 0, **more: object) -> list[fx.Effect]:
    """A call that failed before it said anything."""
    return [*CALL_OVER, row(1, candidate, attempt, failure=failure(kind, **more))]


def window(tokens: int | None, name: str) -> object:
    return msgspec.structs.replace(A, provider=name, context_window=tokens)


TOO_LONG = failed("rejected", status=400, code="context_length_exceeded")

RETRIES = [
    *[
        Script(
            f"a call that was {kind} is tried again after a back-off",
            STREAM,
            [BEGIN],
            [(failed(kind), [*gone(kind), back_off(0)]), (ev.RetryTimerFired(2.0), start(1, 0, 1))],
        )
        for kind in ("refused", "truncated", "unavailable")
    ],
    Script(
        "the second back-off is longer, and after the second retry the candidate has had its chance",
        STREAM,
        [BEGIN, failed("refused"), ev.RetryTimerFired(1.3)],
        [
            (failed("refused", 1.4), [*gone("refused", attempt=1), back_off(1)]),
            (ev.RetryTimerFired(2.0), start(1, 0, 2)),
            (
                failed("refused", 2.0),
                [*gone("refused", attempt=2), *rejected("failed", "upstream_error", UPSTREAM)],
            ),
        ],
    ),
    *[
        Script(
            f"a call that was {kind} is not tried again; the next candidate is, if that can help",
            TWO,
            [BEGIN],
            [
                (
                    failed(kind),
                    [
                        *gone(kind),
                        *(
                            rejected(
                                "failed",
                                "upstream_rejected",
                                problem("upstream_rejected", provider="a", retryable=False),
                            )
                            if kind == "rejected"
                            else start(1, 1)
                        ),
                    ],
                )
            ],
        )
        for kind in NEVER
    ],
    Script(
        "a 429 whose Retry-After fits the window is waited for",
        TWO,
        [BEGIN],
        [
            (
                failed("rate_limited", 1.0, retry_after=3.9),
                [*gone("rate_limited", retry_after=3.9), set_timer(T.RETRY, 3.9)],
            ),
            (ev.RetryTimerFired(4.9), start(1, 0, 1)),
        ],
    ),
    Script(
        "a 429 whose Retry-After ends with the window goes to the next candidate",
        TWO,
        [BEGIN],
        [
            (
                failed("rate_limited", 1.0, retry_after=4.0),
                [*gone("rate_limited", retry_after=4.0), *start(1, 1)],
            )
        ],
    ),
    Script(
        "a 429 that does not say when goes to the next candidate",
        TWO,
        [BEGIN],
        [(failed("rate_limited"), [*gone("rate_limited"), *start(1, 1)])],
    ),
    Script(
        "no retry starts after the window, not even one that could start at once",
        TWO,
        [BEGIN, WINDOW],
        [
            (
                failed("rate_limited", 4.9, retry_after=0.0),
                [*gone("rate_limited", retry_after=0.0), *start(1, 1)],
            )
        ],
    ),
    Script(
        "a back-off that was running when the window ended is carried out",
        STREAM,
        [BEGIN, failed("refused"), WINDOW],
        [(ev.RetryTimerFired(5.0), start(1, 0, 1))],
    ),
    Script(
        "a response that is not streamed has the same time for retries",
        WHOLE,
        [BEGIN],
        [(failed("refused", 4.9), [*gone("refused"), *rejected("failed", "upstream_error", UPSTREAM)])],
    ),
    Script(
        "each model call has its own retries",
        STREAM,
        [BEGIN, failed("refused"), ev.RetryTimerFired(2.0), call_tool("look", "s1"), TOOLS, tool_done("s1")],
        [(failed("refused", 2.0), [*CALL_OVER, row(2, failure=REFUSED), back_off(0)])],
    ),
    Script(
        "each candidate has its own retries",
        TWO,
        [BEGIN, failed("refused"), ev.RetryTimerFired(2.0)],
        [
            (failed("crashed", 2.0), [*gone("crashed", attempt=1), *start(1, 1)]),
            (failed("refused", 2.0), [*gone("refused", candidate=1), back_off(0)]),
        ],
    ),
]

FALLBACKS = [
    *[
        Script(
            f"a failure {where} is mended by the next candidate, unseen",
            TWO,
            [BEGIN, *before],
            [(failed("crashed"), [*gone("crashed"), *start(1, 1)])],
        )
        for where, before in {"in preflight": [], "after the window": [WINDOW]}.items()
    ],
    Script(
        "the last candidate's failure after the window can only be told in the stream",
        TWO,
        [BEGIN, WINDOW, failed("crashed")],
        [
            (
                failed("malformed"),
                [
                    *gone("malformed", candidate=1),
                    *broken("failed", "upstream_error", problem("upstream_error", provider="b")),
                ],
            )
        ],
    ),
    Script(
        "after content no other candidate is tried, and the failure is the one model's",
        ROUTED,
        [BEGIN, HI],
        [
            (
                failed("truncated", status=200),
                [
                    *CALL_OVER,
                    row(failure=failure("truncated", status=200)),
                    *broken(
                        "failed", "truncated", problem("upstream_error", provider="a", upstream_status=200)
                    ),
                ],
            )
        ],
    ),
    Script(
        "a response that is not streamed fails with a status after content too",
        WHOLE,
        [BEGIN, HI],
        [
            (
                failed("truncated"),
                [
                    *CALL_OVER,
                    row(failure=failure("truncated")),
                    *rejected("failed", "truncated", UPSTREAM),
                ],
            )
        ],
    ),
    Script(
        "a route fails when all of its candidates have",
        ROUTED,
        [BEGIN, failed("crashed")],
        [
            (
                failed("malformed", status=200),
                [
                    *gone("malformed", candidate=1, status=200),
                    *rejected(
                        "failed",
                        "upstream_error",
                        problem("all_candidates_failed", provider="b", upstream_status=200),
                    ),
                ],
            )
        ],
    ),
    Script(
        "a route whose candidates are all rate-limited says when the first is free again",
        ROUTED,
        [BEGIN, failed("rate_limited", retry_after=30.0)],
        [
            (
                failed("rate_limited", retry_after=60.0),
                [
                    *gone("rate_limited", candidate=1, retry_after=60.0),
                    *rejected("failed", "rate_limited", problem("rate_limited", retry_after=30.0)),
                ],
            )
        ],
    ),
    Script(
        "a candidate that failed in an earlier call of the response still counts as failed",
        ROUTED,
        [BEGIN, failed("crashed"), call_tool("look", "s1"), TOOLS, tool_done("s1")],
        [
            (
                failed("rate_limited", retry_after=60.0),
                [
                    *CALL_OVER,
                    row(2, 1, failure=failure("rate_limited", retry_after=60.0)),
                    *rejected("failed", "rate_limited", problem("all_candidates_failed", provider="b")),
                ],
            )
        ],
    ),
    Script(
        "a prompt that is too long goes on to larger windows only, also past another failure",
        make_spec(window(200, "a"), window(100, "b"), window(300, "c"), window(200, "d"), window(None, "e")),  # type: ignore[arg-type]
        [BEGIN],
        [
            (
                TOO_LONG,
                [*gone("rejected", status=400, code="context_length_exceeded"), *start(1, 2)],
            ),
            (failed("crashed"), [*gone("crashed", candidate=2), *start(1, 4)]),
        ],
    ),
    Script(
        "a prompt that no window can hold is the caller's to shorten",
        make_spec(window(200, "a"), window(200, "b"), routed=True),  # type: ignore[arg-type]
        [BEGIN],
        [
            (
                TOO_LONG,
                [
                    *gone("rejected", status=400, code="context_length_exceeded"),
                    *rejected(
                        "failed",
                        "upstream_rejected",
                        problem(
                            "upstream_rejected",
                            provider="a",
                            upstream_status=400,
                            upstream_code="context_length_exceeded",
                            retryable=False,
                        ),
                    ),
                ],
            )
        ],
    ),
    Script(
        "failures of the response before the park are not those of the next one",
        ROUTED,
        [BEGIN, failed("crashed"), call_tool("ask", "h1"), TOOLS, Renewed(), ev.Resume((result("h1"),), 0.0)],
        [
            (
                failed("rate_limited", retry_after=60.0),
                [
                    *CALL_OVER,
                    row(2, 1, failure=failure("rate_limited", retry_after=60.0)),
                    *put_back("rate_limited", problem("rate_limited", retry_after=60.0)),
                ],
            )
        ],
    ),
]

SCRIPTS = [*RETRIES, *FALLBACKS]
