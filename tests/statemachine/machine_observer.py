"""A second opinion on a turn: what a client, a store and a driver see of it, checked as it comes.

The observer knows nothing of the machine but its events and effects. It keeps its own account of the turn
and fails as soon as the effects contradict it.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from trio_agent.statemachine import Turn, TurnSpec
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import Message, ToolCall, Usage
from trio_agent.statemachine.money import cost_of

TERMINAL = (fx.Finish, fx.SendError, fx.Reject)
AFTER_CLOSING = (
    fx.Commit,
    fx.SendRole,
    fx.SendReasoningSignature,
    fx.SendReasoningEnd,
    fx.SendRedactedReasoning,
    fx.SendToolProgress,
    *TERMINAL,
)
SENT = (
    fx.SendText,
    fx.SendRefusal,
    fx.SendReasoning,
    fx.SendReasoningSignature,
    fx.SendReasoningEnd,
    fx.SendRedactedReasoning,
    fx.SendToolCall,
    fx.SendToolArguments,
)
LASTING = ("max_model_calls", "budget_exceeded", "cancelled")
CONTENT = (fx.SendText, fx.SendRefusal, fx.SendReasoning, fx.SendToolCall, fx.SendToolArguments)


class Observer:
    """The account of one turn over all of its responses."""

    def __init__(self, spec: TurnSpec) -> None:
        self.spec = spec
        self.rows: list[tuple[fx.RecordCall, bool]] = []
        self.closed: fx.CloseTurn | None = None
        self.calls_started = 0
        self.park: tuple[tuple[ToolCall, ...], tuple[Message, ...]] | None = None
        self.begin_response(spec)

    def begin_response(self, spec: TurnSpec) -> None:
        self.spec = spec
        self.opened = self.committed = self.has_role = self.parked = False
        self.rests = self.put_back = False
        self.terminal: fx.Effect | None = None
        self.timers: set[ev.Timer] = set()
        self.call: fx.StartCall | None = None
        self.call_answered = False
        self.reported: Usage | None = None
        self.reported_cost: Decimal | None = None
        self.tools: dict[str, ToolCall] = {}
        self.owed: list[ToolCall] = []
        self.first_row = len(self.rows)
        self.progress: list[tuple[str, fx.ToolStatus]] = []
        self.sent: list[fx.Effect] = []
        self.due: list[fx.Effect] = []  # what finished calls said, as it must reach the client
        self.due_now: list[fx.Effect] = []  # what the running call said so far
        self.thinking_open = False
        self.host_indexes: dict[int, int] = {}
        self.host_calls = 0

    # --- what came in ---------------------------------------------------------------------------------

    def happened(self, event: ev.Event) -> None:
        """Note an event that the machine is about to accept."""
        match event:
            case ev.TextDelta(text):
                self._heard(fx.SendText(text))
            case ev.RefusalDelta(text):
                self._heard(fx.SendRefusal(text))
            case ev.ReasoningDelta(text):
                self._heard(fx.SendReasoning(text), thinking=True)
            case ev.ReasoningSigned(signature):
                self._heard(fx.SendReasoningSignature(signature))
            case ev.RedactedReasoning(data):
                self._heard(fx.SendRedactedReasoning(data))
            case ev.ReasoningEnded():
                self._heard(fx.SendReasoningEnd() if self.thinking_open else None)
            case ev.ReasoningData():
                self._heard(None)
            case ev.ToolCallStarted(index, call_id, name):
                self.thinking_open = False
                self.call_answered = True
                if self._is_hosts(name):
                    self.host_indexes[index] = self.host_calls
                    self._heard(fx.SendToolCall(self.host_calls, call_id, name))
                    self.host_calls += 1
            case ev.ToolCallDelta(index, arguments):
                self.call_answered = True
                if index in self.host_indexes:
                    self.due_now.append(fx.SendToolArguments(self.host_indexes[index], arguments))
            case ev.UsageReported(usage, cost):
                self.call_answered = True
                self.reported = usage
                self.reported_cost = self.reported_cost if cost is None else cost
            case ev.CallFinished():
                self.call_answered = True
                self.due += self.due_now
            case ev.ToolFinished(result):
                del self.tools[result.tool_call_id]
            case ev.HostToolsReturned(results):
                ids = {each.tool_call_id for each in results}
                self.owed = [call for call in self.owed if call.id not in ids]
            case _:
                for timer, kind in ev.TIMER_EVENTS.items():
                    if isinstance(event, kind):
                        self.timers.discard(timer)

    def _heard(self, shown: fx.Effect | None, *, thinking: bool = False) -> None:
        self.call_answered = True
        self.thinking_open = thinking
        if shown is not None:
            self.due_now.append(shown)

    def _is_hosts(self, name: str) -> bool:
        spec = self.spec
        return name in spec.host_tools or (bool(spec.host_tools) and name not in spec.server_tools)

    # --- what went out --------------------------------------------------------------------------------

    def saw(self, effects: list[fx.Effect], turn: Turn) -> None:
        """Check what the machine asked for, one effect after the other, and then the turn as a whole."""
        for effect in effects:
            self._in_order(effect)
            self._one(effect)
        self._as_a_whole(turn)
        if self.put_back and not self.rests:
            assert (turn.owed, turn.said) == self.park, "the turn is as it was when it was parked"
        elif self.parked and self.closed is None:
            self.park = (turn.owed, turn.said)
        self.rests = self.parked

    def _in_order(self, effect: fx.Effect) -> None:
        if self.rests and self.closed is None:
            assert isinstance(effect, fx.CloseTurn), f"{effect} of a parked turn"
            return
        assert self.terminal is None, f"{effect} after the response ended"
        if self.put_back:
            assert isinstance(effect, fx.Reject), f"{effect} after the park was put back"
        elif self.closed is not None or self.parked:
            assert isinstance(effect, AFTER_CLOSING), f"{effect} after the outcome was written"
        if isinstance(effect, (*SENT, fx.SendKeepalive, fx.SendToolProgress)):
            assert self.has_role or not self.spec.stream, f"{effect} before the role"

    def _one(self, effect: fx.Effect) -> None:
        match effect:
            case fx.OpenTurn():
                assert not self.opened
                self.opened = True
            case fx.Commit(by):
                assert not self.committed
                assert self.spec.stream or by == "end"
                if by == "end":
                    assert self.closed is not None or self.parked
                self.committed = True
            case fx.SendRole():
                assert self.committed
                assert not self.has_role
                self.has_role = True
            case fx.SendKeepalive():
                assert self.committed
            case fx.SendToolProgress(call_id, _, status):
                self.progress.append((call_id, status))
            case fx.SetTimer(timer, seconds):
                assert seconds >= 0
                self.timers.add(timer)
            case fx.ClearTimer(timer):
                self.timers.discard(timer)
            case fx.StartCall():
                self._call_starts(effect)
            case fx.RecordCall():
                self._call_ends(effect)
            case fx.RunTool(call):
                assert call.name in self.spec.server_tools or not self.spec.host_tools
                self.tools[call.id] = call
            case fx.CallHost(calls):
                assert self.spec.host == "wait"
                self.owed = list(calls)
            case fx.Park(calls):
                assert self.spec.host == "park"
                self.owed = list(calls)
                self.parked = True
                self._sums(effect, self.rows)
            case fx.Repark():
                assert self.park is not None, "nothing was parked before"
                assert not self.committed, "the client has seen the response"
                assert self.call is None
                self.parked = self.put_back = True
                self.owed = list(self.park[0])
                self.tools.clear()
                self.timers.clear()
                self.due.clear()
                self._sums(effect, self.rows)
            case fx.CloseTurn(outcome, reason):
                if self.park is not None and not (self.committed or self.rests or outcome == "completed"):
                    assert reason in LASTING, "a repeat of the request could have gone on"
                self.closed = effect
                self._sums(effect, self.rows)
            case fx.Finish():
                assert self.committed
                assert self.closed is not None or self.parked
                self._sums(effect, self.rows[self.first_row :])
                self._ends(effect)
            case fx.SendError():
                assert self.committed
                self._ends(effect)
            case fx.Reject():
                assert not self.committed
                self._ends(effect)
            case _:
                pass
        if isinstance(effect, SENT):
            self.sent.append(effect)

    def _call_starts(self, start: fx.StartCall) -> None:
        assert self.opened, "a call before the turn's row was written"
        assert self.call is None, "two calls at once"
        assert start.number <= self.spec.limits.model_calls
        limit = self.spec.limits.cost_usd
        if limit is not None:
            assert self.spec.candidates[start.candidate].price is not None
            assert sum((row.cost_usd or Decimal(0) for row, _ in self.rows), Decimal(0)) < limit
        assert ev.Timer.STALL in self.timers
        self.calls_started += 1
        self.call, self.call_answered = start, False
        self.reported, self.reported_cost = None, None
        self.due_now, self.thinking_open, self.host_indexes = [], False, {}

    def _call_ends(self, row: fx.RecordCall) -> None:
        call = self.call
        assert call is not None, "a row for no call"
        assert (row.number, row.candidate, row.attempt) == (call.number, call.candidate, call.attempt)
        self._figures(row)
        refused = row.failure is not None and not self.call_answered
        self.rows.append((row, not refused))
        self.call = None

    def _figures(self, row: fx.RecordCall) -> None:
        """A call's row says what the provider last reported, and nothing else."""
        price = self.spec.candidates[row.candidate].price
        if self.reported is None:
            assert (row.usage, row.usage_source, row.cost_usd) == (Usage(), "unknown", None)
            return
        assert row.usage == self.reported
        assert row.usage_source in ("provider", "estimated")
        priced = None if price is None else cost_of(self.reported, price)
        assert row.cost_usd == (priced if self.reported_cost is None else self.reported_cost)

    def _sums(self, figures: Any, rows: list[tuple[fx.RecordCall, bool]]) -> None:
        """Usage and cost are the sums over the calls; unknown as soon as one that counts is."""
        usage = Usage()
        for row, _ in rows:
            usage += row.usage
        billed = [row for row, counts in rows if counts]
        costs = [row.cost_usd for row in billed]
        known = bool(costs) and None not in costs
        assert figures.usage == usage
        assert figures.cost_usd == (sum(filter(None, costs), Decimal(0)) if known else None)
        order = ("provider", "estimated", "unknown")
        worst = max((row.usage_source for row in billed), key=order.index, default="unknown")
        assert figures.usage_source == worst

    def _ends(self, effect: fx.Effect) -> None:
        self.terminal = effect
        self.timers.clear()

    def _as_a_whole(self, turn: Turn) -> None:
        assert (self.closed is not None) == turn.final
        assert len(self.rows) + (self.call is not None) == self.calls_started
        over = turn.final or self.put_back
        said = self.due if self.call is None else self.due + self.due_now
        content = [each for each in said if isinstance(each, CONTENT)]
        assert [each for each in self.sent if isinstance(each, CONTENT)] == content or over
        if content and not over:
            assert self.sent == said, "something is held back although there is content"
        if isinstance(self.terminal, fx.Finish):
            assert self.sent == self.due, "the whole answer, once and in order"
            assert self.call is None
            assert not self.tools
        if turn.final:
            self._has_ended()
        elif not self.tools:
            assert turn.owed == tuple(self.owed)
        self._progress_adds_up()

    def _has_ended(self) -> None:
        """A turn that is over told its client so, once, unless nobody was there to be told."""
        assert self.closed is not None
        assert self.call is None
        self.timers.clear()
        if self.put_back:
            assert self.terminal is None or isinstance(self.terminal, fx.Reject)
        elif self.parked:
            assert isinstance(self.terminal, fx.Finish), "the parked response ended when it was parked"
        elif self.closed.reason == "client_disconnected":
            assert self.terminal is None
        else:
            assert self.terminal is not None
            assert isinstance(self.terminal, fx.Finish) == (self.closed.outcome == "completed")

    def _progress_adds_up(self) -> None:
        """Each tool is said to start once and then, once, to have ended."""
        seen: dict[str, bool] = {}
        for call_id, status in self.progress:
            if status == "started":
                assert not seen.get(call_id, False)
                seen[call_id] = True
            else:
                assert seen[call_id]
                seen[call_id] = False
        if isinstance(self.terminal, fx.Finish):
            assert not any(seen.values())

    # --- what was said ---------------------------------------------------------------------------------

    def said_by_finished_calls(self, said: tuple[Message, ...]) -> None:
        """The conversation keeps the same text that went to the client in this response."""
        text = "".join(each.text for each in self.due if isinstance(each, fx.SendText))
        kept = "".join(message.text for message in said if message.role == "assistant")
        assert kept.endswith(text)
