"""The states of a turn and the moves between them.

Theory of operation
-------------------

A turn answers one request of a client. It calls a model, perhaps several times, with tools running in
between, and it shows the client one response. What the client can still be told depends on what it has
been told already, and that is what the states say:

NEW
    Nothing has happened. `Begin` starts the turn.

PREFLIGHT
    The upstream call runs and nothing has reached the client, so a failure can still be a true HTTP
    status. Retries and fallback candidates happen here, unseen. The first content ends it: a caller that
    waits for content loses no time by preflight. A call of a server-side tool is not content, for the
    client will never see it.

ROLE_CHUNK
    The preflight window is over and the client was waiting, so the status and the role are out. There is
    no content yet: a failed candidate may still be replaced silently, but the last failure can only be
    told inside the stream. No new retry starts here; one whose back-off was running is carried out.

STREAMING
    Content has been sent. A failure ends the turn, for the client has half an answer that no other model
    would continue in the same words. Server-side tools run here, and the model is called again.

HOST_TOOL_WAIT
    The model called tools of the caller's. Over HTTP the response has ended, the turn is a snapshot in
    the store, and `Resume` is a new response, which begins with a preflight of its own. If that response
    fails before it is committed, the turn is back here: its client has seen nothing, and may repeat the
    request. In an embedding program the turn waits alive for `HostToolsReturned`.

DONE, ERROR
    Final. Exactly one of them is reached, once, and its outcome is written down before the client is told.

A response that is not streamed passes through the same states, but commits only at its end: until then
every failure is an HTTP status, in STREAMING too.

Some events have more than one target, because the target depends on what the turn knows: whether a tool
is the caller's, whether another candidate is left, whether a limit is reached. The table lists all that
are legal; the turn takes one of them. A pair that is not in the table is a bug of whoever sent the event
(`ProtocolViolation`) and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import TypeAlias

from . import events as ev


class State(Enum):
    """Where a turn stands. The values are what records and logs show."""

    NEW = "new"
    PREFLIGHT = "preflight"
    ROLE_CHUNK = "role_chunk"
    STREAMING = "streaming"
    HOST_TOOL_WAIT = "host_tool_wait"
    DONE = "done"
    ERROR = "error"


NEW, PREFLIGHT, ROLE_CHUNK, STREAMING = State.NEW, State.PREFLIGHT, State.ROLE_CHUNK, State.STREAMING
HOST_TOOL_WAIT, DONE, ERROR = State.HOST_TOOL_WAIT, State.DONE, State.ERROR

Targets: TypeAlias = tuple[State, ...]
Row: TypeAlias = Mapping[type, Targets]


def _row(moves: dict[type, Targets]) -> Row:
    return MappingProxyType(moves)


def _before_content(here: State, *back: State) -> dict[type, Targets]:
    """What PREFLIGHT and ROLE_CHUNK share: a call runs, and the client has seen no content.

    `back` is where a failure may lead while nothing is committed.
    """
    return {
        ev.TextDelta: (STREAMING,),
        ev.RefusalDelta: (STREAMING,),
        ev.ReasoningDelta: (STREAMING,),
        ev.ReasoningSigned: (here,),
        ev.ReasoningEnded: (here,),
        ev.RedactedReasoning: (here,),
        ev.ReasoningData: (here,),
        ev.ToolCallStarted: (here, STREAMING),
        ev.ToolCallDelta: (here,),
        ev.UsageReported: (here,),
        ev.CallFinished: (here, DONE),
        ev.CallFailed: (here, *back, ERROR),
        ev.ToolFinished: (here, ERROR),
        ev.RetryTimerFired: (here,),
        ev.StallTimerFired: (here, *back, ERROR),
        ev.TurnTimerFired: (*back, ERROR),
        ev.Cancel: (*back, ERROR),
        ev.ServerFailed: (*back, ERROR),
    }


TRANSITIONS: Mapping[State, Row] = MappingProxyType(
    {
        NEW: _row({ev.Begin: (PREFLIGHT, ERROR), ev.Cancel: (ERROR,)}),
        PREFLIGHT: _row(_before_content(PREFLIGHT, HOST_TOOL_WAIT) | {ev.PreflightTimerFired: (ROLE_CHUNK,)}),
        ROLE_CHUNK: _row(_before_content(ROLE_CHUNK) | {ev.KeepaliveTimerFired: (ROLE_CHUNK,)}),
        STREAMING: _row(
            {
                ev.TextDelta: (STREAMING,),
                ev.RefusalDelta: (STREAMING,),
                ev.ReasoningDelta: (STREAMING,),
                ev.ReasoningSigned: (STREAMING,),
                ev.ReasoningEnded: (STREAMING,),
                ev.RedactedReasoning: (STREAMING,),
                ev.ReasoningData: (STREAMING,),
                ev.ToolCallStarted: (STREAMING,),
                ev.ToolCallDelta: (STREAMING,),
                ev.UsageReported: (STREAMING,),
                ev.CallFinished: (STREAMING, HOST_TOOL_WAIT, DONE),
                ev.CallFailed: (HOST_TOOL_WAIT, ERROR),
                ev.ToolFinished: (STREAMING, HOST_TOOL_WAIT, ERROR),
                ev.KeepaliveTimerFired: (STREAMING,),
                ev.StallTimerFired: (HOST_TOOL_WAIT, ERROR),
                ev.TurnTimerFired: (HOST_TOOL_WAIT, ERROR),
                ev.Cancel: (HOST_TOOL_WAIT, ERROR),
                ev.ServerFailed: (HOST_TOOL_WAIT, ERROR),
            }
        ),
        HOST_TOOL_WAIT: _row(
            {
                ev.HostToolsReturned: (HOST_TOOL_WAIT, STREAMING, ERROR),
                ev.Resume: (PREFLIGHT, ERROR),
                ev.HostToolTimerFired: (ERROR,),
                ev.KeepaliveTimerFired: (HOST_TOOL_WAIT,),
                ev.Cancel: (ERROR,),
                ev.ServerFailed: (ERROR,),
            }
        ),
        # Final rows are written out: a missing row would be an oversight, an empty one is a decision.
        DONE: _row({}),
        ERROR: _row({}),
    }
)

FINAL: frozenset[State] = frozenset({DONE, ERROR})
