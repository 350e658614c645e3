"""The tool calls of one answer: those that run here, those that the caller owes, and what came back."""

from __future__ import annotations

import copy
from collections.abc import Callable

from trio_agent.statemachine.conversation import ToolCall, ToolResult


class Round:
    """`calls` are all of the answer, in its order; `tools` those that run here now, `owed` the caller's
    that have no result yet."""

    def __init__(
        self, calls: tuple[ToolCall, ...] = (), is_hosts: Callable[[str], bool] = lambda _: False
    ) -> None:
        self.calls = calls
        self.owed = tuple(call for call in calls if is_hosts(call.name))
        self.tools = {call.id: call for call in calls if not is_hosts(call.name)}
        self.results: dict[str, ToolResult] = {}

    def copy(self) -> Round:
        other = copy.copy(self)
        other.tools, other.results = self.tools.copy(), self.results.copy()
        return other

    @property
    def over(self) -> bool:
        return not self.tools and not self.owed

    @property
    def in_order(self) -> tuple[ToolResult, ...]:
        """The results in the order of the calls, whoever ran them."""
        return tuple(self.results[call.id] for call in self.calls)

    def are_owed(self, results: tuple[ToolResult, ...]) -> bool:
        """Whether these are results of calls that the caller owes, each once."""
        ids = [result.tool_call_id for result in results]
        return len(set(ids)) == len(ids) and {call.id for call in self.owed}.issuperset(ids)

    def bring(self, results: tuple[ToolResult, ...]) -> None:
        self.results |= {result.tool_call_id: result for result in results}
        self.owed = tuple(call for call in self.owed if call.id not in self.results)

    def end_tool(self, result: ToolResult) -> ToolCall:
        self.results[result.tool_call_id] = result
        return self.tools.pop(result.tool_call_id)
