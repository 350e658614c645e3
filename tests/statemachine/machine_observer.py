"""A second opinion on a turn: what a client, a store and a driver see of it, checked as it comes.

The observer knows nothing of the machine but its events and effects. It keeps its own account of the turn
and fails as soon as the effects contradict it.
"""

from __future__ import annotations

import copy
from typing import NamedTuple, TypeVar, get_args

from machine_accounts import Accounts
from machine_endings import Ending
from machine_round import Round
from machine_said import Said
from machine_timers import Timer, Timers

from trio_agent.statemachine import State, Turn, TurnSpec
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import Message, ToolResult

CALL_EVENTS = get_args(ev.CallEvent)
FAILED = (ev.CallFailed, ev.StallTimerFired)
HELD = (
    fx.SendReasoningSignature,
    fx.SendReasoningEnd,
    fx.SendRedactedReasoning,
    fx.SendReasoningData,
    fx.SendToolProgress,
)
SENT = (
    fx.SendText,
    fx.SendRefusal,
    fx.SendReasoning,
    fx.SendToolCall,
    fx.SendToolArguments,
    *HELD,
)
TERMINAL = (fx.Finish, fx.SendError, fx.Reject)
Thing = TypeVar("Thing")


class Park(NamedTuple):
    """What a park keeps: its round, how many messages there were, and the candidate that served it."""

    round: Round
    messages: int
    serving: int


class Observer:
    """The account of one turn over all of its responses.

    `rests` says that the turn was parked before the current event, `waiting` that it waits alive for the
    caller's tools. `park_is_lost` says that the store failed, so that there is no way back to an older park.
    """

    def __init__(self, spec: TurnSpec) -> None:
        self.begun = self.park_is_lost = False
        self.park: Park | None = None
        self.accounts = Accounts(spec)
        self.said = Said()
        self._begin_response(spec, 0.0)

    def _begin_response(self, spec: TurnSpec, at: float) -> None:
        self.spec = spec
        self.opened = self.committed = self.has_role = False
        self.rests = self.waiting = self.stopped = self.first_sign = False
        self.ending = Ending()
        self.timers = Timers()
        self.timers.begin_response(at, spec.limits)
        self.round = Round()
        self.accounts.begin_response(spec)
        self.said.begin_response()

    def renew(self, spec: TurnSpec) -> None:
        """The next response will be made with another specification."""
        self.spec = self.accounts.spec = spec
        self.accounts.serving = 0

    def fork(self) -> Observer:
        """An observer of the same past that knows nothing of this one's future."""
        other = _apart(self)
        other.accounts, other.said = _apart(self.accounts), _apart(self.said)
        other.ending, other.timers = _apart(self.ending), _apart(self.timers)
        other.round = self.round.copy()
        return other

    @property
    def call(self) -> fx.StartCall | None:
        """The model call that runs."""
        return self.accounts.call

    @property
    def parked(self) -> bool:
        return self.ending.parked

    @property
    def closed(self) -> fx.CloseTurn | None:
        """The turn's outcome."""
        return self.ending.closed

    @property
    def state(self) -> State:
        """The state that follows from what the client has seen and what the turn waits for."""
        if self.closed is not None:
            return State.DONE if self.closed.outcome == "completed" else State.ERROR
        if not self.begun:
            return State.NEW
        if self.parked or self.waiting:
            return State.HOST_TOOL_WAIT
        if self.said.shows_content:
            return State.STREAMING
        return State.ROLE_CHUNK if self.committed else State.PREFLIGHT

    # --- what came in ---------------------------------------------------------------------------------

    def happened(self, event: ev.Event, now: float) -> None:
        """Note an event that the machine has accepted, before its effects are seen."""
        self.stopped = False
        self.timers.fired(event)
        if isinstance(event, CALL_EVENTS):
            self.first_sign = not self.accounts.answered
            self.accounts.answered = True
        match event:
            case ev.Begin():
                self.begun = True
                self.timers.begin_response(now, self.spec.limits)
            case ev.UsageReported():
                self.accounts.reports(event)
            case ev.CallFinished():
                self._call_finished(event)
            case ev.CallFailed() | ev.StallTimerFired() if not self.said.shows_content:
                self.said.begin_call()
            case ev.ToolCallStarted(_, _, name):
                self.said.hear(event, hosts=self._is_hosts(name))
            case ev.ToolFinished(result):
                self._tool_finished(result)
            case ev.HostToolsReturned(results):
                self.round.bring(results)
                self.waiting = not self.round.over
                self._end_round()
            case ev.Resume():
                self._resumed(event, now)
            case _:
                self.said.hear(event, origin=self._origin)

    @property
    def _origin(self) -> str:
        return self.spec.candidates[self.accounts.serving].origin

    def _call_finished(self, event: ev.CallFinished) -> None:
        """The tool calls of an answer are due: the server's now, the caller's when those have ended."""
        calls = self.said.finish_call(self._origin)
        if event.finish_reason in ("stop", "tool_calls"):
            self.round = Round(calls, self._is_hosts)
            self.said.due += [
                fx.SendToolProgress(call.id, call.name, "started", call.arguments)
                for call in self.round.tools.values()
            ]

    def _tool_finished(self, result: ToolResult) -> None:
        call = self.round.end_tool(result)
        status: fx.ToolStatus = "failed" if result.is_error else "completed"
        self.said.due.append(fx.SendToolProgress(call.id, call.name, status, output=result.text))
        self._end_round()

    def _end_round(self) -> None:
        if self.round.over:
            self.said.messages.append(Message("tool", self.round.in_order))

    def _resumed(self, event: ev.Resume, now: float) -> None:
        assert self.park is not None
        self.park = self.park._replace(serving=self.accounts.serving)
        self.round.bring(event.results)
        self._end_round()
        self.said.messages.extend(event.messages)
        self._begin_response(self.spec, now)

    def _is_hosts(self, name: str) -> bool:
        spec = self.spec
        return name in spec.host_tools or (bool(spec.host_tools) and name not in spec.server_tools)

    def cannot_write(self, effect: fx.OpenTurn | fx.Park | fx.Repark) -> None:
        """The store failed at this effect, so nothing from it on is performed."""
        self.park_is_lost = not isinstance(effect, fx.OpenTurn)
        if isinstance(effect, fx.Repark):
            self._go_back()

    # --- what went out --------------------------------------------------------------------------------

    def saw(self, effects: list[fx.Effect], event: ev.Event, now: float) -> None:
        """Check what the machine asked for, one effect after the other."""
        already = len(self.said.sent)
        for effect in effects:
            self._in_order(effect)
            self._one(effect, event, now)
            if isinstance(effect, SENT):
                self.said.sent.append(effect)
        if isinstance(event, FAILED):
            self._after_failure(effects, now)
        signs = any(isinstance(each, fx.SetTimer) and each.timer is Timer.STALL for each in effects)
        if isinstance(event, CALL_EVENTS) and self.call is not None:
            assert signs == self.first_sign, "the first sign of the upstream shortens its limit, no other"
            if signs:
                assert self.timers.stall == self.spec.candidates[self.call.candidate].idle_timeout
        tools = [each.call for each in effects if isinstance(each, fx.RunTool)]
        assert tools == (list(self.round.tools.values()) if isinstance(event, ev.CallFinished) else [])
        if not isinstance(event, CALL_EVENTS):
            assert all(isinstance(each, HELD) for each in self.said.sent[already:]), "content out of nowhere"

    def _in_order(self, effect: fx.Effect) -> None:
        """The places in which an effect may stand: before and after the commit, the outcome, the park."""
        ending = self.ending
        if self.rests:
            assert isinstance(effect, fx.CloseTurn), f"{effect} of a parked turn"
            return
        assert ending.terminal is None, f"{effect} after the response ended"
        if ending.put_back:
            assert isinstance(effect, fx.Reject), f"{effect} after the park was put back"
        elif ending.closed is not None or ending.parked:
            after = (fx.Commit, fx.SendRole, *HELD, *TERMINAL)
            assert isinstance(effect, after), f"{effect} after the outcome was written"
        if isinstance(effect, (*SENT, fx.SendKeepalive)):
            assert self.has_role or not self.spec.stream, f"{effect} before the role"
        if self.stopped and self.call is not None:
            assert isinstance(effect, fx.RecordCall | fx.ClearTimer), (
                f"{effect} before the stopped call's row"
            )

    def _one(self, effect: fx.Effect, event: ev.Event, now: float) -> None:
        match effect:
            case fx.OpenTurn():
                assert not self.opened
                self.opened = True
            case fx.Commit(by):
                self._commits(by, event)
            case fx.SendRole():
                assert self.committed
                assert not self.has_role
                self.has_role = True
            case fx.SendKeepalive():
                assert isinstance(event, ev.KeepaliveTimerFired)
            case fx.SetTimer() | fx.ClearTimer():
                self.timers.saw(effect, self.spec.limits, now)
            case fx.StartCall():
                assert self.opened, "a call before the turn's row was written"
                assert self.timers.stall == self.spec.candidates[effect.candidate].first_byte_timeout
                self.said.begin_call()
                self.accounts.starts(effect)
            case fx.StopCall():
                assert self.call is not None, "there is no call to stop"
                assert not isinstance(event, ev.CallFinished | ev.CallFailed), "the call has ended by itself"
                self.stopped = True
            case fx.RecordCall():
                assert self.stopped or isinstance(event, ev.CallFinished | ev.CallFailed), "nobody stopped it"
                self.accounts.ends(effect, event)
            case fx.CallHost(calls):
                assert self.spec.host == "wait"
                assert (calls, self.round.tools) == (self.round.owed, {})
                self.waiting = True
            case fx.Park() | fx.Repark():
                self._parks(effect, event)
            case fx.CloseTurn():
                self._closes(effect, event)
            case fx.Finish() | fx.SendError() | fx.Reject():
                if isinstance(effect, fx.Finish):
                    self.accounts.this_response(effect)
                self.ending.tells(effect, committed=self.committed)
                self.timers.clear()
            case _:
                pass

    def _commits(self, by: fx.CommittedBy, event: ev.Event) -> None:
        assert not self.committed
        assert not (self.said.sent and self.spec.stream)
        assert by == "end" or self.spec.stream
        assert (by == "end") == (self.closed is not None or self.parked)
        assert (by == "window") == isinstance(event, ev.PreflightTimerFired)
        self.committed = True

    def _parks(self, effect: fx.Park | fx.Repark, event: ev.Event) -> None:
        assert self.call is None
        self.accounts.whole_turn(effect)
        if isinstance(effect, fx.Park):
            assert self.spec.host == "park"
            assert (effect.calls, self.round.tools) == (self.round.owed, {})
            self.ending.parked = True
            self.park = Park(self.round.copy(), len(self.said.messages), self.accounts.serving)
            return
        assert not self.committed, "the client has seen the response"
        self.ending.puts_back(effect, event)
        self._go_back()

    def _go_back(self) -> None:
        assert self.park is not None, "nothing was parked before"
        self.round = self.park.round.copy()
        del self.said.messages[self.park.messages :]
        self.accounts.serving = self.park.serving
        self.timers.clear()

    def _closes(self, closing: fx.CloseTurn, event: ev.Event) -> None:
        assert self.call is None, "the outcome before the last call's row"
        self.accounts.whole_turn(closing)
        self.accounts.stopped_at_limit(closing)
        kept = self.park is not None and not (self.committed or self.rests or self.park_is_lost)
        self.ending.closes(closing, event, may_repeat=kept)
        self.timers.clear()

    def _after_failure(self, effects: list[fx.Effect], now: float) -> None:
        """A failure that nobody has seen is retried or passed on, wherever the rules allow it."""
        retried = any(isinstance(each, fx.SetTimer) and each.timer is Timer.RETRY for each in effects)
        if self.said.shows_content or self.committed:
            assert not retried, "a retry after the window, or after content"
        if self.said.shows_content:
            assert self.call is None, "another answer after content"
            return
        if not self.committed:
            self.accounts.retries_rightly(retried, self.timers.window_ends - now)
        if not retried:
            self.accounts.falls_back_rightly()

    # --- the turn as a whole, after every event -----------------------------------------------------------

    def checks(self, turn: Turn) -> None:
        """What the turn shows of itself is what its effects said."""
        assert turn.state is self.state
        assert turn.final == (self.closed is not None)
        assert turn.said == tuple(self.said.messages)
        assert turn.conversation == (*self.spec.messages, *self.said.messages)
        assert set(self.timers.deadlines) == self._timers_due()
        self.said.was_sent(
            finished=isinstance(self.ending.terminal, fx.Finish),
            broken_off=self.closed is not None or self.ending.put_back,
            may_show=self.committed or not self.spec.stream,
        )
        self.ending.checks()
        if not turn.final and not self.round.tools:
            assert turn.owed == self.round.owed
        self.rests = self.parked

    def _timers_due(self) -> set[Timer]:
        """A turn that goes on has exactly the timers of what it waits for; one that rests has none."""
        if not self.begun or self.closed is not None or self.parked:
            return set()
        due = {
            Timer.TURN: not self.waiting,
            Timer.HOST_TOOL: self.waiting,
            Timer.STALL: self.call is not None,
            Timer.RETRY: self.call is None and not self.round.tools and not self.waiting,
            Timer.PREFLIGHT: self.spec.stream and not self.committed,
            Timer.KEEPALIVE: self.committed,
        }
        return {timer for timer, is_due in due.items() if is_due}


def _apart(thing: Thing) -> Thing:
    """A copy that shares nothing which can change."""
    other = copy.copy(thing)
    for name, value in vars(other).items():
        if isinstance(value, list | dict | set):
            setattr(other, name, value.copy())
    return other
