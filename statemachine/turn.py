"""One turn as a value: events in, effects out. No clock, no socket, no `await`.

`Turn.receive` applies the table of `table.py`. Each handler changes the turn's memory, returns what is to be
done, and takes one of the targets that the table allows. A handler that refuses an event does so before
it changes anything. The handlers live where their subject is: `answering` (the running call's answer),
`calling` (model calls, retries, fallbacks, limits), `tools` (rounds of tools), `timers`, `ending`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import msgspec

from . import answering, calling, ending, timers, tools
from . import effects as fx
from . import events as ev
from .conversation import Message, ToolCall
from .errors import ProtocolViolation
from .memory import SNAPSHOT_VERSION, Memory, Snapshot, Versioned
from .spec import Candidate, TurnSpec, checked
from .table import FINAL, TRANSITIONS, State
from .tally import Tally

Effects: TypeAlias = list[fx.Effect]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Snapshot).decode
_decode_version = msgspec.json.Decoder(Versioned).decode

_HANDLERS: Mapping[type, Callable[[TurnSpec, Memory, Any], Effects]] = MappingProxyType(
    {
        ev.Begin: calling.on_begin,
        ev.TextDelta: answering.on_text,
        ev.RefusalDelta: answering.on_refusal,
        ev.ReasoningDelta: answering.on_reasoning,
        ev.ReasoningSigned: answering.on_signed,
        ev.ReasoningEnded: answering.on_reasoning_ended,
        ev.RedactedReasoning: answering.on_redacted,
        ev.ReasoningData: answering.on_reasoning_data,
        ev.ToolCallStarted: answering.on_tool_call,
        ev.ToolCallDelta: answering.on_tool_arguments,
        ev.UsageReported: answering.on_usage,
        ev.CallFinished: answering.on_call_finished,
        ev.CallFailed: calling.on_call_failed,
        ev.ToolFinished: tools.on_tool_finished,
        ev.HostToolsReturned: tools.on_host_tools,
        ev.Resume: tools.on_resume,
        ev.PreflightTimerFired: timers.on_preflight_timer,
        ev.RetryTimerFired: calling.on_retry_timer,
        ev.KeepaliveTimerFired: timers.on_keepalive_timer,
        ev.StallTimerFired: timers.on_stall_timer,
        ev.TurnTimerFired: timers.on_turn_timer,
        ev.HostToolTimerFired: timers.on_host_tool_timer,
        ev.Cancel: ending.on_cancel,
        ev.ServerFailed: ending.on_server_failed,
    }
)


class SnapshotError(Exception):
    """The bytes are not a snapshot of a version that this program can restore."""


class Turn:
    """The turn machine.

    Args:
        spec: what was asked for; it never changes, except when a parked turn is restored for a new response,
            and when the turn is handed over to another model.

    Raises:
        ValueError: `spec` has no candidate, or a duration that is negative or not finite.
    """

    __slots__ = ("_memory", "_spec")

    def __init__(self, spec: TurnSpec) -> None:
        self._spec = checked(spec)
        self._memory = Memory()

    # --- what a turn shows ---------------------------------------------------------------------

    @property
    def spec(self) -> TurnSpec:
        return self._spec

    @property
    def state(self) -> State:
        return self._memory.state

    @property
    def final(self) -> bool:
        return self._memory.state in FINAL

    @property
    def committed_by(self) -> fx.CommittedBy | None:
        """What committed the current response; `None` before it is committed."""
        return self._memory.committed_by

    @property
    def candidate(self) -> Candidate:
        """The model that serves the turn, or that is being tried."""
        return self._memory.serving(self._spec)

    @property
    def conversation(self) -> tuple[Message, ...]:
        """All that a model is to be sent next: the request's messages and what the turn added."""
        return (*self._spec.messages, *self._memory.said)

    @property
    def said(self) -> tuple[Message, ...]:
        """What this turn added to the conversation."""
        return tuple(self._memory.said)

    @property
    def answered(self) -> tuple[Message, ...]:
        """What the model and the server's tools said in this response.

        While the turn waits for the caller, the results that are there already are at the end.
        """
        memory = self._memory
        said = tuple(memory.said[memory.begun :])
        if not (memory.owed and memory.finished):
            return said
        there = (memory.finished.get(call.id) for call in memory.round_calls)
        return (*said, Message("tool", tuple(result for result in there if result is not None)))

    @property
    def total(self) -> Tally:
        """Usage and cost of all model calls so far, over all responses of the turn."""
        return self._memory.total

    @property
    def owed(self) -> tuple[ToolCall, ...]:
        """The caller's calls that have no result yet."""
        return self._memory.unanswered()

    # --- a turn as a value -----------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """The whole turn as JSON; `restore` gives back a turn that behaves the same."""
        return _encode(Snapshot(SNAPSHOT_VERSION, self._spec, self._memory))

    @classmethod
    def restore(cls, snapshot: bytes, spec: TurnSpec | None = None) -> Turn:
        """The turn that `snapshot` was taken of.

        Args:
            snapshot: what `snapshot()` returned.
            spec: what the next response is to be made with (it may be streamed or not, other candidates
                may serve it). Its `messages` are those that the turn began with: what the turn added to
                them is in the snapshot. Allowed for a parked turn only.

        Raises:
            SnapshotError: not a snapshot, or one of another version.
            ValueError: `spec` was given for a turn that is not parked, cannot be parked again, or is one
                that no turn can be made with.
        """
        try:
            version = _decode_version(snapshot).version
            if version != SNAPSHOT_VERSION:
                raise SnapshotError(f"snapshot version {version}, this program reads {SNAPSHOT_VERSION}")
            stored = _decode(snapshot)
        except msgspec.DecodeError as error:
            raise SnapshotError(f"not a turn snapshot: {error}") from None
        turn = cls(stored.spec if spec is None else spec)
        turn._memory = memory = stored.memory
        if spec is not None:
            if not ending.is_parked(stored.spec, memory):
                raise ValueError("only a parked turn can go on with another specification")
            if spec.host != "park":
                raise ValueError("a parked turn goes on as one that is parked, not as one that waits alive")
            memory.candidate = 0
        return turn

    def hand_over(self, candidate: Candidate) -> None:
        """Let `candidate` serve the model call that was asked for last and all later ones, without fallbacks.

        What is known of earlier calls keeps the models that served them.
        """
        before = self._spec.candidates[: self._memory.candidate]
        self._spec = checked(msgspec.structs.replace(self._spec, candidates=(*before, candidate)))

    # --- events in, effects out ------------------------------------------------------------------

    def receive(self, event: ev.Event) -> Effects:
        """Apply one event.

        Returns:
            What is to be done, in this order.

        Raises:
            ProtocolViolation: the event is not legal now; the turn is as it was.
        """
        memory = self._memory
        before = memory.state
        kind = type(event)
        targets = TRANSITIONS[before].get(kind)
        if targets is None:
            raise ProtocolViolation(before, event)
        effects = _HANDLERS[kind](self._spec, memory, event)
        if memory.state not in targets:
            raise AssertionError(
                f"{kind.__name__} led from {before} to {memory.state}, which is not in the table"
            )
        return effects
