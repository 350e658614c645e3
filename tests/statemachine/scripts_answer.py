"""Scripts: what a model's answer becomes, and when the response is committed."""

from __future__ import annotations

from machine_values import (
    ALIVE_SIGN,
    BEGIN,
    BY_CONTENT,
    BY_END,
    BY_WINDOW,
    CALL_OVER,
    COST,
    HI,
    LOOK,
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
    Script,
    T,
    call_tool,
    closed,
    completed,
    failed,
    finished,
    make_spec,
    row,
    row_used,
    set_timer,
    start,
    tool_done,
)

from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev

USED_UP = {"usage": USAGE, "source": "provider", "cost": COST}
REDACTED = ev.RedactedReasoning("xyz")

CONTENT: dict[str, tuple[ev.Event, fx.Effect]] = {
    "text": (HI, fx.SendText("Hi")),
    "a refusal": (ev.RefusalDelta("no"), fx.SendRefusal("no")),
    "reasoning": (ev.ReasoningDelta("hm"), fx.SendReasoning("hm")),
    "a call of the caller's tool": (call_tool("ask", "h1"), fx.SendToolCall(0, "h1", "ask")),
}

# No content by itself: (event, what it becomes once there is content, or None).
QUIET: dict[str, tuple[ev.Event, fx.Effect | None]] = {
    "a signature": (ev.ReasoningSigned("sig"), fx.SendReasoningSignature("sig", A.origin)),
    "encrypted reasoning": (REDACTED, fx.SendRedactedReasoning("xyz", A.origin)),
    "a provider's own reasoning": (ev.ReasoningData("{}"), fx.SendReasoningData("{}", A.origin)),
    "the end of no reasoning": (ev.ReasoningEnded(), None),
    "a server-side tool's call": (call_tool("look", "s1"), None),
    "usage": (USED, None),
}


def _commits(what: str, event: ev.Event, shown: fx.Effect) -> list[Script]:
    return [
        Script(
            f"{what} ends preflight and commits the response",
            STREAM,
            [BEGIN],
            [(event, [*ALIVE_SIGN, *BY_CONTENT, shown])],
        ),
        Script(
            f"{what} after the window follows the role that is out",
            STREAM,
            [BEGIN, WINDOW],
            [(event, [*ALIVE_SIGN, shown])],
        ),
        Script(
            f"{what} goes out as it comes",
            STREAM,
            [BEGIN, ev.TextDelta("first")],
            [(event, [shown])],
        ),
        Script(
            f"{what} commits nothing when the response is not streamed",
            WHOLE,
            [BEGIN],
            [(event, [*ALIVE_SIGN, shown])],
        ),
    ]


def _committed(event: ev.Event) -> list[fx.Effect]:
    """What content commits when `event` came before it; usage that was reported comes with the role."""
    if not isinstance(event, ev.UsageReported):
        return BY_CONTENT
    role = fx.SendRole(event.usage)
    return [role if isinstance(each, fx.SendRole) else each for each in BY_CONTENT]


def _stays_quiet(what: str, event: ev.Event, shown: fx.Effect | None) -> list[Script]:
    late = [] if shown is None else [shown]
    return [
        Script(
            f"{what} does not end preflight, and goes out after the role",
            STREAM,
            [BEGIN],
            [(event, [*ALIVE_SIGN]), (HI, [*_committed(event), *late, fx.SendText("Hi")])],
        ),
        Script(
            f"{what} is held back after the window until there is content",
            STREAM,
            [BEGIN, WINDOW],
            [(event, [*ALIVE_SIGN]), (HI, [*late, fx.SendText("Hi")])],
        ),
        Script(f"{what} goes out at once after content", STREAM, [BEGIN, HI], [(event, late)]),
        Script(
            f"{what} of a failed attempt was never said",
            STREAM,
            [BEGIN, event, failed("refused"), ev.RetryTimerFired(2.0)],
            [(HI, [*ALIVE_SIGN, *BY_CONTENT, fx.SendText("Hi")])],
        ),
    ]


SCRIPTS = [
    Script(
        "a whole turn: opened, committed by content, recorded, closed, finished",
        STREAM,
        then=[
            (BEGIN, [*OPEN, *start(1)]),
            (HI, [*ALIVE_SIGN, *BY_CONTENT, fx.SendText("Hi")]),
            (ev.TextDelta(" you"), [fx.SendText(" you")]),
            (USED, []),
            (
                STOP,
                [
                    *CALL_OVER,
                    row_used(),
                    closed("completed", "stop", **USED_UP),
                    finished("stop", **USED_UP),
                ],
            ),
        ],
    ),
    Script(
        "a response that is not streamed has no window and commits at its end",
        WHOLE,
        then=[
            (BEGIN, [*OPEN_WHOLE, *start(1)]),
            (HI, [*ALIVE_SIGN, fx.SendText("Hi")]),
            (
                STOP,
                [
                    *CALL_OVER,
                    row(finish_reason="stop"),
                    closed("completed", "stop"),
                    *BY_END,
                    finished("stop"),
                ],
            ),
        ],
    ),
    *[script for what, (event, shown) in CONTENT.items() for script in _commits(what, event, shown)],
    *[script for what, (event, shown) in QUIET.items() for script in _stays_quiet(what, event, shown)],
    Script("the window commits a response that is silent", STREAM, [BEGIN], [(WINDOW, BY_WINDOW)]),
    Script(
        "an empty answer is committed by its end",
        STREAM,
        [BEGIN],
        [
            (
                STOP,
                [
                    *CALL_OVER,
                    row(finish_reason="stop"),
                    closed("completed", "stop"),
                    *BY_END,
                    finished("stop"),
                ],
            )
        ],
    ),
    Script(
        "an empty answer after the window just ends",
        STREAM,
        [BEGIN, WINDOW],
        [(STOP, [*CALL_OVER, row(finish_reason="stop"), *completed()])],
    ),
    Script(
        "what was held back comes out at the end of an answer without content, after the role",
        STREAM,
        [BEGIN, REDACTED],
        [
            (
                STOP,
                [
                    *CALL_OVER,
                    row(finish_reason="stop"),
                    closed("completed", "stop"),
                    *BY_END,
                    fx.SendRedactedReasoning("xyz", A.origin),
                    finished("stop"),
                ],
            )
        ],
    ),
    Script(
        "what a call said before it used a server-side tool is not lost with the next call",
        STREAM,
        [BEGIN, REDACTED, call_tool("look", "s1")],
        [
            (TOOLS, [*CALL_OVER, row(finish_reason="tool_calls"), fx.RunTool(LOOK)]),
            (tool_done("s1"), start(2)),
            (
                HI,
                [
                    *ALIVE_SIGN,
                    *BY_CONTENT,
                    fx.SendRedactedReasoning("xyz", A.origin),
                    fx.SendToolProgress("s1", "look", "started"),
                    fx.SendToolProgress("s1", "look", "completed", output="ok"),
                    fx.SendText("Hi"),
                ],
            ),
        ],
    ),
    Script(
        "a failed attempt takes back only its own words, not those of the call before",
        STREAM,
        [
            BEGIN,
            REDACTED,
            call_tool("look", "s1"),
            TOOLS,
            tool_done("s1"),
            ev.RedactedReasoning("lost"),
            failed("refused"),
            ev.RetryTimerFired(2.0),
        ],
        [
            (
                WINDOW,
                [
                    *BY_WINDOW,
                    fx.SendRedactedReasoning("xyz", A.origin),
                    fx.SendToolProgress("s1", "look", "started"),
                    fx.SendToolProgress("s1", "look", "completed", output="ok"),
                ],
            ),
            (HI, [*ALIVE_SIGN, fx.SendText("Hi")]),
        ],
    ),
    Script(
        "reasoning ends once, and only when some is open",
        STREAM,
        [BEGIN, ev.ReasoningDelta("hm")],
        [(ev.ReasoningEnded(), [fx.SendReasoningEnd()]), (ev.ReasoningEnded(), [])],
    ),
    Script(
        "fragments of parallel calls go out by index as they come",
        STREAM,
        [BEGIN, call_tool("ask", "h1", 3), call_tool("look", "s1", 4), call_tool("tell", "h2", 9)],
        [
            (ev.ToolCallDelta(9, "{"), [fx.SendToolArguments(1, "{")]),
            (ev.ToolCallDelta(3, "{}"), [fx.SendToolArguments(0, "{}")]),
            (ev.ToolCallDelta(4, "{}"), []),
            (ev.ToolCallDelta(9, "}"), [fx.SendToolArguments(1, "}")]),
        ],
    ),
    *[
        Script(
            f"arguments of a server-side tool's call are not content {where}",
            STREAM,
            [BEGIN, *before, call_tool("look", "s1")],
            [(ev.ToolCallDelta(0, "{}"), [])],
        )
        for where, before in {"in preflight": [], "after the window": [WINDOW]}.items()
    ],
    Script(
        "`stop` after tool calls means the tool calls",
        STREAM,
        [BEGIN, HI, call_tool("look", "s1")],
        [
            (
                STOP,
                [
                    *CALL_OVER,
                    row(finish_reason="tool_calls"),
                    fx.SendToolProgress("s1", "look", "started"),
                    fx.RunTool(LOOK),
                ],
            )
        ],
    ),
    Script(
        "`tool_calls` without a call means `stop`",
        STREAM,
        [BEGIN, HI],
        [(TOOLS, [*CALL_OVER, row(finish_reason="stop"), *completed()])],
    ),
    *[
        Script(
            f"an answer cut by `{reason}` in the middle of a call runs no tool and asks nobody",
            STREAM,
            [BEGIN, HI, call_tool("look", "s1"), call_tool("ask", "h1", 1), ev.ToolCallDelta(1, '{"half')],
            [(ev.CallFinished(reason), [*CALL_OVER, row(finish_reason=reason), *completed(reason)])],
        )
        for reason in ("length", "content_filter")
    ],
    *[
        Script(
            f"a silent response is kept alive {where}",
            make_spec(host="wait"),
            [BEGIN, *before],
            [(ev.KeepaliveTimerFired(8.0), [fx.SendKeepalive(), set_timer(T.KEEPALIVE, 3.0)])],
        )
        for where, before in {
            "after the window": [WINDOW],
            "after content": [HI],
            "while the turn waits alive": [call_tool("ask", "h1"), TOOLS],
        }.items()
    ],
    Script(
        "ids and model of the upstream are recorded with the call",
        STREAM,
        [BEGIN, HI],
        [
            (
                ev.CallFinished("stop", "resp_1", "m-2026"),
                [
                    *CALL_OVER,
                    row(finish_reason="stop", response_id="resp_1", model="m-2026"),
                    *completed(),
                ],
            )
        ],
    ),
    Script(
        "a caller's tool hides the server's of the same name",
        make_spec(host_tools=("look",), host="wait"),
        [BEGIN],
        [(call_tool("look", "h1"), [*ALIVE_SIGN, *BY_CONTENT, fx.SendToolCall(0, "h1", "look")])],
    ),
    Script(
        "a name that nobody knows is the caller's where it has tools",
        STREAM,
        [BEGIN, HI],
        [(call_tool("nosuch", "h1"), [fx.SendToolCall(0, "h1", "nosuch")])],
    ),
    Script(
        "a name that nobody knows is tried on the server where the caller has no tools",
        make_spec(host_tools=()),
        [BEGIN, HI],
        [(call_tool("nosuch", "s1"), [])],
    ),
]
