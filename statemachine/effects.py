"""What a turn can ask for. The driver performs effects in order and reports back with events.

Three groups: what goes out to the client, what is to be done in the world, and what must be written
down. A `Send…` effect before `Commit` reaches only a response that is collected (not streamed).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, TypeAlias

from msgspec import Struct

from .conversation import ToolCall, Usage
from .events import FinishReason, Timer
from .failure import Failure, Problem

CommittedBy: TypeAlias = Literal["content", "window", "end"]
Outcome: TypeAlias = Literal["completed", "failed", "cancelled", "rejected", "parked", "abandoned"]
ToolStatus: TypeAlias = Literal["started", "completed", "failed"]
UsageSource: TypeAlias = Literal["provider", "estimated", "unknown"]


# --- to the client ------------------------------------------------------------------------------


class Commit(Struct, frozen=True, tag=True):
    """The response is a success from here on: send the status. `by` says what decided it."""

    by: CommittedBy


class SendRole(Struct, frozen=True, tag=True, omit_defaults=True):
    """Announce the assistant's message; once, before any content.

    `usage` is what the upstream has reported so far: the prompt's tokens, where it counts them at once.
    """

    usage: Usage | None = None


class SendText(Struct, frozen=True, tag=True):
    text: str


class SendRefusal(Struct, frozen=True, tag=True):
    text: str


class SendReasoning(Struct, frozen=True, tag=True):
    text: str


class SendReasoningSignature(Struct, frozen=True, tag=True, omit_defaults=True):
    """The signature that closes the reasoning sent so far; faces whose wire has no place for it skip it.

    `origin` is the model that signed, as `<provider>/<model>`: the signature is only good with that one.
    """

    signature: str
    origin: str = ""


class SendReasoningEnd(Struct, frozen=True, tag=True):
    """The unsigned reasoning sent so far is one closed block."""


class SendRedactedReasoning(Struct, frozen=True, tag=True, omit_defaults=True):
    """A whole block of reasoning that only its `origin`, `<provider>/<model>`, can read."""

    data: str
    origin: str = ""


class SendReasoningData(Struct, frozen=True, tag=True, omit_defaults=True):
    """What `origin`, `<provider>/<model>`, wants back unchanged, in its own JSON.

    It belongs to the block of reasoning that has just ended, if nothing was sent since.
    """

    data: str
    origin: str = ""


class SendToolCall(Struct, frozen=True, tag=True):
    """A call of a caller's tool begins. `index` counts the caller's calls in this response from 0."""

    index: int
    id: str
    name: str


class SendToolArguments(Struct, frozen=True, tag=True):
    index: int
    arguments: str


class SendToolProgress(Struct, frozen=True, tag=True, omit_defaults=True):
    """A server-side tool started or ended; shown only where the wire has a place for it, or on demand.

    `arguments` come with the start: JSON text, as the model wrote it. `output` comes with the end: the
    result's text.
    """

    tool_call_id: str
    name: str
    status: ToolStatus
    arguments: str = ""
    output: str = ""


class SendKeepalive(Struct, frozen=True, tag=True):
    """Tell the client's idle timer that the turn lives."""


class Finish(Struct, frozen=True, tag=True, omit_defaults=True):
    """The whole answer has been sent. Usage and cost are those of this response's own model calls.

    `stop_sequence` is the caller's own that ended the last one, where the upstream named it.
    """

    finish_reason: FinishReason
    usage: Usage
    cost_usd: Decimal | None
    usage_source: UsageSource
    stop_sequence: str | None = None


class SendError(Struct, frozen=True, tag=True, omit_defaults=True):
    """End a response that was committed, in the wire format's own way of failing.

    Usage and cost are those of this response's own model calls.
    """

    problem: Problem
    usage: Usage = Usage()
    cost_usd: Decimal | None = None
    usage_source: UsageSource = "unknown"


class Reject(Struct, frozen=True, tag=True):
    """Answer with an HTTP error; nothing has been sent."""

    problem: Problem


# --- in the world -------------------------------------------------------------------------------


class StartCall(Struct, frozen=True, tag=True):
    """Call a model: candidate `candidate` of the turn, call `number` (from 1), attempt `attempt` (from 0)."""

    number: int
    candidate: int
    attempt: int


class StopCall(Struct, frozen=True, tag=True):
    """Cancel the running model call and close its connection."""


class RunTool(Struct, frozen=True, tag=True):
    """Run a server-side tool in the turn's nursery."""

    call: ToolCall


class CallHost(Struct, frozen=True, tag=True):
    """Ask the host for the results of these calls; the turn waits alive."""

    calls: tuple[ToolCall, ...]


class SetTimer(Struct, frozen=True, tag=True):
    """Report when `seconds` have passed.

    `KEEPALIVE` counts from the last output to the client, `STALL` from the last sign of the upstream
    while one is awaited; the others count from now.
    """

    timer: Timer
    seconds: float


class ClearTimer(Struct, frozen=True, tag=True):
    timer: Timer


# --- to be written down ---------------------------------------------------------------------------


class OpenTurn(Struct, frozen=True, tag=True):
    """Write the turn's row; durable before the next effect, so that no crash can hide the turn."""


class RecordCall(Struct, frozen=True, tag=True):
    """Write the row of one model call; durable with the next `CloseTurn`, `Park` or `Repark`.

    `failure` is absent for a call that finished or was cancelled. `finish_reason` is absent for one
    that did not finish.
    """

    number: int
    candidate: int
    attempt: int
    usage: Usage
    usage_source: UsageSource
    cost_usd: Decimal | None
    finish_reason: FinishReason | None = None
    failure: Failure | None = None
    response_id: str | None = None
    model: str | None = None


class Park(Struct, frozen=True, tag=True):
    """Write the snapshot and the outcome `parked`; durable before the response ends.

    `calls` are the caller's calls that are owed. The turn's figures are those of `CloseTurn`.
    """

    calls: tuple[ToolCall, ...]
    usage: Usage
    usage_source: UsageSource
    cost_usd: Decimal | None


class Repark(Struct, frozen=True, tag=True):
    """Put back the park that this response took, with the outcome `parked`; durable before `Reject`.

    The response failed before it was committed, for `reason`, with `problem` where somebody is told. The
    snapshot is a new one: the calls made since count. The park expires when it would have expired.
    """

    reason: str
    usage: Usage
    usage_source: UsageSource
    cost_usd: Decimal | None
    problem: Problem | None = None


class CloseTurn(Struct, frozen=True, tag=True):
    """Write the turn's outcome; durable before the terminal effect that follows.

    Usage and cost are the whole turn's, over all its responses. `reason` is a finish reason, a cancel
    reason, or the code of what went wrong.
    """

    outcome: Outcome
    reason: str
    usage: Usage
    usage_source: UsageSource
    cost_usd: Decimal | None
    problem: Problem | None = None


Effect: TypeAlias = (
    Commit
    | SendRole
    | SendText
    | SendRefusal
    | SendReasoning
    | SendReasoningSignature
    | SendReasoningEnd
    | SendRedactedReasoning
    | SendReasoningData
    | SendToolCall
    | SendToolArguments
    | SendToolProgress
    | SendKeepalive
    | Finish
    | SendError
    | Reject
    | StartCall
    | StopCall
    | RunTool
    | CallHost
    | SetTimer
    | ClearTimer
    | OpenTurn
    | RecordCall
    | Park
    | Repark
    | CloseTurn
)

Output: TypeAlias = (
    Commit
    | SendRole
    | SendText
    | SendRefusal
    | SendReasoning
    | SendReasoningSignature
    | SendReasoningEnd
    | SendRedactedReasoning
    | SendReasoningData
    | SendToolCall
    | SendToolArguments
    | SendToolProgress
    | SendKeepalive
    | Finish
    | SendError
    | Reject
)
"""The effects that a sink (a face's encoder, an embedding program) receives."""
