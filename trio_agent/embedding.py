"""A turn inside another Trio program: a context manager to live in, an iterator to read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import trio
from msgspec import Struct

from trio_agent.admission import Admitted
from trio_agent.errors import AgentError, error_of
from trio_agent.nursery import open_plain_nursery
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.conversation import Message, Text, Usage
from trio_agent.statemachine.events import (
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)
from trio_agent.statemachine.failure import Problem
from trio_agent.store.contract import TurnRow
from trio_agent.turn.request import TurnRequest
from trio_agent.turn.sink import SinkClosedError
from trio_agent.turn.toolbox import HostTools

if TYPE_CHECKING:
    from trio_agent.agent import Agent


class TurnFinished(Struct, frozen=True):
    """The turn's answer is complete. Usage and cost (USD, `None` if unknown) are the whole turn's."""

    finish_reason: FinishReason
    usage: Usage
    cost_usd: Decimal | None


TurnEvent: TypeAlias = (
    TextDelta
    | RefusalDelta
    | ReasoningDelta
    | ToolCallStarted
    | ToolCallDelta
    | fx.SendToolProgress
    | TurnFinished
)


class LiveTurn:
    """A running turn, as its host sees it.

    Iterating gives its events as they come and ends after `TurnFinished`; a turn that ends in any other way
    raises its AgentError from the iteration. A host that reads slowly slows the model. `row` is the turn's
    row in the store, once the turn has ended.
    """

    def __init__(self, admitted: Admitted, events: trio.MemoryReceiveChannel[TurnEvent | AgentError]) -> None:
        self.id = admitted.turn_id
        self.model = admitted.model
        self.notes = admitted.notes
        self.finished: TurnFinished | None = None
        self.row: TurnRow | None = None
        self._events = events

    def __aiter__(self) -> LiveTurn:
        return self

    async def __anext__(self) -> TurnEvent:
        try:
            event = await self._events.receive()
        except trio.EndOfChannel:
            if self.finished is None:
                # The host was too slow to be told before the turn's time was up.
                raise _failure_of(self.row) from None
            raise StopAsyncIteration from None
        if isinstance(event, AgentError):
            raise event
        if isinstance(event, TurnFinished):
            self.finished = event
        return event

    async def text(self) -> str:
        """Read the turn to its end and return the answer's text. Raises its AgentError if it fails."""
        words = [event.text async for event in self if isinstance(event, TextDelta)]
        return "".join(words)

    @staticmethod
    def conversation(messages: str | Sequence[Message]) -> tuple[Message, ...]:
        """One user message's text, or the messages as they are."""
        return (Message("user", (Text(messages),)),) if isinstance(messages, str) else tuple(messages)


def _failure_of(row: TurnRow | None) -> AgentError:
    """Why a turn ended without a whole answer, as its row has it."""
    if row is not None and row.error is not None:
        return error_of(msgspec.convert(row.error, Problem))
    reason = "it has been cancelled" if row is None else f"{row.outcome}, {row.reason}"
    return AgentError("turn_cancelled", f"The turn ended before its answer was complete: {reason}.")


class _ChannelSink:
    """Hands a turn's outputs to its host."""

    def __init__(self, send: trio.MemorySendChannel[TurnEvent | AgentError]) -> None:
        self._send = send

    async def send(self, outputs: Sequence[fx.Output]) -> None:
        try:
            for output in outputs:
                event = _event_of(output)
                if event is not None:
                    await self._send.send(event)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise SinkClosedError from None


def _event_of(output: fx.Output) -> TurnEvent | AgentError | None:
    match output:
        case fx.SendText(text):
            return TextDelta(text)
        case fx.SendRefusal(text):
            return RefusalDelta(text)
        case fx.SendReasoning(text):
            return ReasoningDelta(text)
        case fx.SendToolCall(index, call_id, name):
            return ToolCallStarted(index, call_id, name)
        case fx.SendToolArguments(index, arguments):
            return ToolCallDelta(index, arguments)
        case fx.SendToolProgress():
            return output
        case fx.Finish(finish_reason, usage, cost_usd):
            return TurnFinished(finish_reason, usage, cost_usd)
        case fx.Reject(problem) | fx.SendError(problem):
            return error_of(problem)
        case _:
            return None


@asynccontextmanager
async def live_turn(agent: Agent, request: TurnRequest, host: HostTools) -> AsyncIterator[LiveTurn]:
    """Run a turn beside the block; leaving the block, by any door, ends it and waits for its outcome."""
    with agent.held() as agent, agent.slots.slot("embedded") as slot:
        context = agent.context()
        context.embedded_request(request)
        admitted = await agent.admit(request, host, context=context, slot=slot)
        send, receive = trio.open_memory_channel[TurnEvent | AgentError](0)
        async with open_plain_nursery() as nursery:
            turn = LiveTurn(admitted, receive)

            async def run() -> None:
                with send:
                    turn.row = await agent.run(admitted, context.sink(_ChannelSink(send)))

            nursery.start_soon(run)
            with receive:
                yield turn
            nursery.cancel_scope.cancel()


__all__ = ["LiveTurn", "TurnEvent", "TurnFinished", "live_turn"]
