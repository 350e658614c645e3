"""Deliberate bugs: small changes to the machine, each of which breaks one promise that it makes.

A mutation is put in where the machine looks a name up: in the module that uses it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from unittest import mock

from trio_agent.statemachine import Turn, answering, calling, ending, table, timers, tools, turn
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.memory import Memory
from trio_agent.statemachine.tally import Tally

T = ev.Timer
Wrap = Callable[[Any], Any]


@dataclass(frozen=True)
class Mutation:
    """`make` gets what stands at `name` of `where`, and returns what is to stand there instead."""

    title: str
    where: Any
    name: str
    make: Wrap

    def applied(self) -> AbstractContextManager[Any]:
        return mock.patch.object(self.where, self.name, self.make(getattr(self.where, self.name)))


def _handler(kind: type, make: Wrap) -> tuple[Any, str, Wrap]:
    """A change to what the turn does on one kind of event."""
    return turn, "_HANDLERS", lambda handlers: {**handlers, kind: make(handlers[kind])}


def _first(change: Callable[[Any, Memory, Any], object]) -> Wrap:
    """Something happens before what should."""

    def make(handle: Callable[..., Any]) -> Callable[..., Any]:
        def mutant(spec: Any, memory: Memory, event: Any) -> Any:
            change(spec, memory, event)
            return handle(spec, memory, event)

        return mutant

    return make


def _asks(change: Callable[[list[Any]], Iterable[Any]]) -> Wrap:
    """What is asked for is changed."""
    return lambda function: lambda *args, **more: list(change(function(*args, **more)))


def _without(*kinds: Any) -> Wrap:
    return _asks(lambda effects: [each for each in effects if not isinstance(each, kinds)])


def _without_timer(timer: ev.Timer) -> Wrap:
    set_or_cleared = (fx.SetTimer, fx.ClearTimer)
    return _asks(lambda asked: [e for e in asked if not (isinstance(e, set_or_cleared) and e.timer is timer)])


def _restored(change: Callable[[Memory], object]) -> tuple[Any, str, Wrap]:
    """A snapshot loses something."""

    def make(restore: Callable[..., Turn]) -> Any:
        def mutant(_cls: type[Turn], snapshot: bytes, spec: Any = None) -> Turn:
            restored = restore(snapshot, spec)
            change(restored._memory)
            return restored

        return classmethod(mutant)

    return Turn, "restore", make


def _keeps(*names: str) -> Wrap:
    """Something that should change does not."""

    def make(function: Callable[..., Any]) -> Callable[..., Any]:
        def mutant(spec: Any, memory: Memory, *args: Any, **more: Any) -> Any:
            before = {name: getattr(memory, name) for name in names}
            before = {
                name: Tally(**_fields(old)) if isinstance(old, Tally) else old for name, old in before.items()
            }
            effects = function(spec, memory, *args, **more)
            for name, old in before.items():
                setattr(memory, name, old)
            return effects

        return mutant

    return make


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__struct_fields__}


def _one_more_call(limit_reached: Callable[..., Any]) -> Callable[..., Any]:
    return lambda spec, memory: (
        None if memory.call == spec.limits.model_calls > 0 else limit_reached(spec, memory)
    )


def _one_call_less(limit_reached: Callable[..., Any]) -> Callable[..., Any]:
    def mutant(spec: Any, memory: Memory) -> Any:
        memory.call += 1
        problem = limit_reached(spec, memory)
        memory.call -= 1
        return problem

    return mutant


def _to_the_last_cent(cost_reached: Callable[..., Any]) -> Callable[..., Any]:
    return lambda spec, memory: (
        None if memory.total.known_cost_usd == spec.limits.cost_usd else cost_reached(spec, memory)
    )


def _late_sign(spec: Any, memory: Memory, _event: Any) -> None:
    memory.silent = False


def _adds_reports(handle: Callable[..., Any]) -> Callable[..., Any]:
    def mutant(spec: Any, memory: Memory, event: ev.UsageReported) -> Any:
        before = memory.reported
        effects = handle(spec, memory, event)
        if before is not None:
            memory.reported = before + event.usage
        return effects

    return mutant


def _drops_second_fragments(handle: Callable[..., Any]) -> Callable[..., Any]:
    def mutant(spec: Any, memory: Memory, event: ev.ToolCallDelta) -> Any:
        effects = handle(spec, memory, event)
        fragments = memory.answer.calls[event.index].fragments
        if len(fragments) == 2:
            fragments.pop()
        return effects

    return mutant


def _in_order_of_arrival(close_round: Callable[[Memory], None]) -> Callable[[Memory], None]:
    def mutant(memory: Memory) -> None:
        memory.round_calls.sort(key=lambda call: list(memory.finished).index(call.id))
        close_round(memory)

    return mutant


def _swapped(kind: Any, other: Any) -> Wrap:
    """Two neighbours trade places."""

    def change(effects: list[Any]) -> list[Any]:
        for index, (one, two) in enumerate(pairwise(effects)):
            if isinstance(one, kind) and isinstance(two, other):
                effects[index : index + 2] = [two, one]
                break
        return effects

    return _asks(change)


def _lacks_pair(transitions: Any) -> Any:
    row = transitions[table.ROLE_CHUNK]
    rest = {kind: targets for kind, targets in row.items() if kind is not ev.UsageReported}
    return {**transitions, table.ROLE_CHUNK: rest}


def _has_one_pair_more(transitions: Any) -> Any:
    row = {**transitions[table.HOST_TOOL_WAIT], ev.TurnTimerFired: (table.ERROR,)}
    return {**transitions, table.HOST_TOOL_WAIT: row}


def _only_named(spec: Any, name: str) -> bool:
    return name in spec.host_tools


def _twice(kind: Any) -> Wrap:
    return _asks(
        lambda asked: [each for one in asked for each in ([one, one] if isinstance(one, kind) else [one])]
    )


def _unrepeatable(retry_delay: Callable[..., Any]) -> Callable[..., Any]:
    def mutant(*args: Any, **more: Any) -> float | None:
        delay = retry_delay(*args, **more)
        return None if delay is None else delay * random.uniform(0.999, 1.0)

    return mutant


def _after_the_window(retry_delay: Callable[..., Any]) -> Callable[..., Any]:
    return lambda failure, **more: retry_delay(failure, **(more | {"window_left": 1e9}))


def _round_and_round(next_candidate: Callable[..., Any]) -> Callable[..., Any]:
    def mutant(failures: Any, candidates: Any, current: int, *, priced: bool) -> int | None:
        following = next_candidate(failures, candidates, current, priced=priced)
        return 0 if following is None and current > 0 else following

    return mutant


def _keeps_what_was_said(go_back: Callable[..., None]) -> Callable[..., None]:
    def mutant(memory: Memory, parked: Any) -> None:
        said = list(memory.said)
        go_back(memory, parked)
        memory.said = said

    return mutant


def _rejects(asked: list[Any]) -> list[Any]:
    return [fx.Reject(each.problem) if isinstance(each, fx.SendError) else each for each in asked]


def _counts_anew(_spec: Any, memory: Memory, _event: Any) -> None:
    memory.call = 0


MUTATIONS = [
    # limits
    Mutation("one model call too many", calling, "_limit_reached", _one_more_call),
    Mutation("one model call too few", calling, "_limit_reached", _one_call_less),
    Mutation("a cost limit is passed at its border", calling, "_cost_reached", _to_the_last_cent),
    Mutation("a resumed turn counts its calls anew", *_handler(ev.Resume, _first(_counts_anew))),
    # usage and money
    Mutation("a cancelled call costs nothing", ending, "record_call", _keeps("total")),
    Mutation("a failed call costs the response nothing", calling, "record_call", _keeps("response")),
    Mutation("a call that never began is counted", ending, "forget_unbegun", lambda _: lambda memory: None),
    Mutation("a response has the sums of the one before", *_handler(ev.Resume, _keeps("response"))),
    Mutation("reports of usage are added up", *_handler(ev.UsageReported, _adds_reports)),
    # the order of what goes out
    Mutation("the role comes before the commit", answering, "commit", _swapped(fx.Commit, fx.SendRole)),
    Mutation("the client hears of the end first", answering, "done", _asks(reversed)),
    Mutation("a committed response is rejected", timers, "fail", _asks(_rejects)),
    Mutation("a committed response is put back", answering, "commit", _keeps("parked_as")),
    Mutation("what a failed attempt said is shown", calling, "forget_call", lambda _: lambda memory: None),
    # what must end with what
    Mutation("a call outlives its turn", ending, "fail", _without(fx.StopCall)),
    Mutation("a stall limit outlives its call", *_handler(ev.CallFinished, _without_timer(T.STALL))),
    Mutation("only one keepalive", *_handler(ev.KeepaliveTimerFired, _without_timer(T.KEEPALIVE))),
    Mutation(
        "no time limit after the caller's tools", *_handler(ev.HostToolsReturned, _without_timer(T.TURN))
    ),
    # the conversation and its tools
    Mutation("every second fragment is lost", *_handler(ev.ToolCallDelta, _drops_second_fragments)),
    Mutation("results in order of arrival", tools, "_close_round", _in_order_of_arrival),
    Mutation("a tool is run twice", answering, "start_round", _twice(fx.RunTool)),
    Mutation("an unknown tool is run here", tools, "is_hosts", lambda _: _only_named),
    Mutation("what was put back was said", ending, "_go_back", _keeps_what_was_said),
    # retries and fallbacks
    Mutation("a retry after the window", calling, "retry_delay", _after_the_window),
    Mutation("a failed candidate has another chance", calling, "next_candidate", _round_and_round),
    Mutation("a pause that nobody can repeat", calling, "retry_delay", _unrepeatable),
    # refusals and the table
    Mutation("a refused fragment leaves a trace", *_handler(ev.ToolCallDelta, _first(_late_sign))),
    Mutation("a pair is missing", turn, "TRANSITIONS", _lacks_pair),
    Mutation("a pair too many", turn, "TRANSITIONS", _has_one_pair_more),
    # snapshots
    Mutation("a snapshot loses what is held back", *_restored(lambda memory: memory.held.clear())),
    Mutation("a snapshot loses the attempt", *_restored(lambda memory: setattr(memory, "attempt", 0))),
    Mutation("a snapshot loses the open words", *_restored(lambda memory: memory.answer._reset())),
    Mutation("a snapshot loses the way back", *_restored(lambda memory: setattr(memory, "parked_as", None))),
]
