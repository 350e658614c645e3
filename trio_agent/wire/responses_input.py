"""Input items of Responses requests, towards our own messages.

The shapes are those of `ResponseInputItemParam` of OpenAI's SDK and of the Open Responses specification.
Where the
format has one item for each thing that was said, we have one message for each who speaks:

- Items of one answer (reasoning, words, calls) become one assistant message, in their order. Reasoning of
  another model begins a new one, for a message has one origin.
- Outputs that follow each other become one tool message.
- An `mcp_call` is a tool of the server's own that ran: a call and its result. Calls that follow it without
  words or reasoning between belong to the same answer.
- Items of tools that a vendor runs are left out, and said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from trio_agent.errors import AgentError
from trio_agent.statemachine.conversation import (
    Image,
    Message,
    Part,
    ProviderReasoning,
    Role,
    Text,
    ToolCall,
    ToolResult,
)
from trio_agent.wire.body import convert
from trio_agent.wire.chat_request import shown_type
from trio_agent.wire.compaction_token import summary_of
from trio_agent.wire.content import content_part
from trio_agent.wire.responses_item_types import HOSTED_ITEMS, Item, type_of, unknown_type
from trio_agent.wire.responses_reasoning import reasoning_of
from trio_agent.wire.responses_tools import Definition, Tools

Content: TypeAlias = str | list[dict[str, Any]] | None

SERVER_LABEL: Final = "trio-agent"
"""The `server_label` of `mcp_call` items that stand for the server's own tools."""


class Said(Struct, frozen=True):
    """A message, where it stood in the request, and where each of its parts did."""

    message: Message
    place: str
    parts: tuple[str, ...]


class Input(Struct, frozen=True):
    """The items of a request as messages. `left_out` are the types of items that are not carried."""

    said: tuple[Said, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


class _Message(Struct):
    role: Literal["user", "assistant", "system", "developer"]
    content: Content = None
    phase: str | None = None


class _Call(Struct):
    """`arguments` of a function, `input` of a custom tool."""

    call_id: str
    name: str
    namespace: str | None = None
    arguments: str = ""
    input: str = ""


class _Output(Struct):
    call_id: str
    output: str | list[dict[str, Any]]


class _McpCall(Struct):
    """`call_id` is a member of ours, by which a parked turn knows its own call again."""

    name: str
    server_label: str
    id: str | None = None
    call_id: str | None = None
    arguments: str = ""
    output: str | None = None
    error: Any = None


class _Compaction(Struct):
    encrypted_content: str


def later_tools(items: Sequence[Item], *, place: str = "input") -> list[tuple[Definition, str]]:
    """The tools that came as input items (`additional_tools`), each with its place.

    Args:
        place: the field that holds the items.
    """
    found: list[tuple[Definition, str]] = []
    for index, item in enumerate(items):
        if item.get("type") != "additional_tools":
            continue
        where = f"{place}[{index}].tools"
        tools = convert(item.get("tools"), list[Definition], where)
        found += [(tool, f"{where}[{number}]") for number, tool in enumerate(tools)]
    return found


def conversation(items: Sequence[Item], tools: Tools, *, max_depth: int, place: str = "input") -> Input:
    """The items of a request as messages.

    Args:
        items: without references; those have been looked up.
        tools: what the items' calls may name.
        max_depth: levels of JSON that may nest inside what a client keeps for us.
        place: the field that holds the items.

    Raises:
        AgentError: with the place in the request as `param`.
    """
    folder = _Folder(tools, max_depth)
    for index, item in enumerate(items):
        folder.take(item, f"{place}[{index}]")
    return folder.done()


class _Folder:
    """Puts items together to messages, in one pass."""

    def __init__(self, tools: Tools, max_depth: int) -> None:
        self._tools = tools
        self._max_depth = max_depth
        self._said: list[Said] = []
        self._left_out: dict[str, None] = {}
        self._notes: dict[str, None] = {}
        self._role: Role | None = None
        self._origin: str | None = None
        self._place = ""
        self._open: list[tuple[Part, str]] = []
        self._ran: list[tuple[ToolResult, str]] = []
        """Results of the server's own tools that the open answer called."""
        self._owed = False
        """Whether the open answer called a tool of the client's. No other answer comes before its output."""

    def done(self) -> Input:
        self._close()
        return Input(tuple(self._said), tuple(self._left_out), tuple(self._notes))

    def take(self, item: Item, place: str) -> None:
        kind = type_of(item, place)
        match kind:
            case "message":
                self._take_message(convert(item, _Message, place), place)
            case "reasoning":
                found = reasoning_of(item, place, max_depth=self._max_depth)
                for part in found.parts:
                    self._answer(part, place, found.origin)
                self._notes |= dict.fromkeys(found.notes)
            case "function_call" | "custom_tool_call":
                self._take_call(convert(item, _Call, place), place, custom=kind == "custom_tool_call")
            case "function_call_output" | "custom_tool_call_output":
                output = convert(item, _Output, place)
                result = ToolResult(output.call_id, _result_content(output.output, f"{place}.output"))
                self._result(result, place)
            case "mcp_call":
                self._take_mcp_call(convert(item, _McpCall, place), place)
            case "compaction":
                self._take_compaction(convert(item, _Compaction, place), place)
            case "additional_tools":
                pass  # `later_tools` has them
            case _ if kind in HOSTED_ITEMS:
                self._leave_out(kind)
            case _:
                raise unknown_type(kind, place)

    def _leave_out(self, kind: str) -> None:
        self._left_out[f"input.{kind}"] = None
        self._notes[f"input items of type {kind} were left out"] = None

    # --- what is said ------------------------------------------------------------------------------

    def _take_message(self, message: _Message, place: str) -> None:
        content = _content(message, f"{place}.content")
        if message.role == "assistant":
            for part, where in content:
                self._answer(part, where)
            if content and message.phase is not None:
                self._answer(_phase(message.phase), place)
            return
        if message.content is None:
            raise AgentError(
                "invalid_request",
                f"{place}: a {message.role} message needs content.",
                param=f"{place}.content",
            )
        self._close()
        self._say(message.role, place, content)

    def _take_call(self, call: _Call, place: str, *, custom: bool) -> None:
        if not call.call_id or not call.name:
            raise _invalid(place, "a call needs `call_id` and `name`")
        arguments = msgspec.json.encode({"input": call.input}).decode() if custom else call.arguments
        self._answer(ToolCall(call.call_id, self._tools.name_of(call.namespace, call.name), arguments), place)
        self._owed = True

    def _take_mcp_call(self, call: _McpCall, place: str) -> None:
        if call.server_label != SERVER_LABEL:
            self._leave_out(f"mcp_call of {shown_type(call.server_label)}")
            return
        failed = call.error is not None
        told = call.output if call.output is not None or not failed else _words(call.error)
        if told is None:
            failed, told = True, "The call was interrupted and has no result."
        call_id = call.call_id or call.id or f"mcp_{len(self._said)}_{len(self._open)}"
        self._answer(ToolCall(call_id, call.name, call.arguments), place)
        self._ran.append((ToolResult(call_id, (Text(told),) if told else (), failed), place))

    def _take_compaction(self, item: _Compaction, place: str) -> None:
        summary = summary_of(item.encrypted_content, place)
        self._close()
        self._say("user", place, [(Text(summary), place)])

    # --- who says it -------------------------------------------------------------------------------

    def _answer(self, part: Part, place: str, origin: str | None = None) -> None:
        """A part of an answer."""
        other = origin is not None and self._origin is not None and origin != self._origin
        goes_on = isinstance(part, ToolCall) or self._owed or not self._ran
        if self._role != "assistant" or other or not goes_on:
            self._close()
            self._role, self._place = "assistant", place
        self._origin = self._origin or origin
        self._open.append((part, place))

    def _result(self, result: ToolResult, place: str) -> None:
        if self._role == "assistant":
            self._end_answer()
        self._role = "tool"
        if not self._open:
            self._place = place
        self._open.append((result, place))

    def _end_answer(self) -> None:
        """The open answer is over; what the server's own tools said to it begins the results."""
        ran = self._ran
        self._ran, self._owed = [], False
        self._say("assistant", self._place, self._open, self._origin)
        self._origin = None
        self._role, self._open = "tool", [*ran]
        self._place = ran[0][1] if ran else ""

    def _close(self) -> None:
        if self._role == "assistant":
            self._end_answer()
        if self._open:
            self._say("tool", self._place, self._open)
        self._role, self._open = None, []

    def _say(
        self, role: Role, place: str, placed: Sequence[tuple[Part, str]], origin: str | None = None
    ) -> None:
        message = Message(role, tuple(part for part, _ in placed), None, origin)
        self._said.append(Said(message, place, tuple(where for _, where in placed)))


def _content(message: _Message, place: str) -> list[tuple[Part, str]]:
    content, mine = message.content, message.role == "assistant"
    if content is None or (content == "" and mine):
        return []
    if isinstance(content, str):
        return [(Text(content), place)]
    found: list[tuple[Part, str]] = []
    for index, raw in enumerate(content):
        where = f"{place}[{index}]"
        part = content_part(raw, where, images=message.role == "user", refusals=mine)
        if not mine or isinstance(part, Image) or part.text:
            found.append((part, where))
    return found


def _result_content(output: str | list[dict[str, Any]], place: str) -> tuple[Text | Image, ...]:
    if isinstance(output, str):
        return (Text(output),) if output else ()
    found: list[Text | Image] = []
    for index, raw in enumerate(output):
        part = content_part(raw, f"{place}[{index}]", images=True)
        if isinstance(part, Text | Image):
            found.append(part)
    return tuple(found)


def _phase(phase: str) -> ProviderReasoning:
    """What a message item is beside its words, in the form in which the provider of this wire keeps it."""
    return ProviderReasoning(msgspec.json.encode({"type": "message", "phase": phase}).decode())


def _words(error: Any) -> str:
    """What an `mcp_call` says of its failure."""
    if isinstance(error, str):
        return error
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return str(error["message"])
    return msgspec.json.encode(error).decode()


def _invalid(place: str, why: str) -> AgentError:
    return AgentError("invalid_request", f"{place}: {why}.", param=place)
