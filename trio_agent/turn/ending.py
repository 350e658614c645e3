"""Why a turn that is being cancelled ends: what its driver noted, and the event that tells the machine."""

from __future__ import annotations

from types import TracebackType

import trio

from trio_agent.statemachine import Turn
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.table import HOST_TOOL_WAIT, NEW
from trio_agent.turn.sink import SinkClosedError


class Ending:
    """Notes of one driver.

    `reason` is what a cancellation from outside means. `expired` says that a deadline of the turn's passed,
    `crashed` that the server itself failed, `stopped` that the server ends the turn, and `drained` that the
    last model call was read to its end although its client had gone. `settled` says that the cancellation has
    come: what happens from then on is not the reason any more.

    A `with` block around the server's own work notes its failure before anything is closed on its account, so
    that nothing takes it for a client that has left.
    """

    def __init__(self) -> None:
        self.reason: ev.CancelReason = "client_disconnected"
        self.expired = False
        self.crashed = False
        self.stopped = False
        self.drained = False
        self.settled = False

    @property
    def owes_a_word(self) -> bool:
        """Whether the client, who has not left, is still to be told."""
        return self.crashed or self.expired or self.stopped

    @property
    def is_ours(self) -> bool:
        """Whether a cancellation that is seen now is not the client's doing."""
        return self.crashed or self.expired or self.reason != "client_disconnected"

    def __enter__(self) -> None:
        """The block is the server's own work."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, SinkClosedError):
            self.crashed = True

    def event(self, turn: Turn) -> ev.Event:
        """What the machine is told at the end."""
        now = trio.current_time()
        if self.crashed and turn.state is not NEW:
            return ev.ServerFailed("internal_error", "The server failed; its log says why.", now)
        if self.expired and turn.state is not HOST_TOOL_WAIT:
            return ev.TurnTimerFired(now)
        if self.expired and turn.spec.host == "wait":
            return ev.HostToolTimerFired(now)
        return ev.Cancel(self.reason, now, self.drained)

    def cause(self, turn: Turn, *, over: bool, stopped: ev.CancelReason | None) -> ev.Event:
        """What really happened, for whoever writes it down.

        Args:
            over: whether the turn had ended, and only its reader was still to be told.
            stopped: the reason for which the server has just ended it.
        """
        event = self.event(turn)
        if stopped is not None and over:
            return ev.Cancel(stopped, trio.current_time())
        if self.expired and isinstance(event, ev.Cancel):
            return ev.TurnTimerFired(event.at)  # a turn that parks takes it otherwise
        return event


__all__ = ["Ending"]
