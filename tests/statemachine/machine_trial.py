"""A turn on trial: the turn itself, a twin that is stored and restored now and then, and an observer."""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias

import msgspec
import pytest
from machine_legal import is_legal
from machine_observer import Observer
from machine_values import ALIVE, SAMPLES

from trio_agent.statemachine import TRANSITIONS, ProtocolViolation, State, Turn, TurnSpec
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev

encoded = msgspec.json.Encoder().encode
Tried: TypeAlias = Counter[tuple[State, type, State | None]]
STAMPED = tuple(kind for kind in SAMPLES if "at" in kind.__struct_fields__)
DURABLE = (fx.OpenTurn, fx.Park, fx.Repark)


class Trial:
    """Sends events to a turn and checks whatever can be seen from outside.

    `now` is the turn's clock. `history` is what the turn took, with the effects as bytes; a specification in
    it stands for a park that went on with another one. `tried` counts which events were tried in which
    states, with where each led; `None` is a refusal. `sound` is false as soon as something did not hold.
    """

    def __init__(self, spec: TurnSpec, tried: Tried, now: float = 0.0) -> None:
        self.turn, self.twin = Turn(spec), Turn(spec)
        self.seen = Observer(spec)
        self.first = spec
        self.tried = tried
        self.now = now
        self.history: list[tuple[ev.Event | TurnSpec, bytes]] = []
        self.sound = True

    def fork(self) -> Trial:
        """The same turn once more, to try what the first one is to be spared."""
        other = Trial.__new__(Trial)
        snapshot = self.turn.snapshot()
        other.turn, other.twin = Turn.restore(snapshot), Turn.restore(snapshot)
        other.seen = self.seen.fork()
        other.first, other.tried, other.now = self.first, self.tried, self.now
        other.history = list(self.history)
        other.sound = True
        return other

    def send(self, event: ev.Event, *, store_fails: bool = False) -> bool:
        """Send an event to the turn and its twin; returns whether it was taken, as it had to be or not.

        `store_fails` says that the row or the park which it leads to cannot be written.
        """
        self.sound = False
        if isinstance(event, STAMPED):
            event = msgspec.structs.replace(event, at=self.now)
        if not is_legal(self.seen, event):
            self._refused(event)
            self.sound = True
            return False
        effects = self._taken(event)
        self.seen.happened(event, self.now)
        durable = next((each for each in effects if isinstance(each, DURABLE)), None)
        if store_fails and durable is not None:
            self.seen.saw(effects[: effects.index(durable)], event, self.now)
            self.seen.cannot_write(durable)
            withheld = effects[effects.index(durable) :]
            begun = not any(isinstance(each, fx.StartCall) for each in withheld)
            event = ev.ServerFailed("store_unavailable", "The store is full.", self.now, begun)
            effects = self._taken(event)
            self.seen.happened(event, self.now)
        self.seen.saw(effects, event, self.now)
        self.seen.checks(self.turn)
        self.sound = True
        return True

    def _taken(self, event: ev.Event) -> list[fx.Effect]:
        before = self.turn.state
        effects = self.turn.receive(event)
        same = self.twin.receive(event)
        assert encoded(effects) == encoded(same), "a turn that was restored went another way"
        self.alike()
        assert self.turn.state in TRANSITIONS[before][type(event)]
        self.tried[before, type(event), self.turn.state] += 1
        self.history.append((event, encoded(effects)))
        return effects

    def _refused(self, event: ev.Event) -> None:
        """A refusal names the pair, and leaves the turn as it was."""
        before = self.turn.snapshot()
        self.tried[self.turn.state, type(event), None] += 1
        for turn in (self.turn, self.twin):
            refusal = _refusal(turn, event)
            assert (refusal.state, refusal.event) == (turn.state, event)
            assert turn.snapshot() == before

    def refuse_what_the_table_lacks(self) -> None:
        """No event leads out of the table: each pair that is not in it is tried, where the turn stands."""
        self.sound = False
        before, state = self.turn.snapshot(), self.turn.state
        for kind, event in SAMPLES.items():
            if kind in TRANSITIONS[state]:
                continue
            self.tried[state, kind, None] += 1
            assert str(_refusal(self.turn, event)) == f"{kind.__name__} in state {state.name}"
        assert self.turn.snapshot() == before
        self.sound = True

    def alike(self) -> None:
        assert self.turn.snapshot() == self.twin.snapshot()

    def store_and_restore(self) -> None:
        """The twin goes through the store; what comes back is what went in, to the byte.

        Another specification is for parked turns only, and one that waits alive is for none.
        """
        stored = self.twin.snapshot()
        self.twin = Turn.restore(stored)
        assert self.twin.snapshot() == stored
        parked = self.seen.parked and not self.turn.final
        with pytest.raises(ValueError, match="waits alive" if parked else "only a parked turn"):
            Turn.restore(stored, ALIVE)

    def go_on_with(self, spec: TurnSpec) -> None:
        """A later request comes for the parked turn, with a specification of its own."""
        parked = self.turn.snapshot()
        self.turn, self.twin = Turn.restore(parked, spec), Turn.restore(parked, spec)
        self.seen.renew(spec)
        self.history.append((spec, b""))

    def replay(self) -> None:
        """The same events give the same effects, without the events that were refused in between."""
        turn = Turn(self.first)
        for step, effects in self.history:
            if isinstance(step, TurnSpec):
                turn = Turn.restore(turn.snapshot(), step)
            else:
                assert encoded(turn.receive(step)) == effects
        assert turn.snapshot() == self.turn.snapshot()


def _refusal(turn: Turn, event: ev.Event) -> ProtocolViolation:
    state = turn.state
    try:
        turn.receive(event)
    except ProtocolViolation as violation:
        return violation
    raise AssertionError(f"{event} was taken in {state.name}")
