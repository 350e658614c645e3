"""Deliberate bugs in what a turn may cost, what it is said to have cost, and who goes on with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from simulation.kernel import replaced
from simulation.mutation import bug

from trio_agent.server import writing
from trio_agent.statemachine import calling
from trio_agent.store.sqlite import SqliteStore
from trio_agent.turn.call import ModelCall
from trio_agent.turn.ending import Ending
from trio_agent.turn.history import Returned
from trio_agent.turn.journal import Journal
from trio_agent.turn.timers import Timers

# --- 5: what it cost ----------------------------------------------------------------------------------


@bug(5, says="cost_usd is None")
def the_cost_of_a_turn_is_lost() -> Iterator[None]:
    finished = Journal._finished

    def free(journal: Any, *args: Any) -> Any:
        return msgspec.structs.replace(finished(journal, *args), cost_usd=None)

    with replaced((Journal, "_finished", free)):
        yield


@bug(5, says="usage_source is 'provider'")
def figures_of_a_call_that_broke_off_are_taken_for_whole() -> Iterator[None]:
    record = Journal.record_call

    def sure(journal: Any, effect: Any) -> None:
        record(journal, msgspec.structs.replace(effect, usage_source="provider"))

    with replaced((Journal, "record_call", sure)):
        yield


@bug(5, says="served_model is None")
def the_model_that_really_served_is_forgotten() -> Iterator[None]:
    record = Journal.record_call

    def nameless(journal: Any, effect: Any) -> None:
        record(journal, msgspec.structs.replace(effect, model=None))

    with replaced((Journal, "record_call", nameless)):
        yield


@bug(5, says="is not in its record", first=9)
def the_tools_that_ran_before_a_wait_are_forgotten() -> Iterator[None]:
    begin = Journal.__init__

    def begin_anew(journal: Any, *args: Any, **more: Any) -> None:
        begin(journal, *args, **more)
        journal._tools = []

    with replaced((Journal, "__init__", begin_anew)):
        yield


# --- 5: what it may cost ------------------------------------------------------------------------------


@bug(5, says="was spent", first=49)
def the_cost_limit_is_ignored() -> Iterator[None]:
    def never(*_: Any) -> None:
        return None

    with replaced((calling, "_cost_reached", never)):
        yield


@bug(5, says="retries are allowed")
def calls_are_tried_again_without_end() -> Iterator[None]:
    delay = calling.retry_delay

    def patient(failure: Any, *, max_retries: int, **more: Any) -> float | None:
        return delay(failure, max_retries=max_retries + 3, **more)

    with replaced((calling, "retry_delay", patient)):
        yield


@bug(5, says="calls are allowed", first=27)
def the_limit_of_model_calls_is_off_by_one() -> Iterator[None]:
    reached = calling._limit_reached

    def late(spec: Any, memory: Any) -> Any:
        limits = msgspec.structs.replace(spec.limits, model_calls=spec.limits.model_calls + 1)
        return reached(msgspec.structs.replace(spec, limits=limits), memory)

    with replaced((calling, "_limit_reached", late)):
        yield


@bug(5, says="after a silence of", first=9)
def an_upstream_is_given_up_by_the_time_of_its_whole_answer() -> Iterator[None]:
    deadline = Timers._deadline

    def sticky(timers: Any, timer: Any) -> float:
        if timer.value == "stall":
            return float(timers._deadlines[timer])
        return deadline(timers, timer)

    with replaced((Timers, "_deadline", sticky)):
        yield


# --- 6: who goes on -----------------------------------------------------------------------------------


@bug(6, says="was taken for another turn")
def nobody_goes_on_with_a_turn() -> Iterator[None]:
    async def find_none(*_: Any) -> list[Any]:
        return []

    with replaced((SqliteStore, "find_parks", find_none)):
        yield


@bug(6, says="or too late", first=15)
def a_turn_waits_ten_times_too_long() -> Iterator[None]:
    begin = Journal.__init__

    def wait_long(journal: Any, *args: Any, ttl: float, **more: Any) -> None:
        begin(journal, *args, ttl=10 * ttl, **more)

    with replaced((Journal, "__init__", wait_long)):
        yield


@bug(6, says="though it is another conversation")
def an_edited_conversation_goes_on_with_the_turn() -> Iterator[None]:
    with replaced((Returned, "answer_to", lambda brought, _: brought.told[-1:])):
        yield


# --- 2: what is left ----------------------------------------------------------------------------------


@bug(2, says="was begun for a client that was not there", first=58)
def a_request_is_sent_for_a_client_that_has_left() -> Iterator[None]:
    leave = ModelCall.leave

    def leave_unseen(call: Any, *, drain: bool) -> None:
        leave(call, drain=drain)
        call._caller.gone = False

    with replaced((ModelCall, "leave", leave_unseen)):
        yield


@bug(2, says=("was open when", "s to end (kill)"), first=7)
def a_second_signal_has_calls_read_on() -> Iterator[None]:
    with replaced((Ending, "is_ours", property(lambda _: False))):
        yield


@bug(2, says=("its client does not read", "s after the time of"), first=17)
def a_client_that_does_not_read_holds_its_turn_until_the_write_limit() -> Iterator[None]:
    with replaced((writing, "CANCELLED_WRITE_TIMEOUT", 3600.0)):
        yield
