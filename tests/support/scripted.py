"""Scripts for the scripted provider of `trio_agent.testing`, as the tests of turns write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trio_agent.providers.contract import CallLimits, ModelInfo
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import Usage
from trio_agent.testing import HANG, Script, ScriptedProvider
from trio_agent.testing import ScriptedCall as Call
from trio_agent.testing import text as text

__all__ = ["Call", "HANG", "Script", "Scripted", "answer", "calling", "ending", "text", "tool_call"]


class Scripted(ScriptedProvider):
    """The provider `lab`, with its scripts as arguments."""

    def __init__(
        self,
        *scripts: Script,
        name: str = "lab",
        models: Sequence[ModelInfo] | None = None,
        limits: CallLimits | None = None,
    ) -> None:
        super().__init__(
            scripts or [[]], name=name, models=models or [ModelInfo(id=f"{name}-1")], limits=limits
        )


def ending(
    reason: ev.FinishReason = "stop", *, tokens: tuple[int, int] | None = (10, 5), cost: Any = None
) -> list[ev.CallEvent]:
    """The last batch of an answer, with usage as (input, output) tokens."""
    events: list[ev.CallEvent] = []
    if tokens is not None:
        events.append(ev.UsageReported(Usage(*tokens), cost))
    return [*events, ev.CallFinished(reason)]


def answer(*words: str, **how: Any) -> list[list[ev.CallEvent]]:
    """A whole answer, a batch for each word."""
    return [*(text(word) for word in words), ending(**how)]


def tool_call(call_id: str, name: str, arguments: str = "{}", index: int = 0) -> list[ev.CallEvent]:
    return [ev.ToolCallStarted(index, call_id, name), ev.ToolCallDelta(index, arguments)]


def calling(*calls: tuple[str, str] | tuple[str, str, str], **how: Any) -> list[list[ev.CallEvent]]:
    """An answer that calls tools: `(id, name)` or `(id, name, arguments)` each."""
    batch = [event for index, call in enumerate(calls) for event in tool_call(*call, index=index)]
    return [batch, ending("tool_calls", **how)]
