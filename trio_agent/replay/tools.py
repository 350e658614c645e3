"""Tools in a replay: their results come from the file; the real ones may run beside it, to be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Self, TypeAlias

import msgspec
import trio

from trio_agent.config.schema import Config
from trio_agent.recording.format import Header, HostReturned, ToolReturned
from trio_agent.replay.house import converted
from trio_agent.replay.inbox import Inbox
from trio_agent.replay.result import ReplayError
from trio_agent.statemachine.conversation import Tool, ToolCall, ToolResult
from trio_agent.tools.box import PythonToolBox, load_tools

Differs: TypeAlias = Callable[[ToolReturned, ToolResult], None]


def result_of(plain: dict[str, Any]) -> ToolResult:
    """A result from a line, whose `content` may be just a text. Raises msgspec.ValidationError."""
    content = plain.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return msgspec.convert({"type": "tool_result", **plain, "content": parts}, ToolResult)


class PlayedTools:
    """The server-side tools, as the model is told of them.

    Args:
        real: run beside the file, if they are there.
        differs: told when a real tool returned something else than the file's line.
    """

    def __init__(
        self,
        tools: Sequence[Tool],
        inbox: Inbox,
        *,
        real: PythonToolBox | None = None,
        differs: Differs | None = None,
    ) -> None:
        self.tools = tools
        self._inbox = inbox
        self._real = real
        self._differs = differs
        self._running: dict[str, trio.Event] = {}

    @classmethod
    def of(cls, header: Header, config: Config, inbox: Inbox, *, name: str, differs: Differs | None) -> Self:
        """The tools that a header tells of, or else those that its configuration names.

        Args:
            differs: `None` where the real tools are not to run.

        Raises:
            ReplayError: a tool that is needed cannot be had here.
        """
        told: list[Tool] = converted(header.tools, list[Tool], f"{name}: tools")
        real = None
        if differs is not None or (config.agent.tools and not told):
            real = _real_tools(config, name)
        return cls(
            told or ([] if real is None else real.tools),
            inbox,
            real=None if differs is None else real,
            differs=differs,
        )

    async def run(self, call: ToolCall) -> ToolResult:
        """The file's result of a call, when it comes."""
        really = None if self._real is None else await self._run_really(self._real, call)
        line = await self._inbox.take(("tool", call.id))
        if not isinstance(line, ToolReturned):
            raise AssertionError(f"the tool call {call.id} was given a {type(line).__name__}")
        result = result_of(line.result)
        if really is not None and really != result and self._differs is not None:
            self._differs(line, really)
        return result

    async def run_out(self) -> None:
        """Wait until every real tool that was started has returned; no time passes meanwhile."""
        while self._running:
            await next(iter(self._running.values())).wait()

    async def _run_really(self, real: PythonToolBox, call: ToolCall) -> ToolResult:
        done = self._running[call.id] = trio.Event()
        try:
            return await _in_real_time(real, call)
        finally:
            del self._running[call.id]
            done.set()


async def _in_real_time(real: PythonToolBox, call: ToolCall) -> ToolResult:
    """Run a tool under a clock of its own, for its time limit and its waits are real ones."""
    token: trio.lowlevel.TrioToken | None = None
    scope = trio.CancelScope()

    async def run() -> ToolResult | None:
        nonlocal token
        token = trio.lowlevel.current_trio_token()
        with scope:
            return await real.run(call)
        return None

    try:
        result = await trio.to_thread.run_sync(trio.run, run, abandon_on_cancel=True)
    except trio.Cancelled:
        if token is not None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(scope.cancel)
        raise
    if result is None:
        raise AssertionError("a tool is only cancelled by whoever waits for it")
    return result


def _real_tools(config: Config, name: str) -> PythonToolBox:
    tools, problems = load_tools(config.agent.tools, timeout=config.agent.tool_timeout)
    if problems:
        told = "; ".join(f"{each.message} {each.remedy}" for each in problems)
        raise ReplayError(f"{name}: agent.tools: {told}")
    return PythonToolBox(tools)


class PlayedHost:
    """The host of an embedded turn."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    async def call(self, call: ToolCall) -> ToolResult:
        line = await self._inbox.take(("host", call.id))
        if not isinstance(line, HostReturned):
            raise AssertionError(f"the host's call {call.id} was given a {type(line).__name__}")
        return result_of(line.result)
