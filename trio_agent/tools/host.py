"""The host's callables, for an embedding program whose turns wait alive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any

from trio_agent.statemachine.conversation import Tool, ToolCall, ToolResult
from trio_agent.tools.python import PythonTool, failed, python_tool


class HostCallables:
    """Callables by name. Their time limit is the turn's own (`host_tool_ttl`), so they have none here."""

    def __init__(self, callables: Mapping[str, Callable[..., Any]]) -> None:
        self._tools: dict[str, PythonTool] = {
            name: python_tool(function, timeout=inf, name=name) for name, function in callables.items()
        }

    @property
    def tools(self) -> list[Tool]:
        return [tool.tool for tool in self._tools.values()]

    async def call(self, call: ToolCall) -> ToolResult:
        tool = self._tools.get(call.name)
        if tool is None:
            return failed(call, f"There is no tool named {call.name!r}.")
        return await tool.run(call)
