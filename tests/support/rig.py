"""An agent with scripted providers, a sink that remembers, and a look at what is left when a turn is over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from decimal import Decimal
from typing import Any

import trio
from support.memory_store import MemoryStore
from support.scripted import Scripted

from trio_agent.agent import Agent
from trio_agent.boot import House
from trio_agent.config.load import parse_config
from trio_agent.providers.coordinator import MountCoordinator
from trio_agent.providers.credentials import Credentials
from trio_agent.providers.directory import ModelDirectory
from trio_agent.providers.registry import MountedProvider
from trio_agent.setup import Setup
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.conversation import Message, Text, Tool, ToolCall, ToolResult
from trio_agent.statemachine.money import Price
from trio_agent.tools.box import PythonToolBox
from trio_agent.tools.python import python_tool
from trio_agent.turn.request import TurnRequest
from trio_agent.turn.sink import SinkClosedError
from trio_agent.world import CountingWorld

PRICE = Price(input=Decimal("0.01"), output=Decimal("0.1"))


def make_agent(
    *providers: Scripted,
    tools: Sequence[Callable[..., Any]] = (),
    store: Any = None,
    prices: Mapping[str, Price | None] | None = None,
    **config: Any,
) -> Agent:
    """An agent as `open_agent` would wire it, with a store in memory unless another one is given.

    Every model costs `PRICE`, except where `prices` says otherwise by full name.
    """
    world = CountingWorld(clock=trio.current_time)
    parsed = parse_config({"providers": {each.name: {} for each in providers}} | config, {})
    directory = ModelDirectory({each.name: each.models for each in providers})
    mounted = {
        each.name: MountedProvider(
            each.name,
            each,
            each.models,
            MountCoordinator(each.name, resources=AsyncExitStack(), credentials=Credentials({})),
        )
        for each in providers
    }
    timeout = parsed.agent.tool_timeout
    return Agent(
        House(
            Setup(
                parsed,
                mounted,
                directory,
                {ref.full_name: PRICE for ref in directory.listing()} | dict(prices or {}),
                PythonToolBox([python_tool(each, timeout=timeout) for each in tools]),
            ),
            MemoryStore(world.now) if store is None else store,
            world,
        )
    )


class Collector:
    """A client. Remembers every write and when it came.

    Like a socket it notices a cancellation before it writes. `held` blocks it while set to an event;
    `gone_after` makes it leave after so many writes.
    """

    def __init__(self, *, held: trio.Event | None = None, gone_after: int | None = None) -> None:
        self.attempts = 0
        self.writes: list[list[fx.Output]] = []
        self.times: list[float] = []
        self.held = held
        self.gone_after = gone_after

    async def send(self, outputs: Sequence[fx.Output]) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self.attempts += 1
        if self.gone_after is not None and len(self.writes) >= self.gone_after:
            raise SinkClosedError
        if self.held is not None:
            await self.held.wait()
        self.writes.append(list(outputs))
        self.times.append(trio.current_time())

    @property
    def outputs(self) -> list[fx.Output]:
        return [output for write in self.writes for output in write]

    @property
    def text(self) -> str:
        return "".join(output.text for output in self.of(fx.SendText))

    def of(self, kind: type) -> list[Any]:
        return [output for output in self.outputs if type(output) is kind]

    @property
    def kinds(self) -> list[str]:
        """The names of the outputs in order, runs of the same one told once."""
        names = [type(output).__name__ for output in self.outputs]
        return [name for index, name in enumerate(names) if index == 0 or names[index - 1] != name]

    @property
    def last(self) -> fx.Output:
        return self.outputs[-1]

    @property
    def problem(self) -> Any:
        """What the response failed with."""
        (failed,) = self.of(fx.Reject) + self.of(fx.SendError)
        assert self.last is failed
        return failed.problem

    @property
    def committed_by(self) -> str:
        (commit,) = self.of(fx.Commit)
        return str(commit.by)


def user(words: str = "Hello") -> Message:
    return Message("user", (Text(words),))


def said(words: str = "", *calls: ToolCall) -> Message:
    """An assistant's message, as a client gives it back."""
    return Message("assistant", (*((Text(words),) if words else ()), *calls))


def result(call_id: str, words: str = "42") -> Message:
    return Message("tool", (ToolResult(call_id, (Text(words),)),))


def request(*messages: Message, **fields: Any) -> TurnRequest:
    defaults: dict[str, Any] = {"face": "chat", "model": "lab-1", "stream": True}
    return TurnRequest(messages=messages or (user(),), **(defaults | fields))


def tool(name: str = "read_file") -> Tool:
    return Tool(name, None, {"type": "object", "properties": {}})


async def respond(agent: Agent, asked: TurnRequest | None = None, sink: Collector | None = None) -> Collector:
    """One response from beginning to end."""
    sink = sink or Collector()
    await agent.run(await agent.admit(asked or request()), sink)
    return sink


def store_of(agent: Agent) -> MemoryStore:
    store = agent.store
    assert isinstance(store, MemoryStore)
    return store


def living_tasks() -> int:
    root = trio.lowlevel.current_root_task()
    waiting = [] if root is None else [root]
    count = 0
    while waiting:
        task = waiting.pop()
        count += 1
        for nursery in task.child_nurseries:
            waiting.extend(nursery.child_tasks)
    return count


@contextmanager
def no_bugs() -> Iterator[None]:
    """Fails when a turn reports that the server itself has failed."""
    reports: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "the server failed" in record.getMessage():
                reports.append(self.format(record))

    listener = Listener()
    logger = logging.getLogger("trio_agent.turn")
    logger.addHandler(listener)
    try:
        yield
    finally:
        logger.removeHandler(listener)
    assert not reports, reports[0]


@contextmanager
def nothing_left(*providers: Scripted) -> Iterator[None]:
    """Whatever happens inside leaves no task, no open upstream call, and no report of a bug of ours."""
    before = living_tasks()
    with no_bugs():
        yield
    assert living_tasks() == before, "a task was left behind"
    assert not [call for each in providers for call in each.open_calls], "an upstream call was left open"
