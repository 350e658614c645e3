"""How a response and its turn may end: what is written down, what the client is told, and in which order."""

from __future__ import annotations

from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.failure import Problem

LASTING = ("max_model_calls", "budget_exceeded", "cancelled")
LIMITS = ("max_model_calls", "budget_exceeded")
BY_FAILURE = ("upstream_error", "upstream_rejected", "rate_limited", "stalled", "truncated")
ENDS: dict[type, tuple[str, tuple[str, ...]]] = {
    ev.CallFinished: ("completed", ("stop", "length", "content_filter")),
    ev.CallFailed: ("failed", BY_FAILURE),
    ev.StallTimerFired: ("failed", BY_FAILURE),
    ev.TurnTimerFired: ("failed", ("timeout",)),
    ev.Cancel: ("cancelled", ("client_disconnected", "cancelled", "shutdown")),
    ev.ServerFailed: ("failed", ("store_unavailable", "internal_error")),
    ev.HostToolTimerFired: ("abandoned", ("host_tool_timeout",)),
}


class Ending:
    """The end of one response.

    `closed` is the turn's outcome, once there is one; `parked` says that the response left a park, `put_back`
    that it put back the one it had taken; `terminal` is what its client was told at last.
    """

    def __init__(self) -> None:
        self.closed: fx.CloseTurn | None = None
        self.parked = self.put_back = False
        self.terminal: fx.Effect | None = None
        self.problem: Problem | None = None

    def puts_back(self, effect: fx.Repark, event: ev.Event) -> None:
        assert effect.reason not in LASTING, "a repeat could only end in the same way"
        assert effect.reason in ENDS[type(event)][1]
        self.parked = self.put_back = True
        self.problem = effect.problem

    def closes(self, effect: fx.CloseTurn, event: ev.Event, *, may_repeat: bool) -> None:
        """Check the outcome against the event that brought it about.

        `may_repeat` says that the response could have been put back to where its request found it.
        """
        assert self.closed is None, "two outcomes"
        self.closed = effect
        self.problem = effect.problem
        if effect.reason not in LIMITS:
            outcome, reasons = ENDS[type(event)]
            assert effect.outcome == outcome
            assert effect.reason in reasons
        match event:
            case ev.Cancel(reason):
                assert effect.reason == reason
            case ev.CallFinished(reason):
                assert effect.reason == ("stop" if reason == "tool_calls" else reason)
            case ev.ServerFailed(code):
                assert effect.reason == code
        if may_repeat and effect.outcome != "completed":
            assert effect.reason in LASTING, "a repeat of the request could have gone on"

    def tells(self, effect: fx.Finish | fx.SendError | fx.Reject, *, committed: bool) -> None:
        """The one last output: it comes after what was written down, and says the same."""
        assert self.terminal is None, "two terminal outputs"
        self.terminal = effect
        match effect:
            case fx.Finish(reason):
                assert committed
                assert self.parked or self.closed is not None, "the client was told first"
                assert reason == ("tool_calls" if self.closed is None else self.closed.reason)
            case fx.SendError(problem):
                assert committed
                assert self.closed is not None, "the client was told first"
                assert problem == self.problem
            case fx.Reject(problem):
                assert not committed
                assert self.closed is not None or self.put_back, "the client was told first"
                assert problem == self.problem

    def checks(self) -> None:
        """The client was told, once, unless nobody was there to be told."""
        terminal = self.terminal
        if self.put_back:
            assert terminal is None or isinstance(terminal, fx.Reject)
        elif self.parked:
            assert isinstance(terminal, fx.Finish), "the parked response ended when it was parked"
        elif self.closed is not None and self.closed.reason == "client_disconnected":
            assert terminal is None
        elif self.closed is not None:
            assert terminal is not None
            assert isinstance(terminal, fx.Finish) == (self.closed.outcome == "completed")
        else:
            assert terminal is None
