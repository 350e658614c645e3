"""The client's history: repaired where it can be, refused where it cannot.

Rules, in the order in which they are applied:

- A tool result whose call is not in the history before it is refused: the model would be told of
  something that it never asked for.
- A second result for the same call is dropped if it says the same, and refused otherwise.
- A second call with the id of another in one answer is dropped if it says the same, and refused otherwise:
  no upstream takes both.
- A call that never got a result (a client was interrupted) gets one that says so, as an error; without
  it most upstreams reject the conversation for good. The turn's record notes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, takewhile
from typing import Any

import msgspec

from trio_agent.errors import AgentError
from trio_agent.statemachine.conversation import Message, Text, ToolCall, ToolResult
from trio_agent.turn.history import call_words, result_texts
from trio_agent.turn.places import in_the_clients_words

INTERRUPTED = "The call was interrupted and has no result."


class Repaired(msgspec.Struct, frozen=True):
    """A history with every call answered exactly once, and notes on what was changed.

    `sources` has, for each message, the number of the client's message that it is or begins with, and where
    its parts stood: numbers of a message and of a part in it. An added message has the number of the message
    whose calls it answers, and no parts.
    """

    messages: tuple[Message, ...]
    notes: tuple[str, ...]
    sources: tuple[tuple[int, tuple[tuple[int, int], ...]], ...]

    def in_the_clients_numbers(self, error: AgentError) -> AgentError:
        """The error with its place counted in what the client sent, where it names a message of these."""
        if not self.notes:
            return error
        places = tuple(
            (f"messages[{index}]", tuple(f"messages[{at}].content[{part}]" for at, part in parts))
            for index, parts in self.sources
        )
        return in_the_clients_words(error, places)


def repaired(messages: Sequence[Message]) -> Repaired:
    """Put a history into order.

    Raises:
        AgentError: `invalid_tool_results`, naming the message.
    """
    return _Repair().of(messages)


class _Repair:
    def __init__(self) -> None:
        self._out: list[Message] = []
        self._notes: list[str] = []
        self._sources: list[tuple[int, tuple[tuple[int, int], ...]]] = []
        self._open: dict[str, int] = {}
        """Calls without a result, and the number of the message that made each."""
        self._answered: dict[str, ToolResult] = {}
        self._interrupted: set[str] = set()
        self._row_ends = 0
        """Where the assistant messages in a row end, of which one was looked at last."""
        self._behind: set[str] = set()
        """The calls whose results stand there."""

    def of(self, messages: Sequence[Message]) -> Repaired:
        for index, message in enumerate(messages):
            if message.tool_results:
                self._take_results(message, index)
            else:
                goes_on = self._goes_on(messages, index)
                if not goes_on:
                    self._close()
                kept = self._calls_once(message, index)
                if len(kept) < len(message.parts):
                    message = msgspec.structs.replace(
                        message, parts=tuple(message.parts[place] for place in kept)
                    )
                if goes_on:
                    self._add(message, index, kept)
                else:
                    self._take(message, index, kept)
        self._close()
        return Repaired(tuple(self._out), tuple(self._notes), tuple(self._sources))

    def _calls_once(self, message: Message, index: int) -> tuple[int, ...]:
        """The numbers of the parts without calls that are there already. Raises AgentError."""
        kept: list[int] = []
        calls: dict[str, ToolCall] = {}
        words: dict[str, list[Any]] = {}  # of calls that came twice, made once: arguments can be long
        for place, part in enumerate(message.parts):
            if isinstance(part, ToolCall):
                first = calls.setdefault(part.id, part)
                if first is not part:
                    if part.id not in words:
                        words[part.id] = call_words(first)
                        self._notes.append(f"dropped a second tool call {part.id}")
                    if words[part.id] != call_words(part):
                        raise _two_calls(part.id, index)
                    continue
            kept.append(place)
        return tuple(kept)

    def _take(self, message: Message, index: int, parts: tuple[int, ...]) -> None:
        self._out.append(message)
        self._sources.append((index, tuple((index, part) for part in parts)))
        self._open |= {call.id: index for call in message.tool_calls}

    def _goes_on(self, messages: Sequence[Message], index: int) -> bool:
        """Whether a message belongs to the answer before it, whose calls have their results behind both."""
        message = messages[index]
        if not self._open or message.role != "assistant":
            return False
        last = self._out[-1]
        if last.role != "assistant" or last.origin != message.origin:
            return False
        if index >= self._row_ends:
            others = (at for at in range(index, len(messages)) if messages[at].role != "assistant")
            self._row_ends = next(others, len(messages))
            behind = takewhile(lambda each: each.tool_results, islice(messages, self._row_ends, None))
            self._behind = {result.tool_call_id for each in behind for result in each.tool_results}
        again = any(call.id in self._open for call in message.tool_calls)
        return not again and not self._behind.isdisjoint(self._open)

    def _add(self, message: Message, index: int, parts: tuple[int, ...]) -> None:
        """Take a message for a part of the one before it."""
        before, (first, places) = self._out.pop(), self._sources.pop()
        self._out.append(msgspec.structs.replace(before, parts=(*before.parts, *message.parts)))
        self._sources.append((first, (*places, *((index, part) for part in parts))))
        self._open |= {call.id: first for call in message.tool_calls}
        self._notes.append("took an assistant message for a part of the one before it, with its calls")

    def _take_results(self, message: Message, index: int) -> None:
        kept: list[int] = []
        for place, part in enumerate(message.parts):
            if not isinstance(part, ToolResult) or self._fits(part, index):
                kept.append(place)
        rest = tuple(message.parts[place] for place in kept)
        if any(not isinstance(part, ToolResult) for part in rest):
            self._close()
        if rest:
            self._take(msgspec.structs.replace(message, parts=rest), index, tuple(kept))

    def _fits(self, result: ToolResult, index: int) -> bool:
        """Whether a result is the one of its call. Raises AgentError."""
        call_id = result.tool_call_id
        if call_id in self._open:
            del self._open[call_id]
            self._answered[call_id] = result
            return True
        known = self._answered.get(call_id)
        if known is None or result_texts(known) != result_texts(result):
            raise _stray(call_id, index, again=known is not None, late=call_id in self._interrupted)
        self._notes.append(f"dropped a second result for tool call {call_id}")
        return False

    def _close(self) -> None:
        """Answer the calls that got no result before something else was said."""
        if not self._open:
            return
        self._interrupted |= self._open.keys()
        results = tuple(ToolResult(call_id, (Text(INTERRUPTED),), is_error=True) for call_id in self._open)
        self._out.append(Message("tool", results))
        self._sources.append((max(self._open.values()), ()))
        self._notes += [
            f"added an error result for tool call {call_id}, which had none" for call_id in self._open
        ]
        self._open.clear()


def _stray(call_id: str, index: int, *, again: bool, late: bool) -> AgentError:
    if again:
        why = "that call already has another result"
    elif late:
        why = "other messages came between the call and it; put it right behind the call"
    else:
        why = "no message before it calls that tool"
    return AgentError(
        "invalid_tool_results",
        f"The tool result for {call_id!r} in messages[{index}] cannot be passed on: {why}.",
        param=f"messages[{index}]",
    )


def _two_calls(call_id: str, index: int) -> AgentError:
    return AgentError(
        "invalid_tool_results",
        f"The tool call {call_id!r} in messages[{index}] cannot be passed on: that answer holds another call "
        "with the same id.",
        param=f"messages[{index}]",
    )
