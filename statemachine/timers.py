"""What the turn's timers bring about, but for the one that starts a retry."""

from __future__ import annotations

from . import effects as fx
from . import events as ev
from .calling import call_failed, require_call
from .committing import commit
from .ending import fail, forget_unbegun, is_parked
from .errors import ProtocolViolation
from .failure import Failure, Problem
from .memory import Memory
from .spec import TurnSpec
from .table import ROLE_CHUNK


def on_preflight_timer(spec: TurnSpec, memory: Memory, event: ev.PreflightTimerFired) -> list[fx.Effect]:
    if not spec.stream:
        raise ProtocolViolation(memory.state, event, "a response that is not streamed commits at its end")
    memory.state = ROLE_CHUNK
    return commit(spec, memory, "window")


def on_keepalive_timer(spec: TurnSpec, memory: Memory, event: ev.KeepaliveTimerFired) -> list[fx.Effect]:
    if memory.committed_by is None or is_parked(spec, memory):
        raise ProtocolViolation(memory.state, event, "no response is open to be kept alive")
    return [fx.SendKeepalive(), fx.SetTimer(ev.Timer.KEEPALIVE, spec.limits.keepalive)]


def on_stall_timer(spec: TurnSpec, memory: Memory, event: ev.StallTimerFired) -> list[fx.Effect]:
    require_call(memory, event)
    candidate = memory.serving(spec)
    if memory.silent:
        limit, what = candidate.first_byte_timeout, "no answer began"
    else:
        limit, what = candidate.idle_timeout, "the answer fell silent"
    failure = Failure(kind="stalled", message=f"{what} for {limit:g} s")
    return [fx.StopCall(), *call_failed(spec, memory, failure, event.at)]


def on_turn_timer(spec: TurnSpec, memory: Memory, event: ev.TurnTimerFired) -> list[fx.Effect]:
    if not event.call_begun:
        forget_unbegun(memory)
    problem = Problem(code="turn_timeout", message=f"The turn did not end within {spec.limits.turn:g} s.")
    return fail(spec, memory, problem, outcome="failed", reason="timeout")


def on_host_tool_timer(spec: TurnSpec, memory: Memory, _event: ev.HostToolTimerFired) -> list[fx.Effect]:
    names = ", ".join(sorted({call.name for call in memory.unanswered()}))
    problem = Problem(
        code="turn_timeout",
        message=f"No result came for {names} within {spec.limits.host_tool:g} s.",
        retryable=False,
    )
    return fail(spec, memory, problem, outcome="abandoned", reason="host_tool_timeout")
