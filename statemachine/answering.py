"""The answer of the running model call: each event is folded into it, and shown to the client."""

from __future__ import annotations

from . import effects as fx
from . import events as ev
from .answer import Answer, CallFold
from .calling import require_call
from .committing import commit, release, settle_call, show
from .conversation import ProviderReasoning, RedactedThinking
from .ending import done
from .errors import ProtocolViolation
from .memory import Memory
from .recording import record_call
from .spec import TurnSpec
from .table import PREFLIGHT, STREAMING
from .tools import is_hosts, start_round

MAX_CALLS = 1024
"""Tool calls of one answer; far more than any model makes on purpose."""


def on_text(spec: TurnSpec, memory: Memory, event: ev.TextDelta) -> list[fx.Effect]:
    effects = _content(spec, memory, event)
    memory.answer.say("text", event.text)
    effects.append(fx.SendText(event.text))
    return effects


def on_refusal(spec: TurnSpec, memory: Memory, event: ev.RefusalDelta) -> list[fx.Effect]:
    effects = _content(spec, memory, event)
    memory.answer.say("refusal", event.text)
    effects.append(fx.SendRefusal(event.text))
    return effects


def on_reasoning(spec: TurnSpec, memory: Memory, event: ev.ReasoningDelta) -> list[fx.Effect]:
    effects = _content(spec, memory, event)
    memory.answer.say("thinking", event.text)
    effects.append(fx.SendReasoning(event.text))
    return effects


def on_signed(spec: TurnSpec, memory: Memory, event: ev.ReasoningSigned) -> list[fx.Effect]:
    effects = _sign_of_life(spec, memory, event)
    memory.answer.sign(event.signature)
    return show(memory, fx.SendReasoningSignature(event.signature, memory.serving(spec).origin), effects)


def on_reasoning_ended(spec: TurnSpec, memory: Memory, event: ev.ReasoningEnded) -> list[fx.Effect]:
    effects = _sign_of_life(spec, memory, event)
    if memory.answer.kind != "thinking":
        return effects
    memory.answer.close()
    return show(memory, fx.SendReasoningEnd(), effects)


def on_redacted(spec: TurnSpec, memory: Memory, event: ev.RedactedReasoning) -> list[fx.Effect]:
    effects = _sign_of_life(spec, memory, event)
    memory.answer.add(RedactedThinking(event.data))
    return show(memory, fx.SendRedactedReasoning(event.data, memory.serving(spec).origin), effects)


def on_reasoning_data(spec: TurnSpec, memory: Memory, event: ev.ReasoningData) -> list[fx.Effect]:
    effects = _sign_of_life(spec, memory, event)
    memory.answer.add(ProviderReasoning(event.data))
    return show(memory, fx.SendReasoningData(event.data, memory.serving(spec).origin), effects)


def on_tool_call(spec: TurnSpec, memory: Memory, event: ev.ToolCallStarted) -> list[fx.Effect]:
    require_call(memory, event)
    answer = memory.answer
    if event.index in answer.calls:
        raise ProtocolViolation(memory.state, event, f"call {event.index} has begun already")
    if len(answer.calls) >= MAX_CALLS:
        raise ProtocolViolation(memory.state, event, f"more than {MAX_CALLS} calls in one answer")
    if any(call.id == event.id for call in answer.calls.values()):
        raise ProtocolViolation(memory.state, event, "two calls of one answer bear the same id")
    call = CallFold(event.id, event.name, answer.next_position(), event.provider_data)
    if not is_hosts(spec, event.name):
        answer.start_call(event.index, call)
        return _sign_of_life(spec, memory, event)
    effects = _content(spec, memory, event)
    call.wire_index = memory.host_calls
    memory.host_calls += 1
    answer.start_call(event.index, call)
    effects.append(fx.SendToolCall(call.wire_index, event.id, event.name))
    return effects


def on_tool_arguments(spec: TurnSpec, memory: Memory, event: ev.ToolCallDelta) -> list[fx.Effect]:
    require_call(memory, event)
    call = memory.answer.calls.get(event.index)
    if call is None:
        raise ProtocolViolation(memory.state, event, f"call {event.index} has not begun")
    effects = _sign_of_life(spec, memory, event)
    call.fragments.append(event.arguments)
    if call.wire_index is not None:
        effects.append(fx.SendToolArguments(call.wire_index, event.arguments))
    return effects


def on_usage(spec: TurnSpec, memory: Memory, event: ev.UsageReported) -> list[fx.Effect]:
    effects = _sign_of_life(spec, memory, event)
    memory.reported = event.usage
    if event.cost_usd is not None:
        memory.reported_cost_usd = event.cost_usd
    return effects


def on_call_finished(spec: TurnSpec, memory: Memory, event: ev.CallFinished) -> list[fx.Effect]:
    require_call(memory, event)
    said = memory.answer.message(memory.serving(spec).origin)
    calls = list(said.tool_calls)
    finish = event.finish_reason
    if finish in ("stop", "tool_calls"):
        # Some servers say `stop` where they mean the tool calls that came before it.
        finish = "tool_calls" if calls else "stop"
    effects: list[fx.Effect] = [
        fx.ClearTimer(ev.Timer.STALL),
        record_call(spec, memory, finish_reason=finish, finished=event),
    ]
    memory.said.append(said)
    memory.calling = False
    memory.answer = Answer()
    if finish != "tool_calls":
        return effects + done(spec, memory, finish, event.stop_sequence if finish == "stop" else None)
    return effects + settle_call(spec, memory) + start_round(spec, memory, calls)


def _sign_of_life(spec: TurnSpec, memory: Memory, event: ev.Event) -> list[fx.Effect]:
    """Note an event of the running call; the first one shortens the stall limit to the idle one."""
    if not memory.calling:
        require_call(memory, event)
    if not memory.silent:
        return []
    memory.silent = False
    return [fx.SetTimer(ev.Timer.STALL, memory.serving(spec).idle_timeout)]


def _content(spec: TurnSpec, memory: Memory, event: ev.Event) -> list[fx.Effect]:
    """Note content: it commits a response that is not committed and releases what was held."""
    effects = _sign_of_life(spec, memory, event)
    if memory.state is STREAMING:
        return effects
    if memory.state is PREFLIGHT and spec.stream:
        effects.append(fx.ClearTimer(ev.Timer.PREFLIGHT))
        effects += commit(spec, memory, "content")
    memory.state = STREAMING
    effects += release(memory)
    return effects
