"""Rounds of tools: the calls of one answer, those that run here and those that the caller owes."""

from __future__ import annotations

from . import effects as fx
from . import events as ev
from .calling import next_call, open_response
from .committing import show_settled
from .conversation import Message, ToolCall, ToolResult
from .ending import finish
from .errors import ProtocolViolation
from .memory import Memory, ParkedAs
from .spec import TurnSpec
from .table import HOST_TOOL_WAIT, PREFLIGHT, STREAMING
from .tally import Tally


def is_hosts(spec: TurnSpec, name: str) -> bool:
    """Whether a call goes to the caller: its own tools, and any name nobody knows if it has tools."""
    if name in spec.host_tools:
        return True
    return bool(spec.host_tools) and name not in spec.server_tools


def start_round(spec: TurnSpec, memory: Memory, calls: list[ToolCall]) -> list[fx.Effect]:
    """Run the server-side tools of an answer; the caller's wait until these have ended."""
    memory.round_calls = calls
    memory.finished = {}
    memory.owed = [call for call in calls if is_hosts(spec, call.name)]
    memory.running = {call.id: call for call in calls if not is_hosts(spec, call.name)}
    if not memory.running:
        return _after_server_tools(spec, memory)
    effects: list[fx.Effect] = []
    for call in memory.running.values():
        shown = fx.SendToolProgress(call.id, call.name, "started", arguments=call.arguments)
        effects += show_settled(spec, memory, shown)
        effects.append(fx.RunTool(call))
    return effects


def on_tool_finished(spec: TurnSpec, memory: Memory, event: ev.ToolFinished) -> list[fx.Effect]:
    result = event.result
    if result.tool_call_id not in memory.running:
        raise ProtocolViolation(memory.state, event, "no such tool is running")
    call = memory.running.pop(result.tool_call_id)
    memory.finished[result.tool_call_id] = result
    status: fx.ToolStatus = "failed" if result.is_error else "completed"
    shown = fx.SendToolProgress(call.id, call.name, status, output=result.text)
    effects = show_settled(spec, memory, shown)
    if memory.running:
        return effects
    return effects + _after_server_tools(spec, memory)


def on_host_tools(spec: TurnSpec, memory: Memory, event: ev.HostToolsReturned) -> list[fx.Effect]:
    if spec.host != "wait":
        raise ProtocolViolation(memory.state, event, "a parked turn is resumed")
    _require_owed(memory, event, event.results)
    memory.finished |= {result.tool_call_id: result for result in event.results}
    if memory.unanswered():
        return []
    _close_round(memory)
    memory.state = STREAMING
    return [
        fx.ClearTimer(ev.Timer.HOST_TOOL),
        fx.SetTimer(ev.Timer.TURN, spec.limits.turn),
        *next_call(spec, memory),
    ]


def on_resume(spec: TurnSpec, memory: Memory, event: ev.Resume) -> list[fx.Effect]:
    """Begin a new response of the turn: its own role, usage and indexes, the turn's limits and sums."""
    if spec.host != "park":
        raise ProtocolViolation(memory.state, event, "the turn waits alive")
    _require_owed(memory, event, event.results)
    brought = {result.tool_call_id: result for result in event.results}
    missing = [call.id for call in memory.unanswered() if call.id not in brought]
    if missing:
        raise ProtocolViolation(memory.state, event, f"results are missing for {', '.join(missing)}")
    memory.parked_as = ParkedAs(
        len(memory.said),
        memory.candidate,
        memory.round_calls,
        dict(memory.finished),
        memory.owed,
        memory.begun,
    )
    memory.finished |= brought
    _close_round(memory)
    memory.said.extend(event.messages)
    memory.begun = len(memory.said)
    memory.committed_by = None
    memory.response = Tally()
    memory.host_calls = 0
    memory.failures = []
    memory.state = PREFLIGHT
    return open_response(spec, memory, event.at)


def _require_owed(memory: Memory, event: ev.Event, results: tuple[ToolResult, ...]) -> None:
    ids = [result.tool_call_id for result in results]
    owed = {call.id for call in memory.unanswered()}
    if len(set(ids)) != len(ids) or not owed.issuperset(ids):
        raise ProtocolViolation(memory.state, event, "a result for a call that is not owed")


def _after_server_tools(spec: TurnSpec, memory: Memory) -> list[fx.Effect]:
    """The round's server-side tools have all ended: ask the caller for the rest, or go on."""
    if not memory.owed:
        _close_round(memory)
        return next_call(spec, memory)
    memory.state = HOST_TOOL_WAIT
    calls = tuple(memory.owed)
    if spec.host == "wait":
        return [
            fx.ClearTimer(ev.Timer.TURN),
            fx.SetTimer(ev.Timer.HOST_TOOL, spec.limits.host_tool),
            fx.CallHost(calls),
        ]
    total = memory.total
    park = fx.Park(calls, total.usage, total.usage_source, total.cost_usd)
    return [park, *finish(spec, memory, "tool_calls")]


def _close_round(memory: Memory) -> None:
    """Add the results of this round to the conversation, in the order of the calls."""
    results = tuple(memory.finished[call.id] for call in memory.round_calls)
    memory.said.append(Message("tool", results))
    memory.round_calls, memory.owed, memory.finished = [], [], {}
