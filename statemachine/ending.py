"""How a turn ends: done, failed, cancelled.

Whichever way it is, the outcome is written down first (`CloseTurn`), and then the client is told once, if
there is a client that waits to be told.

A resumed response that fails before it is committed is not the end of its turn. Clients repeat such
requests by themselves, and the results of the server's tools must not be lost with the first attempt. So
the turn is parked as it was (`Repark`), but for what was spent.
"""

from __future__ import annotations

from . import effects as fx
from . import events as ev
from .answer import Answer
from .committing import release
from .failure import Problem
from .memory import Memory, ParkedAs
from .recording import record_call
from .spec import TurnSpec
from .table import DONE, ERROR, HOST_TOOL_WAIT, STREAMING

RETRY_SECONDS = 5.0  # when a client may ask again after the server's own trouble


def done(
    spec: TurnSpec, memory: Memory, reason: ev.FinishReason, stop_sequence: str | None = None
) -> list[fx.Effect]:
    """End the turn with its whole answer."""
    memory.state = DONE
    total = memory.total
    closing = fx.CloseTurn("completed", reason, total.usage, total.usage_source, total.cost_usd)
    return [closing, *finish(spec, memory, reason, stop_sequence)]


def finish(
    spec: TurnSpec, memory: Memory, reason: ev.FinishReason, stop_sequence: str | None = None
) -> list[fx.Effect]:
    """End the response. One that has no content, or is not streamed, is committed only here."""
    effects: list[fx.Effect] = []
    if memory.committed_by is None:
        memory.committed_by = "end"
        memory.parked_as = None
        effects += [fx.Commit("end"), fx.SendRole()]
    effects += release(memory)
    response = memory.response
    effects.append(fx.Finish(reason, response.usage, response.cost_usd, response.usage_source, stop_sequence))
    return effects


def fail(
    spec: TurnSpec,
    memory: Memory,
    problem: Problem | None,
    *,
    outcome: fx.Outcome,
    reason: str,
    drained: bool = False,
    lasting: bool = False,
) -> list[fx.Effect]:
    """End the turn without a whole answer, or go back to the park that its response took.

    `lasting` says that a repeat of the request could only end in the same way. Nobody is told when there is
    no problem to tell (the client left), or when the turn is parked: its response has ended already.
    """
    effects: list[fx.Effect] = []
    told = problem is not None and not is_parked(spec, memory)
    if memory.calling:
        effects += [fx.StopCall(), record_call(spec, memory, drained=drained)]
        memory.calling = False
    total = memory.total
    if memory.parked_as is not None and not lasting:
        _go_back(memory, memory.parked_as)
        effects.append(fx.Repark(reason, total.usage, total.usage_source, total.cost_usd, problem))
    else:
        memory.state = ERROR
        effects.append(
            fx.CloseTurn(outcome, reason, total.usage, total.usage_source, total.cost_usd, problem)
        )
    if problem is not None and told:
        effects.append(_told(memory, problem))
    return effects


def _told(memory: Memory, problem: Problem) -> fx.Effect:
    if memory.committed_by is None:
        return fx.Reject(problem)
    response = memory.response
    return fx.SendError(problem, response.usage, response.cost_usd, response.usage_source)


def _go_back(memory: Memory, parked: ParkedAs) -> None:
    """Forget the response, but for its calls and what they cost."""
    memory.state = HOST_TOOL_WAIT
    memory.parked_as = None
    del memory.said[parked.said :]
    memory.begun = parked.begun
    memory.candidate = parked.candidate
    memory.round_calls, memory.owed = parked.round_calls, parked.owed
    memory.finished, memory.running = parked.finished, {}
    memory.retrying = False
    memory.answer = Answer()
    memory.held, memory.settled = [], 0


def is_parked(spec: TurnSpec, memory: Memory) -> bool:
    return memory.state is HOST_TOOL_WAIT and spec.host == "park"


def forget_unbegun(memory: Memory) -> None:
    """Take back the model call that was asked for and never made. A first attempt gives its number back."""
    if memory.calling and memory.silent:
        memory.calling = False
        if not (memory.attempt or memory.failures):
            memory.call -= 1


def on_cancel(spec: TurnSpec, memory: Memory, event: ev.Cancel) -> list[fx.Effect]:
    if not event.call_begun:
        forget_unbegun(memory)
    problem = None
    if event.reason == "shutdown":
        problem = Problem(
            code="server_shutdown", message="The server is shutting down.", retry_after=RETRY_SECONDS
        )
    elif event.reason == "cancelled":
        problem = Problem(code="turn_cancelled", message="The turn was cancelled.", retryable=False)
    return fail(
        spec,
        memory,
        problem,
        outcome="cancelled",
        reason=event.reason,
        drained=event.drained,
        lasting=event.reason == "cancelled",
    )


def on_server_failed(spec: TurnSpec, memory: Memory, event: ev.ServerFailed) -> list[fx.Effect]:
    if is_parked(spec, memory):
        # The park was not written, so what was to follow it has not happened: the response has not
        # ended, and one that was to be committed at its end has not been committed.
        memory.state = STREAMING
        if memory.committed_by == "end":
            memory.committed_by = None
    elif not event.call_begun:
        forget_unbegun(memory)
    problem = Problem(code=event.code, message=event.message, retry_after=RETRY_SECONDS)
    return fail(spec, memory, problem, outcome="failed", reason=event.code)
