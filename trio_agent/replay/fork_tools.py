"""The server's tools in a fork: the file's results, or the real tools."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import trio

from trio_agent.recording.format import ToolReturned, ToolStarted
from trio_agent.replay.fork_ending import call_key
from trio_agent.replay.fork_stage import ForkStage
from trio_agent.replay.result import Moment
from trio_agent.replay.tools import result_of
from trio_agent.statemachine.conversation import Tool, ToolCall, ToolResult
from trio_agent.turn.toolbox import ToolBox


class KeptResults:
    """What the file holds of results, by what was called. Equal calls get them in turn, then the last."""

    def __init__(self, moments: Iterable[Moment]) -> None:
        self._calls: dict[str, ToolCall] = {}
        self._results: list[tuple[ToolCall, ToolResult]] = []
        self._given: list[ToolResult] = []
        for moment in moments:
            match moment.value:
                case ToolStarted(tool_call=plain):
                    call = msgspec.convert(plain, ToolCall)
                    self._calls[call.id] = call
                case ToolReturned(result=plain):
                    result = result_of(plain)
                    if result.tool_call_id in self._calls:
                        self._results.append((self._calls[result.tool_call_id], result))
                case _:
                    pass

    def take(self, call: ToolCall) -> ToolResult | None:
        """The result of a call of the same tool with the same arguments, as one of this call."""
        same = [result for made, result in self._results if call_key(made) == call_key(call)]
        if not same:
            return None
        fresh = [result for result in same if not any(result is given for given in self._given)]
        result = fresh[0] if fresh else same[-1]
        self._given.append(result)
        return msgspec.structs.replace(result, tool_call_id=call.id)

    def drop(self, call: ToolCall) -> None:
        """The file's own result of a call was used already."""
        self._given += [result for made, result in self._results if made.id == call.id]


class ForkTools:
    """The tools as the player has them, and others once the fork is live.

    Args:
        played: give the file's results when the player feeds them.
        kept: all results of the file.
        real: run instead of looking for results in the file.
    """

    def __init__(self, played: ToolBox, stage: ForkStage, *, kept: KeptResults, real: ToolBox | None) -> None:
        self._played = played
        self._stage = stage
        self._kept = kept
        self._real = real

    @property
    def tools(self) -> Sequence[Tool]:
        return self._played.tools

    async def run(self, call: ToolCall) -> ToolResult:
        if not self._stage.live:
            with trio.CancelScope() as scope:
                # One that the file never answers goes on when the fork is live.
                with self._stage.until_live(scope):
                    result = await self._played.run(call)
                self._kept.drop(call)
                return result
        result_now = await self._run_live(call)
        if result_now is None:
            await trio.sleep_forever()
            raise AssertionError("a fork that was stopped is cancelled")
        return result_now

    async def _run_live(self, call: ToolCall) -> ToolResult | None:
        """The result of a call, or `None` where there is none to be had and the fork ends."""
        if self._real is not None:
            if all(tool.name != call.name for tool in self._real.tools):
                self._stage.end_early(
                    f"The model calls the tool {call.name!r}, which agent.tools of the configuration does "
                    "not name. Add it there."
                )
                return None
            return await self._real.run(call)
        kept = self._kept.take(call)
        if kept is None:
            self._stage.end_early(
                f"The model calls the tool {call.name!r} with {call.arguments:.200}, and the recording holds "
                "no result of such a call. Let the configuration's own tools run with --run-tools."
            )
        return kept


__all__ = ["ForkTools", "KeptResults"]
