"""What the machine asks for, story by story; and that the stories take every move of the table."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import scripts_answer
import scripts_ends
import scripts_failures
import scripts_limits
import scripts_repeats
import scripts_tools
from machine_values import Script, reached, step, without_words

from trio_agent.statemachine import TRANSITIONS, State, Turn

SCRIPTS: list[Script] = [
    *scripts_answer.SCRIPTS,
    *scripts_failures.SCRIPTS,
    *scripts_limits.SCRIPTS,
    *scripts_tools.SCRIPTS,
    *scripts_repeats.SCRIPTS,
    *scripts_ends.SCRIPTS,
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.title)
def test_a_script_plays_as_written(script: Script) -> None:
    """This happened, so that was asked for, and nothing else."""
    turn = reached(script.spec, *script.given)
    for event, expected in script.then:
        turn, effects = step(turn, event)
        assert without_words(effects) == without_words(expected), f"after {event}"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.title)
def test_a_turn_that_is_stored_before_every_event_goes_the_same_way(script: Script) -> None:
    """`restore(snapshot())` behaves as if nothing had happened, wherever it happens."""
    turn, twin = Turn(script.spec), Turn(script.spec)
    for event in script.events:
        twin = Turn.restore(twin.snapshot())
        (turn, effects), (twin, same) = step(turn, event), step(twin, event)
        assert effects == same
        assert turn.snapshot() == twin.snapshot()


def _moves(script: Script) -> Iterator[tuple[State, str, State]]:
    turn = Turn(script.spec)
    for event in script.events:
        before = turn.state
        turn, _ = step(turn, event)
        yield before, type(event).__name__, turn.state


def test_the_scripts_take_every_move_of_the_table() -> None:
    """No move is in the table that no script takes: each has been looked at, and each can happen."""
    taken = {move for script in SCRIPTS for move in _moves(script)}
    untaken = [
        f"{state.name} --{event.__name__}--> {target.name}"
        for state, row in TRANSITIONS.items()
        for event, targets in row.items()
        for target in targets
        if (state, event.__name__, target) not in taken
    ]
    assert untaken == []


def test_every_script_has_its_own_title() -> None:
    """A title that fails names one script."""
    titles = [script.title for script in SCRIPTS]
    assert len(set(titles)) == len(titles)
