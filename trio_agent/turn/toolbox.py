"""What the driver needs of tools: contracts, handed in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from trio_agent.statemachine.conversation import Tool, ToolCall, ToolResult


class ToolBox(Protocol):
    """The server-side tools."""

    @property
    def tools(self) -> Sequence[Tool]:
        """What the model is told of them."""

    async def run(self, call: ToolCall) -> ToolResult:
        """Run one call, under the tool's time limit.

        A tool that fails, takes too long or does not exist gives a result that says so; nothing but a
        cancellation is ever raised.
        """


class HostTools(Protocol):
    """The host's own tools, for a turn that waits alive."""

    async def call(self, call: ToolCall) -> ToolResult:
        """The host's answer to one call. Failures are results, as for `ToolBox.run`."""
