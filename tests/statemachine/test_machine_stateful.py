"""Random turns, with everything that can go wrong, watched by somebody who keeps an account of his own.

What is random follows from the fixed seeds below, so that a run can be repeated. (Hypothesis also takes
values from the sources that are loaded: another choice of tests, or a change to the code, draws other turns.)
For a soak, say how many examples there should be; they are drawn anew each time:

    MACHINE_SOAK=20000 python -m pytest tests/statemachine/test_machine_stateful.py -k random_turns

What fails is printed as a script, shrunk to the few steps that matter.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import machine_digest
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from machine_mutations import MUTATIONS, Mutation
from machine_random import RandomTurn
from machine_strategies import PLACES, VARIANTS
from machine_trial import Trial, Tried
from machine_values import SAMPLES

from trio_agent.statemachine import TRANSITIONS, ProtocolViolation, State
from trio_agent.statemachine import events as ev

SOAK = int(os.environ.get("MACHINE_SOAK", "0"))
# Many short runs rather than a long one: within a run the examples resemble each other.
SEEDS = range(16)
EXAMPLES = 20
FIXED = settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=False,  # the seeds do that, and a soak must not
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
UNSHRUNK = settings(FIXED, phases=(Phase.generate,))
# What a turn in this state takes whatever else it knows.
NEVER_REFUSED = {
    (State.NEW, ev.Begin),
    *((state, ev.Cancel) for state in State),
    *((state, ev.ServerFailed) for state in State),
    *((state, ev.TurnTimerFired) for state in State),
    (State.ROLE_CHUNK, ev.KeepaliveTimerFired),
    (State.HOST_TOOL_WAIT, ev.HostToolTimerFired),
}


def _run(number: int | None, tried: Tried, how: settings) -> None:
    """One run of random turns; without a number, nobody knows which."""
    turns = partial(RandomTurn, tried)
    run_state_machine_as_test(turns if number is None else seed(number)(turns), settings=how)


@pytest.mark.slow
@pytest.mark.timeout(0 if SOAK else 120)
def test_random_turns_keep_every_promise() -> None:
    """Whatever happens to a turn, in whatever order: what it asks for agrees with what can be known outside.

    And the fixed runs try what they claim to: every pair of state and event both ways, where there are two.
    """
    tried: Tried = Counter()
    for number in [None] * (SOAK // EXAMPLES + 1) if SOAK else SEEDS:
        _run(number, tried, FIXED)
    taken = {(state, kind) for state, kind, target in tried if target is not None}
    refused = {(state, kind) for state, kind, target in tried if target is None}
    pairs = {(state, kind) for state in State for kind in SAMPLES}
    legal = {(state, kind) for state, row in TRANSITIONS.items() for kind in row}
    assert SOAK or (taken, refused) == (legal, pairs - (NEVER_REFUSED & legal))


def test_every_event_at_every_place_takes_every_move() -> None:
    """The places that random turns begin at are enough to take each move of the table, watched like them."""
    tried: Tried = Counter()
    for spec, start in PLACES:
        trial = Trial(spec, tried)
        for event in (ev.Begin(0.0), *start):
            _try_each_event(trial)
            trial.send(event)
        _try_each_event(trial)
    moves = {
        (state, kind, to)
        for state, row in TRANSITIONS.items()
        for kind, targets in row.items()
        for to in targets
    }
    assert {move for move in tried if move[2] is not None} == moves


def _try_each_event(trial: Trial) -> None:
    trial.refuse_what_the_table_lacks()
    for event in (event for events in VARIANTS.values() for event in events):
        for store_fails in (False, True):
            if not (isinstance(event, ev.ServerFailed) and trial.seen.parked):
                trial.fork().send(event, store_fails=store_fails)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.title)
def test_a_deliberate_bug_is_found(mutation: Mutation) -> None:
    """The random turns would notice: with this one change to the machine, the same run fails."""
    with mutation.applied():
        for number in SEEDS:
            try:
                _run(number, Counter(), UNSHRUNK)
            except (AssertionError, ProtocolViolation):
                return
    pytest.fail("nobody noticed")


def test_the_same_events_give_the_same_effects_in_every_process() -> None:
    """No byte of an effect or a snapshot hangs on the order of a set, which differs between processes."""
    program = [sys.executable, str(Path(__file__).with_name("machine_digest.py"))]
    processes = [
        subprocess.Popen(
            program, env=os.environ | {"PYTHONHASHSEED": number}, stdout=subprocess.PIPE, encoding="utf-8"
        )
        for number in ("0", "1", "2")
    ]
    said = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    assert {digest for digest, _ in said} == {machine_digest.digest()}
    assert len({order for _, order in said}) == len(said), "the processes would have told a difference"
