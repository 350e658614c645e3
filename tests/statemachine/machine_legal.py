"""Which events are legal where a turn stands, judged from outside the machine."""

from __future__ import annotations

from machine_observer import CALL_EVENTS, Observer

from trio_agent.statemachine import events as ev


def is_legal(seen: Observer, event: ev.Event) -> bool:
    """Whether the observed turn has to take the event now; any other one has to be refused."""
    if seen.closed is not None:
        return False
    if not seen.begun:
        return isinstance(event, ev.Begin | ev.Cancel)
    match event:
        case ev.Cancel() | ev.ServerFailed():
            return True
        case ev.HostToolTimerFired():
            return seen.parked or seen.waiting
        case ev.Resume(results):
            return seen.parked and seen.round.are_owed(results) and len(results) == len(seen.round.owed)
        case ev.HostToolsReturned(results):
            return seen.waiting and seen.round.are_owed(results)
        case ev.KeepaliveTimerFired():
            return seen.committed and not seen.parked
    return not (seen.parked or seen.waiting) and _is_legal_in_motion(seen, event)


def _is_legal_in_motion(seen: Observer, event: ev.Event) -> bool:
    """The same for a turn that waits for nobody outside the server."""
    match event:
        case ev.TurnTimerFired():
            return True
        case ev.ToolFinished(result):
            return result.tool_call_id in seen.round.tools
        case ev.PreflightTimerFired():
            return seen.spec.stream and not seen.committed
        case ev.RetryTimerFired():
            return seen.call is None and not seen.round.tools
        case ev.ToolCallStarted(index, call_id):
            taken = index in seen.said.places or call_id in seen.said.call_ids
            return seen.call is not None and not taken
        case ev.ToolCallDelta(index):
            return seen.call is not None and index in seen.said.places
    return seen.call is not None and isinstance(event, (*CALL_EVENTS, ev.CallFailed, ev.StallTimerFired))
