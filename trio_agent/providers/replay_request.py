"""What the replay provider reads out of a request: a script, the tools to call, the results to answer."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from trio_agent.statemachine.conversation import Message, Text, Tool, ToolResult

from .contract import NamedTool, ProviderRequest
from .replay_steps import ScriptError, Step, parse_script

_SCRIPT_START = re.compile(r'\s*\{\s*"replay"\s*:')


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def last_user(messages: Sequence[Message]) -> int:
    """The index of the last message of the user, -1 without one."""
    users = (
        index for index, message in enumerate(messages) if message.role == "user" and not message.tool_results
    )
    return max(users, default=-1)


def call_number(request: ProviderRequest) -> int:
    """Which model call of its turn this is, from 0: the assistant's messages since the user last spoke."""
    since = request.messages[last_user(request.messages) + 1 :]
    return sum(message.role == "assistant" for message in since)


def request_script(request: ProviderRequest) -> Sequence[Step] | None:
    """The steps that the user's last message prescribes for this call, or `None`.

    A text part of it that begins with `{"replay": …}` is a script; what follows the object is not looked
    at. Raises ScriptError. A script with fewer calls than the turn leaves the rest to the model.
    """
    user = last_user(request.messages)
    if user < 0:
        return None
    for part in request.messages[user].parts:
        if isinstance(part, Text) and _SCRIPT_START.match(part.text):
            try:
                value, _ = _DECODER.raw_decode(part.text.lstrip())
                json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair could not be sent on
            except (ValueError, RecursionError) as error:
                raise ScriptError("replay", f"the JSON cannot be read: {error}") from None
            if set(value) != {"replay"}:
                raise ScriptError("replay", "the object has other keys beside 'replay'")
            calls = parse_script(value["replay"], "replay")
            number = call_number(request)
            return calls[number] if number < len(calls) else None
    return None


def new_results(request: ProviderRequest) -> list[ToolResult]:
    """The tool results that the model is to answer now: those since the assistant last spoke."""
    results: list[ToolResult] = []
    for message in reversed(request.messages):
        if message.role == "assistant":
            break
        results[:0] = message.tool_results
    return results


def chosen_tools(request: ProviderRequest, *, several: bool) -> Sequence[Tool]:
    """The tools to call now; none in answer to results, so that a turn ends."""
    choice = request.options.tool_choice
    if choice == "none" or not request.tools or new_results(request):
        return ()
    if isinstance(choice, NamedTool):
        return [tool for tool in request.tools if tool.name == choice.name]
    return (
        request.tools if several and request.options.parallel_tool_calls is not False else request.tools[:1]
    )
