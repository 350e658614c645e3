"""What can happen to a turn.

The first group is what a provider may yield while a model call runs. `at` is the turn's clock in
seconds (monotonic, with any zero); it comes with the events whose handling depends on time, because
the machine has no clock.
"""

from __future__ import annotations

from decimal import Decimal
from enum import Enum
from typing import Literal, TypeAlias

from msgspec import Struct

from .conversation import Message, ToolResult, Usage
from .failure import Failure

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter"]
CancelReason: TypeAlias = Literal["client_disconnected", "cancelled", "shutdown"]


class TextDelta(Struct, frozen=True, tag=True):
    """A piece of the answer's text; never empty."""

    text: str


class RefusalDelta(Struct, frozen=True, tag=True):
    """A piece of a refusal; never empty."""

    text: str


class ReasoningDelta(Struct, frozen=True, tag=True):
    """A piece of reasoning in words; never empty."""

    text: str


class ReasoningSigned(Struct, frozen=True, tag=True):
    """The signature of the reasoning that came just before; closes that block.

    Without reasoning before it (a vendor that omits the words), the block is an empty one with a
    signature.
    """

    signature: str


class ReasoningEnded(Struct, frozen=True, tag=True):
    """An unsigned block of reasoning is complete; the next piece begins another block."""


class RedactedReasoning(Struct, frozen=True, tag=True):
    """A whole block of encrypted reasoning."""

    data: str


class ReasoningData(Struct, frozen=True, tag=True):
    """Reasoning in the provider's own JSON, to be given back to it unchanged."""

    data: str


class ToolCallStarted(Struct, frozen=True, tag=True):
    """The model begins a tool call. `index` tells parallel calls of one model call apart."""

    index: int
    id: str
    name: str
    provider_data: str | None = None


class ToolCallDelta(Struct, frozen=True, tag=True):
    """A fragment of the arguments of call `index`; never empty."""

    index: int
    arguments: str


class UsageReported(Struct, frozen=True, tag=True):
    """The usage of this model call so far; each report replaces the one before.

    `cost_usd` is the provider's own figure where it gives one.
    """

    usage: Usage
    cost_usd: Decimal | None = None


class CallFinished(Struct, frozen=True, tag=True):
    """The model call ended, and the upstream said so. `model` is what the upstream says it ran.

    `stop_sequence` is the caller's own that ended the answer, where the upstream names it.
    """

    finish_reason: FinishReason
    response_id: str | None = None
    model: str | None = None
    stop_sequence: str | None = None


CallEvent: TypeAlias = (
    TextDelta
    | RefusalDelta
    | ReasoningDelta
    | ReasoningSigned
    | ReasoningEnded
    | RedactedReasoning
    | ReasoningData
    | ToolCallStarted
    | ToolCallDelta
    | UsageReported
    | CallFinished
)
"""What a provider's stream yields. A call that cannot finish raises instead of yielding."""


class Begin(Struct, frozen=True, tag=True):
    """The turn was accepted: authenticated, decoded, its model known."""

    at: float


class CallFailed(Struct, frozen=True, tag=True):
    """The model call failed; nothing more comes from it."""

    failure: Failure
    at: float


class ToolFinished(Struct, frozen=True, tag=True):
    """A server-side tool returned, failed, or ran into its time limit."""

    result: ToolResult
    at: float


class HostToolsReturned(Struct, frozen=True, tag=True):
    """Results for calls that the caller owed, in a turn that waits alive."""

    results: tuple[ToolResult, ...]
    at: float


class Resume(Struct, frozen=True, tag=True):
    """A later request brings all results that a parked turn waits for, and perhaps more messages."""

    results: tuple[ToolResult, ...]
    at: float
    messages: tuple[Message, ...] = ()


class PreflightTimerFired(Struct, frozen=True, tag=True):
    """The preflight window is over."""

    at: float


class RetryTimerFired(Struct, frozen=True, tag=True):
    """The back-off before the next attempt is over."""

    at: float


class KeepaliveTimerFired(Struct, frozen=True, tag=True):
    """Nothing has gone out to the client for the keepalive interval."""

    at: float


class StallTimerFired(Struct, frozen=True, tag=True):
    """The upstream has been silent for longer than its provider allows."""

    at: float


class TurnTimerFired(Struct, frozen=True, tag=True):
    """The turn's time is up. `call_begun` is as with `Cancel`."""

    at: float
    call_begun: bool = True


class HostToolTimerFired(Struct, frozen=True, tag=True):
    """The caller's tools did not answer in time."""

    at: float


class Cancel(Struct, frozen=True, tag=True):
    """Somebody wants the turn to end: the client left, asked for it, or the server shuts down.

    `drained` says that the running model call was read to its end first, so that its usage is final.
    `call_begun` is false if a model call was asked for that had not been made yet: it costs nothing.
    """

    reason: CancelReason
    at: float
    drained: bool = False
    call_begun: bool = True


class ServerFailed(Struct, frozen=True, tag=True):
    """Something of the server's own failed: what had to be durable could not be written
    (`store_unavailable`), or the server has a bug (`internal_error`).

    The effects that were to follow the one that failed have not been performed, and are not any more.
    `call_begun` is as with `Cancel`.
    """

    code: Literal["store_unavailable", "internal_error"]
    message: str
    at: float
    call_begun: bool = True


class Timer(Enum):
    """The timers of a turn. Each has one deadline; setting it again moves it."""

    PREFLIGHT = "preflight"
    RETRY = "retry"
    KEEPALIVE = "keepalive"
    STALL = "stall"
    TURN = "turn"
    HOST_TOOL = "host_tool"


TimerFired: TypeAlias = (
    PreflightTimerFired
    | RetryTimerFired
    | KeepaliveTimerFired
    | StallTimerFired
    | TurnTimerFired
    | HostToolTimerFired
)

TIMER_EVENTS: dict[Timer, type[TimerFired]] = {
    Timer.PREFLIGHT: PreflightTimerFired,
    Timer.RETRY: RetryTimerFired,
    Timer.KEEPALIVE: KeepaliveTimerFired,
    Timer.STALL: StallTimerFired,
    Timer.TURN: TurnTimerFired,
    Timer.HOST_TOOL: HostToolTimerFired,
}

Event: TypeAlias = (
    Begin
    | CallEvent
    | CallFailed
    | ToolFinished
    | HostToolsReturned
    | Resume
    | TimerFired
    | Cancel
    | ServerFailed
)
