"""Scripts: limits of a turn, and what is counted."""

from __future__ import annotations

from decimal import Decimal

import msgspec
from machine_values import (
    BEGIN,
    CALL_OVER,
    COST,
    HI,
    OPEN,
    STOP,
    STREAM,
    TOOLS,
    USAGE,
    USED,
    WINDOW,
    A,
    B,
    C,
    Renewed,
    Script,
    broken,
    call_tool,
    closed,
    failed,
    failure,
    finished,
    make_spec,
    problem,
    rejected,
    result,
    row,
    row_used,
    start,
    tool_done,
)

from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import Usage

USED_UP = {"usage": USAGE, "source": "provider", "cost": COST}
BUDGET = problem("budget_exceeded", retryable=False)
UNPRICED = msgspec.structs.replace(A, price=None)

MOST = problem("max_model_calls", retryable=False)
ONE_CALL = {"model_calls": 1}
CHEAP = {"cost_usd": COST}
LOOKED = [call_tool("look", "s1"), USED, TOOLS]
SHOWN = [fx.SendToolProgress("s1", "look", "completed", output="ok")]

LIMITS = [
    Script(
        "a turn may call the model only so often",
        make_spec(limits=ONE_CALL),
        [BEGIN, *LOOKED],
        [(tool_done("s1"), rejected("failed", "max_model_calls", MOST, **USED_UP))],
    ),
    Script(
        "after the window the limit of model calls is an in-stream error",
        make_spec(limits=ONE_CALL),
        [BEGIN, *LOOKED, WINDOW],
        [(tool_done("s1"), [*SHOWN, *broken("failed", "max_model_calls", MOST, **USED_UP)])],
    ),
    Script(
        "after content the limit of model calls is an in-stream error",
        make_spec(limits=ONE_CALL),
        [BEGIN, HI, *LOOKED],
        [(tool_done("s1"), [*SHOWN, *broken("failed", "max_model_calls", MOST, **USED_UP)])],
    ),
    Script(
        "a turn that may not call the model at all is turned away",
        make_spec(limits={"model_calls": 0}),
        then=[(BEGIN, rejected("rejected", "max_model_calls", MOST))],
    ),
    Script(
        "the limit of model calls counts over parks",
        make_spec(limits=ONE_CALL),
        [BEGIN, call_tool("ask", "h1"), USED, TOOLS, Renewed()],
        [(ev.Resume((result("h1"),), 0.0), rejected("failed", "max_model_calls", MOST, **USED_UP))],
    ),
    Script(
        "a cost limit ends the turn before the call that would exceed it",
        make_spec(limits=CHEAP),
        [BEGIN, *LOOKED],
        [(tool_done("s1"), rejected("failed", "budget_exceeded", BUDGET, **USED_UP))],
    ),
    Script(
        "the cost limit counts over parks",
        make_spec(limits=CHEAP),
        [BEGIN, call_tool("ask", "h1"), USED, TOOLS, Renewed()],
        [(ev.Resume((result("h1"),), 0.0), rejected("failed", "budget_exceeded", BUDGET, **USED_UP))],
    ),
    *[
        Script(
            f"money that a failed attempt spent is not spent again by {what}",
            spec,
            [BEGIN, USED],
            [
                (
                    failed(kind),
                    [
                        *CALL_OVER,
                        row(usage=USAGE, usage_source="estimated", cost_usd=COST, failure=failure(kind)),
                        *rejected(
                            "failed", "budget_exceeded", BUDGET, usage=USAGE, source="estimated", cost=COST
                        ),
                    ],
                )
            ],
        )
        for what, kind, spec in (
            ("a retry", "truncated", make_spec(A, limits=CHEAP)),
            ("a fallback", "malformed", make_spec(A, B, limits=CHEAP)),
        )
    ],
    Script(
        "under a cost limit a model without a known price is refused",
        make_spec(UNPRICED, limits=CHEAP),
        then=[
            (
                BEGIN,
                rejected(
                    "rejected",
                    "budget_exceeded",
                    problem("budget_exceeded", provider="a", retryable=False),
                ),
            )
        ],
    ),
    Script(
        "under a cost limit a candidate without a known price is passed over, first or later",
        make_spec(UNPRICED, B, UNPRICED, C, limits=CHEAP),
        then=[
            (BEGIN, [*OPEN, *start(1, 1)]),
            (failed("crashed"), [*CALL_OVER, row(1, 1, failure=failure("crashed")), *start(1, 3)]),
        ],
    ),
]

TWICE = Usage(input_tokens=2000, output_tokens=200)
PART = Usage(input_tokens=500)
OWN = Decimal("0.5")

COUNTING = [
    Script(
        "usage and cost add up over the calls of a turn",
        STREAM,
        [BEGIN, HI, *LOOKED, tool_done("s1"), USED],
        [
            (
                STOP,
                [
                    *CALL_OVER,
                    row_used(2),
                    closed("completed", "stop", usage=TWICE, source="provider", cost=2 * COST),
                    finished("stop", usage=TWICE, source="provider", cost=2 * COST),
                ],
            )
        ],
    ),
    Script(
        "each response tells its own usage, the turn's record the sum",
        STREAM,
        [
            BEGIN,
            call_tool("ask", "h1"),
            USED,
            TOOLS,
            Renewed(),
            ev.Resume((result("h1"),), 0.0),
            HI,
            USED,
        ],
        [
            (
                STOP,
                [
                    *CALL_OVER,
                    row_used(2),
                    closed("completed", "stop", usage=TWICE, source="provider", cost=2 * COST),
                    finished("stop", **USED_UP),
                ],
            )
        ],
    ),
    Script(
        "an attempt that was cut after a usage report is billed as an estimate",
        STREAM,
        [BEGIN, ev.UsageReported(PART), failed("truncated"), ev.RetryTimerFired(2.0), HI, USED],
        [
            (
                STOP,
                [
                    *CALL_OVER,
                    row_used(attempt=1),
                    closed(
                        "completed",
                        "stop",
                        usage=PART + USAGE,
                        source="estimated",
                        cost=COST + Decimal("0.0005"),
                    ),
                    finished("stop", usage=PART + USAGE, source="estimated", cost=COST + Decimal("0.0005")),
                ],
            )
        ],
    ),
    Script(
        "an attempt that was refused is not billed",
        STREAM,
        [BEGIN, failed("refused"), ev.RetryTimerFired(2.0), HI, USED],
        [
            (
                STOP,
                [
                    *CALL_OVER,
                    row_used(attempt=1),
                    closed("completed", "stop", **USED_UP),
                    finished("stop", **USED_UP),
                ],
            )
        ],
    ),
    Script(
        "one call of unknown cost makes the turn's cost unknown",
        STREAM,
        [BEGIN, HI, call_tool("look", "s1"), TOOLS, tool_done("s1"), USED],
        [
            (
                STOP,
                [
                    *CALL_OVER,
                    row_used(2),
                    closed("completed", "stop", usage=USAGE, source="unknown"),
                    finished("stop", usage=USAGE, source="unknown"),
                ],
            )
        ],
    ),
    Script(
        "the provider's own figure of the cost wins over the price list",
        STREAM,
        [BEGIN, HI, ev.UsageReported(PART), ev.UsageReported(USAGE, OWN)],
        [
            (
                STOP,
                [
                    *CALL_OVER,
                    row(usage=USAGE, usage_source="provider", cost_usd=OWN, finish_reason="stop"),
                    closed("completed", "stop", usage=USAGE, source="provider", cost=OWN),
                    finished("stop", usage=USAGE, source="provider", cost=OWN),
                ],
            )
        ],
    ),
    Script(
        "a provider's own figure counts for its own call only",
        STREAM,
        [
            BEGIN,
            HI,
            ev.UsageReported(USAGE, OWN),
            call_tool("look", "s1"),
            TOOLS,
            tool_done("s1"),
            USED,
        ],
        [
            (
                STOP,
                [
                    *CALL_OVER,
                    row_used(2),
                    closed("completed", "stop", usage=TWICE, source="provider", cost=OWN + COST),
                    finished("stop", usage=TWICE, source="provider", cost=OWN + COST),
                ],
            )
        ],
    ),
]

SCRIPTS = [*LIMITS, *COUNTING]
