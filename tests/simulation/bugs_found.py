"""Bugs that the simulator found in the product, made again. `findings/` has the scenario of each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio
from msgspec import Struct
from simulation.bugs_of_ends import invisible_outputs_put_keepalives_off
from simulation.bugs_of_money import (
    a_client_that_does_not_read_holds_its_turn_until_the_write_limit,
    a_request_is_sent_for_a_client_that_has_left,
    a_second_signal_has_calls_read_on,
    an_upstream_is_given_up_by_the_time_of_its_whole_answer,
)
from simulation.kernel import replaced
from simulation.mutation import Mutation

from trio_agent.turn import driver as driver_module
from trio_agent.turn import history
from trio_agent.turn.call import ModelCall
from trio_agent.turn.driver import Driver
from trio_agent.turn.ending import Ending
from trio_agent.wire import responses_input


@contextmanager
def clean_up_and_stop_work_on_the_same_effects() -> Iterator[None]:
    """Both took the outcome from the turn's queue, and both wrote it; neither knew that the other one did."""
    with replaced((Driver, "_settle", _settle_without_the_lock), (driver_module, "Ending", _NeverSettled)):
        yield


class _NeverSettled(Ending):
    settled = property(lambda _: False, lambda _, __: None)  # type: ignore[assignment]


async def _settle_without_the_lock(driver: Any) -> None:
    with trio.move_on_after(12, shield=True):
        if not driver.over:
            driver._due.extend(driver.effects_of(driver.ending.event(driver.turn)))
        await driver._performer.record_rest(driver._due)


@contextmanager
def a_second_signal_leaves_drains_alone() -> Iterator[None]:
    """A call that is drained is shielded from the cancellation that ends the server."""

    def say_why(driver: Any, reason: str) -> None:
        driver.ending.reason = reason

    with replaced((Driver, "end_as", say_why)):
        yield


@contextmanager
def a_second_signal_is_the_reason_of_all_that_still_runs() -> Iterator[None]:
    """Also of a call that is only read on, for a client that has left before."""
    end_as = Driver.end_as

    def say_why(driver: Any, reason: Any) -> None:
        end_as(driver, reason)
        driver.ending.reason = reason

    with replaced((Driver, "end_as", say_why)):
        yield


@contextmanager
def a_call_that_is_read_on_is_asked_in_vain_to_end() -> Iterator[None]:
    """A signal was told to the turn, which nobody reads, and not to its call."""
    leave = ModelCall.leave

    def leave_for_good(call: Any, *, drain: bool) -> None:
        leave(call, drain=drain)
        call.stop = lambda: None

    with replaced((ModelCall, "leave", leave_for_good)):
        yield


@contextmanager
def a_refusal_is_no_part_of_what_was_said() -> Iterator[None]:
    """Messages has no word for it, so its clients give it back as text, which the answer did not have."""

    def texts(messages: Any, *kinds: Any) -> str:
        del kinds
        return "".join(message.text for message in messages if message.role == "assistant").strip()

    with replaced((history, "_told", texts)):
        yield


@contextmanager
def words_behind_a_call_are_another_answer() -> Iterator[None]:
    """Where a tool of the server's had run before the call: so the last answer was one without a call."""
    take = responses_input._Folder._take_call

    def take_unowed(folder: Any, call: Any, place: str, *, custom: bool) -> None:
        take(folder, call, place, custom=custom)
        folder._owed = False

    with replaced((responses_input._Folder, "_take_call", take_unowed)):
        yield


class Finding(Struct, frozen=True):
    """A scenario in `findings/`: the invariant that its bug contradicts, words of the complaint, the bug."""

    invariant: int
    says: str
    bug: Mutation


FINDINGS: dict[str, Finding] = {
    "a_client_that_does_not_read": Finding(
        2, "its client does not read", a_client_that_does_not_read_holds_its_turn_until_the_write_limit
    ),
    "a_client_that_leaves_before_the_connection": Finding(
        2, "was begun for a client that was not there", a_request_is_sent_for_a_client_that_has_left
    ),
    "a_drain_outlives_a_second_signal": Finding(2, "s to end (kill)", a_second_signal_leaves_drains_alone),
    "a_keepalive_is_put_off": Finding(3, "without a keepalive", invisible_outputs_put_keepalives_off),
    "a_second_signal_begins_a_drain": Finding(2, "s to end (kill)", a_second_signal_has_calls_read_on),
    "a_second_signal_meets_a_drain": Finding(
        2, "s to end (kill)", a_call_that_is_read_on_is_asked_in_vain_to_end
    ),
    "a_second_signal_takes_the_blame": Finding(
        1, "left, recorded as cancelled, shutdown", a_second_signal_is_the_reason_of_all_that_still_runs
    ),
    "a_stall_is_told_of_a_busy_turn": Finding(
        5, "though nobody took", an_upstream_is_given_up_by_the_time_of_its_whole_answer
    ),
    "a_refusal_comes_back_as_text": Finding(
        6, "was taken for another turn", a_refusal_is_no_part_of_what_was_said
    ),
    "an_outcome_is_closed_twice": Finding(
        1, "though it is closed", clean_up_and_stop_work_on_the_same_effects
    ),
    "words_come_back_behind_a_call": Finding(
        6, "was taken for another turn", words_behind_a_call_are_another_answer
    ),
}
"""By the scenario's name."""
