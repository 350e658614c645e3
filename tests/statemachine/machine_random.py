"""Random turns: rules that drive a turn on trial through whatever may, or may not, happen to it."""

from __future__ import annotations

from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from machine_legal import is_legal
from machine_strategies import (
    ANY_EVENT,
    BEFORE_CONTENT,
    BEGINNINGS,
    CALL_EVENT,
    OTHER_EVENTS,
    PARKING_SPECS,
    RARELY,
    TIMES,
    VARIANTS,
    Beginning,
    next_events,
)
from machine_trial import Trial, Tried

from trio_agent.statemachine import TurnSpec
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
ENDINGS = st.one_of(*(OTHER_EVENTS[kind] for kind in ENDING if kind in OTHER_EVENTS))
PAUSES = st.sampled_from([0.0, 0.01, 0.25, 1.0, 4.8])


class RandomTurn(RuleBasedStateMachine):
    """Turns under legal and illegal events. What ends one is mostly tried on a fork, for a longer life."""

    def __init__(self, tried: Tried | None = None) -> None:
        super().__init__()
        self.tried: Tried = Counter() if tried is None else tried

    @initialize(beginning=BEGINNINGS, at=TIMES, waits=RARELY)
    def a_turn_begins(self, beginning: Beginning, at: float, waits: bool) -> None:
        spec, start = beginning
        self.trial = Trial(spec, self.tried, at)
        self.trial.fork().send(ev.Begin(at), store_fails=True)
        for event in () if waits else (ev.Begin(at), *start):
            self.trial.send(event)

    @precondition(lambda self: self.trial.turn.final)
    @rule(beginning=BEGINNINGS, at=TIMES)
    def another_turn_begins(self, beginning: Beginning, at: float) -> None:
        self.trial.replay()
        self.a_turn_begins(beginning, at, False)

    # --- what should happen -------------------------------------------------------------------------------

    @precondition(lambda self: not self.trial.turn.final)
    @rule(data=st.data(), steps=st.integers(1, 3), store_fails=RARELY)
    def the_turn_goes_on(self, data: st.DataObject, steps: int, store_fails: bool) -> None:
        for _ in range(steps):
            if self.trial.turn.final:
                return
            for event in data.draw(next_events(self.trial.seen)):
                self.trial.send(event, store_fails=store_fails)

    @precondition(lambda self: self.trial.seen.call is not None)
    @rule(events=st.lists(CALL_EVENT, min_size=1, max_size=6))
    def the_upstream_speaks(self, events: list[ev.Event]) -> None:
        for event in events:
            self.trial.send(event)

    @precondition(lambda self: self.trial.seen.call is not None)
    @rule(events=st.lists(BEFORE_CONTENT, min_size=1, max_size=4))
    def the_upstream_says_nothing_yet(self, events: list[ev.Event]) -> None:
        for event in events:
            self.trial.send(event)

    @precondition(lambda self: self.trial.seen.call is not None and not self.trial.seen.said.shows_content)
    @rule(event=OTHER_EVENTS[ev.CallFailed])
    def a_call_fails_before_content(self, event: ev.Event) -> None:
        assert self.trial.send(event), "a running call can always fail"

    @rule(pause=PAUSES)
    def time_passes(self, pause: float) -> None:
        self.trial.now = round(self.trial.now + pause, 2)

    @precondition(lambda self: ev.Timer.PREFLIGHT in self.trial.seen.timers.deadlines)
    @rule()
    def the_window_ends(self) -> None:
        assert self.trial.send(ev.PreflightTimerFired(0.0))

    @precondition(lambda self: bool(self.trial.seen.timers.deadlines))
    @rule(data=st.data(), late=PAUSES)
    def a_timer_fires(self, data: st.DataObject, late: float) -> None:
        trial = self.trial
        deadlines = trial.seen.timers.deadlines
        timer = data.draw(st.sampled_from(sorted(deadlines, key=lambda each: each.value)))
        if timer in (ev.Timer.TURN, ev.Timer.STALL, ev.Timer.HOST_TOOL) and not data.draw(RARELY):
            trial = trial.fork()
        trial.now = max(trial.now, deadlines[timer] + late)
        assert trial.send(ev.TIMER_EVENTS[timer](0.0)), f"{timer} was set, so it may fire"

    # --- what may happen ----------------------------------------------------------------------------------

    @rule(event=ANY_EVENT)
    def anything_at_all(self, event: ev.Event) -> None:
        if not isinstance(event, ENDING):
            self.trial.send(event)

    @precondition(lambda self: not self.trial.turn.final)
    @rule(variant=st.integers(0, 59), store_fails=st.booleans())
    def each_event_could_be_next(self, variant: int, store_fails: bool) -> None:
        for events in VARIANTS.values():
            event = events[variant % len(events)]
            if self._says_that_nothing_was_written(event):
                continue
            trial = self.trial.fork() if is_legal(self.trial.seen, event) else self.trial
            trial.send(event, store_fails=store_fails)

    @precondition(lambda self: not self.trial.turn.final)
    @rule(event=ENDINGS, now=RARELY, store_fails=st.booleans())
    def it_ends(self, event: ev.Event, now: bool, store_fails: bool) -> None:
        if now and not self._says_that_nothing_was_written(event):
            self.trial.send(event, store_fails=store_fails)

    def _says_that_nothing_was_written(self, event: ev.Event) -> bool:
        """Such an event is for `store_fails` to send, in the place of the effects that it undoes."""
        return isinstance(event, ev.ServerFailed) and (
            self.trial.seen.parked or event.code == "store_unavailable"
        )

    # --- what must make no difference ---------------------------------------------------------------------

    @rule()
    def the_twin_is_stored_and_restored(self) -> None:
        self.trial.store_and_restore()

    @precondition(lambda self: self.trial.seen.parked and not self.trial.turn.final)
    @rule(spec=PARKING_SPECS, at=TIMES)
    def the_park_goes_on_with_another_specification(self, spec: TurnSpec, at: float) -> None:
        self.trial.now = at
        self.trial.go_on_with(spec)

    @invariant()
    def what_the_table_lacks_is_refused(self) -> None:
        self.trial.refuse_what_the_table_lacks()

    def teardown(self) -> None:
        if hasattr(self, "trial") and self.trial.sound:
            self.trial.replay()
