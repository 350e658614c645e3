"""Model calls: whether another one is due, starting it, and what follows when it fails."""

from __future__ import annotations

from . import effects as fx
from . import events as ev
from .answer import Answer
from .committing import forget_call
from .ending import fail
from .errors import ProtocolViolation
from .failure import Failure, Problem
from .memory import Memory
from .recording import record_call
from .recovery import CandidateFailure, next_candidate, problem_of, problem_of_one, reason_of, retry_delay
from .spec import TurnSpec
from .table import PREFLIGHT, STREAMING


def on_begin(spec: TurnSpec, memory: Memory, event: ev.Begin) -> list[fx.Effect]:
    memory.state = PREFLIGHT
    return open_response(spec, memory, event.at)


def open_response(spec: TurnSpec, memory: Memory, at: float) -> list[fx.Effect]:
    """Begin a response in PREFLIGHT with a model call, unless a limit of the turn forbids one."""
    limits = spec.limits
    if limits.cost_usd is not None and memory.serving(spec).price is None:
        priced = (index for index, each in enumerate(spec.candidates) if each.price is not None)
        memory.candidate = next(priced, memory.candidate)
    problem = _limit_reached(spec, memory)
    if problem is not None:
        return _stop_at_limit(spec, memory, problem)
    memory.window_ends = at + limits.preflight
    effects: list[fx.Effect] = [fx.OpenTurn(), fx.SetTimer(ev.Timer.TURN, limits.turn)]
    if spec.stream:
        effects.append(fx.SetTimer(ev.Timer.PREFLIGHT, limits.preflight))
    return effects + next_call(spec, memory)


def next_call(spec: TurnSpec, memory: Memory) -> list[fx.Effect]:
    """Call the model again, unless a limit of the turn is reached."""
    problem = _limit_reached(spec, memory)
    if problem is not None:
        return _stop_at_limit(spec, memory, problem)
    memory.call += 1
    memory.attempt = 0
    return _start_call(spec, memory)


def call_failed(spec: TurnSpec, memory: Memory, failure: Failure, at: float) -> list[fx.Effect]:
    """The running call failed: try it again, turn to the next candidate, or give up.

    After content no other model would go on in the same words, so that failure is the turn's, and it is
    told as the one model's failure that it is.
    """
    candidate = memory.serving(spec)
    effects: list[fx.Effect] = [
        fx.ClearTimer(ev.Timer.STALL),
        record_call(spec, memory, failure=failure),
    ]
    memory.calling = False
    memory.answer = Answer()
    forget_call(memory)
    failed = CandidateFailure(candidate.provider, candidate.model, failure, candidate.context_window)
    if memory.state is STREAMING:
        return effects + fail(
            spec, memory, problem_of_one(failed), outcome="failed", reason=reason_of(failure)
        )
    # In ROLE_CHUNK the window is over, and no retry starts after it.
    if memory.state is PREFLIGHT:
        delay = retry_delay(
            failure,
            attempt=memory.attempt,
            max_retries=candidate.max_retries,
            window_left=memory.window_ends - at,
            seed=spec.seed,
        )
        if delay is not None:
            return effects + _retry_later(spec, memory, delay)
    memory.failures.append(failed)
    following = next_candidate(
        memory.failures, spec.candidates, memory.candidate, priced=spec.limits.cost_usd is not None
    )
    if following is None:
        problem = problem_of(memory.failures, routed=spec.routed)
        return effects + fail(spec, memory, problem, outcome="failed", reason=reason_of(failure))
    spent = _cost_reached(spec, memory)
    if spent is not None:
        return effects + _stop_at_limit(spec, memory, spent)
    memory.candidate = following
    memory.attempt = 0
    return effects + _start_call(spec, memory)


def require_call(memory: Memory, event: ev.Event) -> None:
    """Refuse an event of a model call while none runs."""
    if not memory.calling:
        raise ProtocolViolation(memory.state, event, "no model call is running")


def on_call_failed(spec: TurnSpec, memory: Memory, event: ev.CallFailed) -> list[fx.Effect]:
    require_call(memory, event)
    return call_failed(spec, memory, event.failure, event.at)


def on_retry_timer(spec: TurnSpec, memory: Memory, event: ev.RetryTimerFired) -> list[fx.Effect]:
    if not memory.retrying:
        raise ProtocolViolation(memory.state, event, "no retry is due")
    memory.retrying = False
    return _start_call(spec, memory)


def _start_call(spec: TurnSpec, memory: Memory) -> list[fx.Effect]:
    memory.calling, memory.silent = True, True
    memory.answer = Answer()
    memory.reported = memory.reported_cost_usd = None
    return [
        fx.SetTimer(ev.Timer.STALL, memory.serving(spec).first_byte_timeout),
        fx.StartCall(memory.call, memory.candidate, memory.attempt),
    ]


def _retry_later(spec: TurnSpec, memory: Memory, delay: float) -> list[fx.Effect]:
    spent = _cost_reached(spec, memory)
    if spent is not None:
        return _stop_at_limit(spec, memory, spent)
    memory.attempt += 1
    memory.retrying = True
    return [fx.SetTimer(ev.Timer.RETRY, delay)]


def _limit_reached(spec: TurnSpec, memory: Memory) -> Problem | None:
    limits = spec.limits
    if memory.call >= limits.model_calls:
        return Problem(
            code="max_model_calls",
            message=f"The turn has made {memory.call} model calls; its limit is {limits.model_calls}.",
            retryable=False,
        )
    return _cost_reached(spec, memory)


def _cost_reached(spec: TurnSpec, memory: Memory) -> Problem | None:
    limit, spent = spec.limits.cost_usd, memory.total.known_cost_usd
    if limit is None:
        return None
    serving = memory.serving(spec)
    if serving.price is None:
        return Problem(
            code="budget_exceeded",
            message=f"A cost limit of {limit} USD a turn is set, and the price of {serving.origin} "
            "is not known. Give the model a price in the configuration.",
            provider=serving.provider,
            retryable=False,
        )
    if spent < limit:
        return None
    return Problem(
        code="budget_exceeded",
        message=f"The turn has cost {spent} USD; its limit is {limit} USD.",
        retryable=False,
    )


def _stop_at_limit(spec: TurnSpec, memory: Memory, problem: Problem) -> list[fx.Effect]:
    """End the turn at a limit of its own. One that never called a model was turned away."""
    outcome: fx.Outcome = "failed" if memory.call else "rejected"
    return fail(spec, memory, problem, outcome=outcome, reason=problem.code, lasting=True)
