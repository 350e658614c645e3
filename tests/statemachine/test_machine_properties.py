"""Random turns, with everything that can go wrong, watched by somebody who keeps an account of his own."""

from __future__ import annotations

from hypothesis import settings, target
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from machine_observer import Observer
from machine_strategies import ANY_EVENT, CALL_EVENT, OTHER_EVENTS, RARELY, SPECS, TIMES, next_events

from trio_agent.statemachine import ProtocolViolation, Turn, TurnSpec
from trio_agent.statemachine import events as ev

ENDING = (
    ev.Cancel,
    ev.CallFailed,
    ev.CallFinished,
    ev.ServerFailed,
    ev.StallTimerFired,
    ev.TurnTimerFired,
    ev.HostToolTimerFired,
)


class RandomTurn(RuleBasedStateMachine):
    """A turn and its restored twin, which must stay alike, under legal and illegal events."""

    @initialize(spec=SPECS, at=TIMES, waits=RARELY)
    def make(self, spec: TurnSpec, at: float, waits: bool) -> None:
        self.turn = Turn(spec)
        self.twin = Turn(spec)
        self.seen = Observer(spec)
        if not waits:
            assert self._send(ev.Begin(at))

    def _send(self, event: ev.Event) -> bool:
        """Send an event to both; the observer sees what the turn asked for. False when it was refused."""
        before = self.turn.snapshot()
        try:
            same = self.twin.receive(event)
        except ProtocolViolation:
            same = None
        try:
            effects = self.turn.receive(event)
        except ProtocolViolation:
            assert same is None
            assert self.turn.snapshot() == before
            return False
        assert effects == same
        if isinstance(event, ev.Resume):
            self.seen.begin_response(self.turn.spec)
        self.seen.happened(event)
        self.seen.saw(effects, self.turn)
        return True

    @rule(data=st.data(), steps=st.integers(1, 5))
    def the_turn_goes_on(self, data: st.DataObject, steps: int) -> None:
        for _ in range(steps):
            if self.turn.final:
                return
            for event in data.draw(next_events(self.seen)):
                self._send(event)

    @precondition(lambda self: self.seen.call is not None)
    @rule(events=st.lists(CALL_EVENT, min_size=1, max_size=6))
    def the_upstream_speaks(self, events: list[ev.Event]) -> None:
        for event in events:
            self._send(event)

    @precondition(lambda self: self.seen.call is not None)
    @rule(event=OTHER_EVENTS[ev.CallFailed], now=RARELY)
    def the_call_fails(self, event: ev.Event, now: bool) -> None:
        if not now:
            return  # most calls should get further
        assert self._send(event), "a running call can always fail"

    @precondition(lambda self: bool(self.seen.timers))
    @rule(data=st.data(), at=TIMES)
    def a_timer_fires(self, data: st.DataObject, at: float) -> None:
        timers = sorted(self.seen.timers, key=lambda each: each.value)
        ends = (ev.Timer.TURN, ev.Timer.STALL, ev.Timer.HOST_TOOL)
        if not data.draw(RARELY):
            timers = [timer for timer in timers if timer not in ends]  # most turns should live longer
        if not timers:
            return
        timer = data.draw(st.sampled_from(timers))
        assert self._send(ev.TIMER_EVENTS[timer](at)), f"{timer} was set, so it may fire"

    @precondition(lambda self: not self.turn.final)
    @rule(event=OTHER_EVENTS[ev.Cancel], now=RARELY)
    def somebody_cancels(self, event: ev.Event, now: bool) -> None:
        if not now:
            return  # most turns should live longer
        parked = self.seen.parked
        assert self._send(event), "a turn that is not over can always be cancelled"
        assert parked or self.seen.put_back or self.seen.closed is not None

    @rule(event=ANY_EVENT)
    def anything_at_all(self, event: ev.Event) -> None:
        if not isinstance(event, ENDING):
            self._send(event)  # those have rules of their own, and happen less often

    @precondition(lambda self: self.seen.opened and not self.turn.final)
    @rule(event=OTHER_EVENTS[ev.ServerFailed], now=RARELY)
    def the_server_fails(self, event: ev.Event, now: bool) -> None:
        if not now or self.seen.parked:
            return  # for a parked turn it would say that the park was never written, and here it was
        assert self._send(event), "a turn that runs can always fail"

    @rule()
    def the_twin_is_stored_and_restored(self) -> None:
        self.twin = Turn.restore(self.twin.snapshot())

    @precondition(lambda self: self.seen.parked and not self.turn.final)
    @rule(spec=SPECS.filter(lambda spec: spec.host == "park"))
    def the_park_goes_on_with_another_specification(self, spec: TurnSpec) -> None:
        parked = self.turn.snapshot()
        self.turn, self.twin = Turn.restore(parked, spec), Turn.restore(parked, spec)

    def teardown(self) -> None:
        if hasattr(self, "turn"):
            target(float(len(self.seen.rows)), label="model calls of the turn")

    @invariant()
    def the_twins_are_alike(self) -> None:
        assert self.turn.snapshot() == self.twin.snapshot()
        assert self.turn.state is self.twin.state

    @invariant()
    def the_conversation_is_what_was_said(self) -> None:
        self.seen.said_by_finished_calls(self.turn.said)
        assert self.turn.conversation == (*self.turn.spec.messages, *self.turn.said)


RandomTurn.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
test_random_turns = RandomTurn.TestCase
