"""Scripts: tools of the server and of the caller, parks and live waits."""

from __future__ import annotations

from machine_values import (
    ALIVE,
    ALIVE_SIGN,
    ASK,
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
    B,
    Renewed,
    Script,
    T,
    broken,
    call_tool,
    closed,
    completed,
    finished,
    make_spec,
    problem,
    rejected,
    result,
    row,
    row_used,
    set_timer,
    start,
    tool_done,
)

from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import Message, Text, ToolCall, Usage

ROW = row(finish_reason="tool_calls")
SCAN = ToolCall("s2", "scan", "{}")
TELL = ToolCall("h2", "tell", "")
PARK = fx.Park((ASK,), Usage(), "unknown", None)
PARKED = [BEGIN, call_tool("ask", "h1"), TOOLS, Renewed()]
WAITING = [BEGIN, call_tool("ask", "h1"), call_tool("tell", "h2", 1), TOOLS]
STORE = ev.ServerFailed("store_unavailable", "The store is full.", 1.0)
STORE_TOLD = problem("store_unavailable", retry_after=5.0)


def started(call: ToolCall) -> fx.SendToolProgress:
    return fx.SendToolProgress(call.id, call.name, "started", call.arguments)


def ended(call: ToolCall, status: fx.ToolStatus = "completed") -> fx.SendToolProgress:
    return fx.SendToolProgress(call.id, call.name, status, output="ok")


def returned(*ids: str) -> ev.HostToolsReturned:
    return ev.HostToolsReturned(tuple(map(result, ids)), 3.0)


SERVER = [
    Script(
        "server-side tools run side by side, and the model is called again when the last has ended",
        STREAM,
        [BEGIN, HI, call_tool("look", "s1"), call_tool("scan", "s2", 1), ev.ToolCallDelta(1, "{}")],
        [
            (TOOLS, [*CALL_OVER, ROW, started(LOOK), fx.RunTool(LOOK), started(SCAN), fx.RunTool(SCAN)]),
            (tool_done("s2", is_error=True), [ended(SCAN, "failed")]),
            (tool_done("s1"), [ended(LOOK), *start(2)]),
        ],
    ),
    Script(
        "what a tool does in preflight is told when the window commits the response",
        STREAM,
        [BEGIN, call_tool("look", "s1")],
        [
            (TOOLS, [*CALL_OVER, ROW, fx.RunTool(LOOK)]),
            (WINDOW, [*BY_WINDOW, started(LOOK)]),
            (tool_done("s1"), [ended(LOOK), *start(2)]),
        ],
    ),
    Script(
        "what a tool does before content is told at once where nothing is streamed",
        WHOLE,
        [BEGIN, call_tool("look", "s1")],
        [
            (TOOLS, [*CALL_OVER, ROW, started(LOOK), fx.RunTool(LOOK)]),
            (tool_done("s1"), [ended(LOOK), *start(2)]),
        ],
    ),
    Script(
        "tools without a word in between stay in preflight for as long as it lasts",
        STREAM,
        [BEGIN],
        [
            (call_tool("look", "s1"), ALIVE_SIGN),
            (TOOLS, [*CALL_OVER, ROW, fx.RunTool(LOOK)]),
            (tool_done("s1"), start(2)),
            (call_tool("scan", "s2"), ALIVE_SIGN),
            (ev.ToolCallDelta(0, "{}"), []),
            (TOOLS, [*CALL_OVER, row(2, finish_reason="tool_calls"), fx.RunTool(SCAN)]),
            (WINDOW, [*BY_WINDOW, started(LOOK), ended(LOOK), started(SCAN)]),
        ],
    ),
    Script(
        "tools may begin after the window too",
        STREAM,
        [BEGIN, WINDOW, call_tool("look", "s1"), call_tool("scan", "s2", 1), ev.ToolCallDelta(1, "{}")],
        [
            (TOOLS, [*CALL_OVER, ROW, started(LOOK), fx.RunTool(LOOK), started(SCAN), fx.RunTool(SCAN)]),
            (tool_done("s1"), [ended(LOOK)]),
            (tool_done("s2"), [ended(SCAN), *start(2)]),
        ],
    ),
]

PARKS = [
    Script(
        "a call of the caller's tool parks the turn, then the response ends",
        STREAM,
        [BEGIN, call_tool("ask", "h1")],
        [(TOOLS, [*CALL_OVER, ROW, PARK, finished("tool_calls")])],
    ),
    Script(
        "a response that is not streamed commits after it was parked",
        WHOLE,
        [BEGIN, call_tool("ask", "h1")],
        [(TOOLS, [*CALL_OVER, ROW, PARK, *BY_END, finished("tool_calls")])],
    ),
    Script(
        "of mixed calls the server's run first, and their results are kept over the park",
        STREAM,
        [BEGIN, call_tool("ask", "h1"), call_tool("look", "s1", 1)],
        [
            (TOOLS, [*CALL_OVER, ROW, started(LOOK), fx.RunTool(LOOK)]),
            (tool_done("s1"), [ended(LOOK), PARK, finished("tool_calls")]),
            (Renewed(), []),
            (ev.Resume((result("h1"),), 0.0), [*OPEN, *start(2)]),
        ],
    ),
    Script(
        "a resumed turn is a new response: its own role, its own indexes, the turn's call numbers",
        STREAM,
        PARKED,
        [
            (ev.Resume((result("h1"),), 100.0, (Message("user", (Text("and?"),)),)), [*OPEN, *start(2)]),
            (call_tool("tell", "h2"), [*ALIVE_SIGN, *BY_CONTENT, fx.SendToolCall(0, "h2", "tell")]),
        ],
    ),
    Script(
        "a parked turn may go on unstreamed, with other candidates",
        STREAM,
        [BEGIN, call_tool("ask", "h1"), TOOLS],
        [
            (Renewed(make_spec(B, stream=False)), []),
            (ev.Resume((result("h1"),), 0.0), [*OPEN_WHOLE, *start(2)]),
            (HI, [*ALIVE_SIGN, fx.SendText("Hi")]),
            (
                STOP,
                [
                    *CALL_OVER,
                    row(2, finish_reason="stop"),
                    closed("completed", "stop"),
                    *BY_END,
                    finished("stop"),
                ],
            ),
        ],
    ),
    Script(
        "a park that could not be written breaks the stream",
        STREAM,
        [BEGIN, call_tool("ask", "h1"), TOOLS],
        [(STORE, broken("failed", "store_unavailable", STORE_TOLD))],
    ),
    Script(
        "a park that could not be written is a status where nothing was sent",
        WHOLE,
        [BEGIN, call_tool("ask", "h1"), TOOLS],
        [(STORE, rejected("failed", "store_unavailable", STORE_TOLD))],
    ),
    Script(
        "a park that expires is abandoned, and nobody is told: its response has ended",
        STREAM,
        PARKED,
        [
            (
                ev.HostToolTimerFired(900.0),
                [closed("abandoned", "host_tool_timeout", problem("turn_timeout", retryable=False))],
            )
        ],
    ),
    Script(
        "a park that is cancelled tells nobody",
        STREAM,
        PARKED,
        [
            (
                ev.Cancel("cancelled", 9.0),
                [closed("cancelled", "cancelled", problem("turn_cancelled", retryable=False))],
            )
        ],
    ),
]

WAITS = [
    Script(
        "a turn that waits alive asks its host, and its time stands still",
        ALIVE,
        [BEGIN, call_tool("ask", "h1"), call_tool("tell", "h2", 1)],
        [
            (
                TOOLS,
                [
                    *CALL_OVER,
                    ROW,
                    fx.ClearTimer(T.TURN),
                    set_timer(T.HOST_TOOL, 900.0),
                    fx.CallHost((ASK, TELL)),
                ],
            )
        ],
    ),
    Script(
        "results may come one by one; the model is called when none is owed",
        ALIVE,
        WAITING,
        [
            (returned(), []),
            (returned("h2"), []),
            (returned("h1"), [fx.ClearTimer(T.HOST_TOOL), set_timer(T.TURN, 600.0), *start(2)]),
            (call_tool("ask", "h3"), [*ALIVE_SIGN, fx.SendToolCall(2, "h3", "ask")]),
        ],
    ),
    Script(
        "a live wait comes after the server's tools too",
        ALIVE,
        [BEGIN, call_tool("ask", "h1"), call_tool("look", "s1", 1), TOOLS],
        [
            (
                tool_done("s1"),
                [
                    ended(LOOK),
                    fx.ClearTimer(T.TURN),
                    set_timer(T.HOST_TOOL, 900.0),
                    fx.CallHost((ASK,)),
                ],
            )
        ],
    ),
    Script(
        "a response that waited alive and is not streamed still commits at its end",
        make_spec(host="wait", stream=False),
        [BEGIN, call_tool("ask", "h1"), TOOLS, returned("h1"), HI],
        [
            (
                STOP,
                [
                    *CALL_OVER,
                    row(2, finish_reason="stop"),
                    closed("completed", "stop"),
                    *BY_END,
                    finished("stop"),
                ],
            )
        ],
    ),
    Script(
        "after a live wait a failure cannot be mended",
        ALIVE,
        [*WAITING, returned("h1", "h2"), HI],
        [(STOP, [*CALL_OVER, row(2, finish_reason="stop"), *completed()])],
    ),
    *[
        Script(
            f"a host that does not answer in time {how}",
            spec,
            WAITING,
            [
                (
                    ev.HostToolTimerFired(900.0),
                    ending("abandoned", "host_tool_timeout", problem("turn_timeout", retryable=False)),
                )
            ],
        )
        for how, spec, ending in (
            ("breaks the stream", ALIVE, broken),
            ("is a status where nothing is streamed", make_spec(host="wait", stream=False), rejected),
        )
    ],
    Script(
        "a limit that is reached while the host was asked ends the turn when its results are there",
        make_spec(host="wait", limits={"cost_usd": COST}),
        [BEGIN, call_tool("ask", "h1"), USED],
        [
            (
                TOOLS,
                [
                    *CALL_OVER,
                    row_used(1, "tool_calls"),
                    fx.ClearTimer(T.TURN),
                    set_timer(T.HOST_TOOL, 900.0),
                    fx.CallHost((ASK,)),
                ],
            ),
            (
                returned("h1"),
                [
                    fx.ClearTimer(T.HOST_TOOL),
                    set_timer(T.TURN, 600.0),
                    *broken(
                        "failed",
                        "budget_exceeded",
                        problem("budget_exceeded", retryable=False),
                        usage=USAGE,
                        source="provider",
                        cost=COST,
                    ),
                ],
            ),
        ],
    ),
]

SCRIPTS = [*SERVER, *PARKS, *WAITS]
