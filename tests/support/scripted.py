"""A provider that says what a test tells it to say, and keeps a record of what became of every call."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import trio

from trio_agent.providers.contract import (
    CallLimits,
    ModelInfo,
    Provider,
    ProviderInfo,
    ProviderRequest,
    ProviderResponse,
)
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import Usage

HANG = object()
"""A step that never ends."""

Step: TypeAlias = (
    "Sequence[ev.CallEvent] | BaseException | float | trio.Event | Callable[[Call], Awaitable[Any]] | object"
)
Script: TypeAlias = Sequence[Step]


class Call:
    """One call of the provider, as it went."""

    def __init__(self, request: ProviderRequest) -> None:
        self.request = request
        self.at = trio.current_time()
        self.asked = 0
        """How many batches were asked for."""
        self.closed_at: float | None = None
        """When the stream was closed, on the turn's clock."""

    @property
    def closed(self) -> bool:
        return self.closed_at is not None


class Scripted(Provider):
    """Each call plays the next script; the last one is played again when they run out.

    A step of a script is a batch of events, an exception to raise, seconds to sleep, an event to wait for,
    `HANG`, or an async callable that is given the call.
    """

    def __init__(
        self,
        *scripts: Script,
        name: str = "lab",
        models: Sequence[ModelInfo] | None = None,
        limits: CallLimits | None = None,
    ) -> None:
        self.name = name
        self.scripts = list(scripts)
        self.models = list(models or [ModelInfo(id=f"{name}-1")])
        self.limits = limits or CallLimits()
        self.calls: list[Call] = []

    @property
    def open_calls(self) -> list[Call]:
        return [call for call in self.calls if not call.closed]

    def get_info(self) -> ProviderInfo:
        return ProviderInfo(id=self.name, display_name=self.name)

    async def list_models(self) -> list[ModelInfo]:
        return self.models

    async def complete(self, request: ProviderRequest) -> ProviderResponse:
        raise NotImplementedError("turns stream")

    async def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[ev.CallEvent], None]:
        script = self.scripts[min(len(self.calls), len(self.scripts) - 1)]
        call = Call(request)
        self.calls.append(call)
        try:
            for step in script:
                if isinstance(step, list | tuple):
                    call.asked += 1
                    yield step
                else:
                    await _play(step, call)
        finally:
            call.closed_at = trio.current_time()


async def _play(step: Any, call: Call) -> None:
    if isinstance(step, BaseException):
        await trio.lowlevel.checkpoint()
        raise step
    if isinstance(step, int | float):
        await trio.sleep(step)
    elif isinstance(step, trio.Event):
        await step.wait()
    elif step is HANG:
        await trio.sleep_forever()
    else:
        await step(call)


def text(*words: str) -> list[ev.CallEvent]:
    return [ev.TextDelta(word) for word in words]


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
