"""Deliberate bugs in what is said, counted and remembered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from simulation.kernel import replaced
from simulation.mutation import Send, bug, sinks_sending

from trio_agent.statemachine import Turn, answering, calling
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev
from trio_agent.statemachine import turn as turn_module
from trio_agent.statemachine.memory import Snapshot
from trio_agent.statemachine.table import STREAMING, TRANSITIONS
from trio_agent.turn.journal import Journal
from trio_agent.turn.timers import Timers

# --- 4: all of it, once, in order ---------------------------------------------------------------------


@bug(4, says="the role came twice")
def the_role_is_sent_twice() -> Iterator[None]:
    commit = answering.commit

    def twice(*args: Any) -> Any:
        return [*commit(*args), fx.SendRole()]

    with replaced((answering, "commit", twice)):
        yield


@bug(4, says="it should begin like")
def a_delta_in_a_full_batch_is_dropped() -> Iterator[None]:
    async def send_less(sink: Any, outputs: Any, send: Send) -> None:
        texts = [each for each in outputs if isinstance(each, fx.SendText)]
        await send(sink, [each for each in outputs if len(texts) < 3 or each is not texts[1]])

    with sinks_sending(send_less):
        yield


@bug(4, says="it should begin like")
def reasoning_overtakes_text_of_the_same_batch() -> Iterator[None]:
    async def send_sorted(sink: Any, outputs: Any, send: Send) -> None:
        places = [i for i, each in enumerate(outputs) if isinstance(each, fx.SendText | fx.SendReasoning)]
        ordered = sorted(
            (outputs[i] for i in places), key=lambda each: not isinstance(each, fx.SendReasoning)
        )
        outputs = list(outputs)
        for place, output in zip(places, ordered, strict=True):
            outputs[place] = output
        await send(sink, outputs)

    with sinks_sending(send_sorted):
        yield


@bug(4, says="a piece was held back", first=3)
def text_is_held_back_until_the_next_batch() -> Iterator[None]:
    async def send_late(sink: Any, outputs: Any, send: Send) -> None:
        held = getattr(sink, "held", [])
        last = outputs[-1]
        ends = isinstance(last, fx.Finish | fx.SendError | fx.Reject | fx.SendKeepalive)
        sink.held = [] if ends or not isinstance(last, fx.SendText) else [last]
        outputs = [*held, *(outputs[:-1] if sink.held else outputs)]
        if outputs:
            await send(sink, outputs)

    with sinks_sending(send_late):
        yield


@bug(4, says="had begun to answer")
def another_model_goes_on_after_content() -> Iterator[None]:
    rows = dict(TRANSITIONS)
    rows[STREAMING] = {**rows[STREAMING], ev.CallFailed: (*rows[STREAMING][ev.CallFailed], STREAMING)}
    with replaced((calling, "STREAMING", None), (turn_module, "TRANSITIONS", rows)):
        yield


@bug(4, says="the head came after")
def the_preflight_window_never_ends() -> Iterator[None]:
    set_timer = Timers.set

    def set_others(timers: Any, timer: ev.Timer, seconds: float) -> None:
        if timer is not ev.Timer.PREFLIGHT:
            set_timer(timers, timer, seconds)

    with replaced((Timers, "set", set_others)):
        yield


# --- 5: every token, once -----------------------------------------------------------------------------


@bug(5, says="its calls' sum is", first=4)
def the_usage_of_a_call_that_failed_is_lost() -> Iterator[None]:
    record = Journal.record_call

    def record_successes(journal: Any, effect: Any) -> None:
        if effect.failure is None:
            record(journal, effect)

    with replaced((Journal, "record_call", record_successes)):
        yield


@bug(5, says="its calls' sum is")
def the_usage_of_a_resumed_turn_is_doubled() -> Iterator[None]:
    restore = Turn.__dict__["restore"].__func__

    def restore_twice(cls: Any, snapshot: bytes, spec: Any = None) -> Any:
        turn = restore(cls, snapshot, spec)
        if spec is not None:
            total = turn._memory.total
            total.usage = total.usage + total.usage
        return turn

    with replaced((Turn, "restore", classmethod(restore_twice))):
        yield


@bug(5, says=", as turn_")
def a_call_costs_what_the_call_before_it_cost() -> Iterator[None]:
    start = calling._start_call

    def start_unwashed(spec: Any, memory: Any) -> Any:
        reported = memory.reported
        effects = start(spec, memory)
        memory.reported = reported
        return effects

    with replaced((calling, "_start_call", start_unwashed)):
        yield


# --- 6: a stored turn is the same turn ----------------------------------------------------------------


@bug(6, says="is missing", first=9)
def a_snapshot_loses_the_results_of_server_tools() -> Iterator[None]:
    snapshot = Turn.snapshot

    def forgetful(turn: Any) -> bytes:
        stored = msgspec.json.decode(snapshot(turn), type=Snapshot)
        for message in stored.memory.said:
            if message.role == "tool":
                stored.memory.said.remove(message)
                break
        return msgspec.json.encode(stored)

    with replaced((Turn, "snapshot", forgetful)):
        yield


@bug(0, says="has not begun", first=17)
def a_restored_turn_has_forgotten_the_running_answer() -> Iterator[None]:
    snapshot = Turn.snapshot

    def forgetful(turn: Any) -> bytes:
        stored = msgspec.json.decode(snapshot(turn), type=Snapshot)
        if stored.memory.answer.calls:
            stored.memory.answer.calls.clear()
        return msgspec.json.encode(stored)

    with replaced((Turn, "snapshot", forgetful)):
        yield
