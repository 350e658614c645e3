"""Calls and their outputs in a Responses conversation: each call has one, and it stands behind its answer.

The format lets an output stand anywhere after its call. Other formats want it right behind the answer that
made the call, so it is put there. A call without an output and an output without a call are refused, by the
call's id.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trio_agent.errors import AgentError
from trio_agent.statemachine.conversation import Message, Part, ToolResult
from trio_agent.wire.responses_input import Said


def paired(said: Sequence[Said]) -> tuple[Said, ...]:
    """The conversation with every call's output right behind the answer that made the call.

    Args:
        said: the whole conversation: what the server kept of it, and what the request brings.

    Raises:
        AgentError: `invalid_tool_results`, naming the call.
    """
    kept: list[Said] = []
    results: dict[int, list[tuple[ToolResult, str]]] = {}
    callers: dict[str, int] = {}
    for each in said:
        rest: list[tuple[Part, str]] = []
        for part, place in zip(each.message.parts, each.parts, strict=True):
            if not isinstance(part, ToolResult):
                rest.append((part, place))
            elif part.tool_call_id in callers:
                results.setdefault(callers[part.tool_call_id], []).append((part, place))
            else:
                raise _refused(
                    f"No tool call found for the tool output with call id {_shown(part.tool_call_id)}.", place
                )
        if not rest and each.message.tool_results:
            continue
        callers |= {call.id: len(kept) for call in each.message.tool_calls}
        kept.append(_with_parts(each, rest))
    return tuple(_with_results(kept, results))


def _with_results(kept: list[Said], results: dict[int, list[tuple[ToolResult, str]]]) -> list[Said]:
    found: list[Said] = []
    for index, each in enumerate(kept):
        found.append(each)
        mine = results.get(index, [])
        answered = {result.tool_call_id for result, _ in mine}
        for call in each.message.tool_calls:
            if call.id not in answered:
                raise _refused(f"No tool output found for function call {_shown(call.id)}.", "input")
        if mine:
            message = Message("tool", tuple(result for result, _ in mine))
            found.append(Said(message, mine[0][1], tuple(place for _, place in mine)))
    return found


def _with_parts(said: Said, placed: Sequence[tuple[Part, str]]) -> Said:
    if len(placed) == len(said.parts):
        return said
    message = msgspec.structs.replace(said.message, parts=tuple(part for part, _ in placed))
    return Said(message, said.place, tuple(place for _, place in placed))


def _shown(call_id: str) -> str:
    return call_id[:80]


def _refused(why: str, place: str) -> AgentError:
    return AgentError("invalid_tool_results", why, param=place)
