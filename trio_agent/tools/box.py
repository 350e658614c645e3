"""The server-side tools of one agent: found by name, run by call."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any

from msgspec import Struct

from trio_agent.statemachine.conversation import Tool, ToolCall, ToolResult
from trio_agent.tools.python import PythonTool, ToolDefinitionError, failed, python_tool

GROUP = "trio_agent.tools"


class ToolProblem(Struct, frozen=True):
    """Why a tool of the configuration cannot be had, and what to do about it."""

    name: str
    message: str
    remedy: str


class PythonToolBox:
    """Tools by the names that the model uses."""

    def __init__(self, tools: Iterable[PythonTool] = ()) -> None:
        self._tools = {tool.tool.name: tool for tool in tools}

    @property
    def tools(self) -> Sequence[Tool]:
        return [tool.tool for tool in self._tools.values()]

    async def run(self, call: ToolCall) -> ToolResult:
        tool = self._tools.get(call.name)
        if tool is None:
            known = ", ".join(sorted(self._tools)) or "none"
            return failed(call, f"There is no tool named {call.name!r}. The tools here are: {known}.")
        return await tool.run(call)


def _installed(names: Sequence[str]) -> dict[str, str]:
    """The entry points that installed distributions declare, if one of the names can be one."""
    # The files of every distribution would be read, which takes a good part of a start.
    if all(":" in name for name in names):
        return {}
    return {each.name: each.value for each in entry_points(group=GROUP)}


def load_tools(
    names: Sequence[str], *, timeout: float, installed: Mapping[str, str] | None = None
) -> tuple[list[PythonTool], list[ToolProblem]]:
    """The tools that the configuration names, and the problems of those that cannot be had.

    Args:
        names: entry points of the group `trio_agent.tools`, or `package.module:callable`.
        timeout: seconds that one call may take.
        installed: entry points by name; by default those of the installed distributions.
    """
    known = _installed(names) if installed is None else installed
    tools: list[PythonTool] = []
    problems: list[ToolProblem] = []
    for name in names:
        target = name if ":" in name else known.get(name)
        if target is None:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            problems.append(
                ToolProblem(
                    name,
                    f"No installed package offers a tool named {name!r}.",
                    f"{hint}Install the package that declares it under the entry-point group {GROUP}, "
                    "or name the callable as package.module:function.",
                )
            )
            continue
        try:
            tool = python_tool(_load(target), timeout=timeout, name=None if ":" in name else name)
        except ToolDefinitionError as error:
            problems.append(
                ToolProblem(name, str(error), "Change the callable, or take it out of agent.tools.")
            )
        except (Exception, SystemExit) as error:  # noqa: BLE001 - somebody's module may raise anything
            problems.append(
                ToolProblem(
                    name,
                    f"{target} cannot be imported: {type(error).__name__}: {error}",
                    "Check the spelling, and that the package is installed in this environment.",
                )
            )
        else:
            if any(each.tool.name == tool.tool.name for each in tools):
                problems.append(
                    ToolProblem(
                        name, f"Two tools are named {tool.tool.name!r}.", "Give one of them another name."
                    )
                )
            tools.append(tool)
    return tools, problems


def _load(target: str) -> Callable[..., Any]:
    module, _, path = target.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    function: Callable[..., Any] = found
    return function
