"""What a turn remembers between events: plain data, so that a turn can be stored and compared."""

from __future__ import annotations

from decimal import Decimal
from typing import TypeAlias

from msgspec import Struct, field

from .answer import Answer
from .conversation import Message, ToolCall, ToolResult, Usage
from .effects import (
    CommittedBy,
    SendReasoningData,
    SendReasoningEnd,
    SendReasoningSignature,
    SendRedactedReasoning,
    SendToolProgress,
)
from .recovery import CandidateFailure
from .spec import Candidate, TurnSpec
from .table import NEW, State
from .tally import Tally

SNAPSHOT_VERSION = 1

HeldOutput: TypeAlias = (
    SendReasoningSignature | SendReasoningEnd | SendRedactedReasoning | SendReasoningData | SendToolProgress
)


class ParkedAs(Struct):
    """What of a park its new response changes: enough to go back to it. `said` and `begun` count messages."""

    said: int
    candidate: int
    round_calls: list[ToolCall]
    finished: dict[str, ToolResult]
    owed: list[ToolCall]
    begun: int = 0


class Memory(Struct):
    """The turn's whole state.

    `said` is what this turn added to the conversation, the first `begun` messages of it before this response.
    `call` counts the model calls of the turn, `attempt`
    those of the candidate for this call. `calling` is true while a model call runs, `silent` until its first
    event, `retrying` while a back-off runs. `held` are outputs that may not go out yet; the first `settled`
    of them belong to calls that finished. `round_calls` are the tool calls of the last answer, `running` and
    `owed` the server-side and the caller's ones of them, `finished` the results so far. `host_calls` counts
    the caller's calls that this response showed. `failures` are those that ended a candidate's chance in this
    response. `window_ends` is on the turn's clock. `parked_as` is there while a resumed response is not
    committed.
    """

    state: State = NEW
    committed_by: CommittedBy | None = None
    window_ends: float = 0.0
    said: list[Message] = field(default_factory=list)
    call: int = 0
    attempt: int = 0
    candidate: int = 0
    retrying: bool = False
    calling: bool = False
    silent: bool = True
    answer: Answer = field(default_factory=Answer)
    reported: Usage | None = None
    reported_cost_usd: Decimal | None = None
    response: Tally = field(default_factory=Tally)
    total: Tally = field(default_factory=Tally)
    round_calls: list[ToolCall] = field(default_factory=list)
    running: dict[str, ToolCall] = field(default_factory=dict)
    finished: dict[str, ToolResult] = field(default_factory=dict)
    owed: list[ToolCall] = field(default_factory=list)
    host_calls: int = 0
    failures: list[CandidateFailure] = field(default_factory=list)
    held: list[HeldOutput] = field(default_factory=list)
    settled: int = 0
    parked_as: ParkedAs | None = None
    begun: int = 0

    def serving(self, spec: TurnSpec) -> Candidate:
        """The model that serves the turn, or that is being tried."""
        return spec.candidates[self.candidate]

    def unanswered(self) -> tuple[ToolCall, ...]:
        """The caller's calls that have no result yet."""
        return tuple(call for call in self.owed if call.id not in self.finished)


class Versioned(Struct, frozen=True):
    """As much of a snapshot as every version of the format has."""

    version: int


class Snapshot(Struct, frozen=True):
    """A turn at rest. `version` is the format's; another one cannot be restored."""

    version: int
    spec: TurnSpec
    memory: Memory
