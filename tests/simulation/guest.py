"""Programs that embed the agent: they live in the server's process, and their turns wait alive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio
from simulation.chronicle import Chronicle
from simulation.client import result_of
from simulation.reading import Got, Response
from simulation.scenario import Ask, Client, Leave
from simulation.server import Server
from simulation.tools import perform
from simulation.wires import HOST_TOOL

from trio_agent.agent import Agent
from trio_agent.embedding import TurnFinished
from trio_agent.errors import AgentError
from trio_agent.statemachine import events as ev


class LiveResponse(Response):
    """What a program was told of its turn, in the terms of a client's response."""

    live = True
    streamed = True
    headers: dict[str, str] = {}  # noqa: RUF012 - stands for a property; each one gets its own
    whole = False
    started = True

    @property
    def status(self) -> int:
        return 200 if self.headers else 0

    def take(self, event: Any) -> None:
        """Note one event of the turn."""
        match event:
            case ev.TextDelta(text):
                self.text += text
                self._note("text", text)
            case ev.RefusalDelta(text):
                self.refusal += text
                self._note("refusal", text)
            case ev.ReasoningDelta(text):
                self.reasoning += text
                self._note("reasoning", text)
            case ev.ToolCallStarted(_, call_id, name):
                self.calls.append(Got(call_id, name))
                self._note("call", f"{call_id} {name}")
            case ev.ToolCallDelta(_, arguments):
                self._note("arguments", arguments)
            case TurnFinished(reason, usage):
                self._terminate()
                self.finish = reason
                self.usage = {"prompt_tokens": usage.input_tokens, "completion_tokens": usage.output_tokens}
            case _:
                pass

    def fail(self, error: AgentError) -> None:
        self._terminate()
        self.error = {"code": error.code, **error.extra}

    def _terminate(self) -> None:
        if self.whole:
            self._wrong(3, "the turn ended twice")
        self.whole = True
        self.told_at = trio.current_time()

    def end(self, how: str) -> None:
        self.ended, self.ended_at = how, trio.current_time()


async def look(k: str, s: float, how: str, p: int = 0) -> Any:
    """A tool of the embedding program's. The model says how long it takes, and how it ends."""
    return await perform(k, s, how, p, result_of(f"call_{k}"))


def _leaves(group: BaseExceptionGroup[AgentError]) -> list[AgentError]:
    found: list[AgentError] = []
    for each in group.exceptions:
        found += _leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
    return found


look.__name__ = HOST_TOOL


class Guest:
    """One embedding program of the scenario: it asks for its turns one after the other."""

    def __init__(
        self,
        name: str,
        plan: Client,
        server: Server,
        chronicle: Chronicle,
        asked: Callable[[Response], None],
        told: Callable[[Response], None],
    ) -> None:
        self._name = name
        self._plan = plan
        self._server = server
        self._chronicle = chronicle
        self._asked = asked
        self._told = told
        self.responses: list[Response] = []

    async def run(self) -> None:
        await trio.sleep(self._plan.start)
        for ask in self._plan.asks:
            await trio.sleep(ask.wait)
            response = LiveResponse(ask, ask.name, f"{self._name} {ask.name}", self._chronicle.violate)
            self.responses.append(response)
            self._asked(response)
            self._chronicle.note(self._name, f"asks {response.name}")
            if not await self._server.host(lambda agent, r=response: self._turn(agent, r)):
                response.end("cut")
            said = f"{response.ended}, {response.finish or (response.error or {}).get('code')}"
            self._chronicle.note(self._name, f"{response.name}: {said}, turn {response.turn_id}")

    async def _turn(self, agent: Agent, response: LiveResponse) -> None:
        ask = response.ask
        leave = ask.leave or Leave()
        try:
            with trio.move_on_after(float("inf") if leave.after is None else leave.after) as staying:
                await self._read(agent, ask, response, leave)
            if staying.cancelled_caught:
                response.end("left")
            else:
                response.end("whole" if response.whole else "left")
        except* AgentError as errors:  # in a group where the process ends in the same moment
            (error,) = _leaves(errors)
            response.fail(error)
            self._told(response)
        finally:
            if not response.ended:
                response.end("whole" if response.error else "cut")  # cut: the process ends

    async def _read(self, agent: Agent, ask: Ask, response: LiveResponse, leave: Leave) -> None:
        named = (
            {"role": ask.model.removeprefix("role:")}
            if ask.model.startswith("role:")
            else {"model": ask.model}
        )
        tools = {HOST_TOOL: look} if ask.tools else {}
        async with agent.turn(f"⟦{ask.name}⟧", host_tools=tools, session_id=response.name, **named) as turn:
            response.headers = {"x-turn-id": turn.id}
            async for event in turn:
                response.take(event)
                if response.whole:
                    self._told(response)
                if leave.pieces is not None and len(response.pieces) >= leave.pieces:
                    for _ in range(leave.passes):
                        await trio.lowlevel.checkpoint()
                    return
