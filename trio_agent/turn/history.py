"""The client's history: repaired where it can be, refused where it cannot, compared where a turn goes on.

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

import hashlib
from collections.abc import Sequence
from itertools import islice, takewhile
from typing import Any, Final

import msgspec

from trio_agent.errors import AgentError
from trio_agent.statemachine.conversation import Image, Message, Refusal, Text, ToolCall, ToolResult
from trio_agent.turn.places import in_the_clients_words
from trio_agent.wire.freeform import MEMBER, unwrapped

_encode = msgspec.json.Encoder(order="sorted").encode

_INSTRUCTING: Final = frozenset({"system", "developer"})
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
        if known is None or _said(known) != _said(result):
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


class Returned(msgspec.Struct, frozen=True):
    """A history that brings tool results: up to the last answer, the results, and what follows.

    `results` holds at most one result for each call of the last answer, and none for any other call.
    """

    told: tuple[Message, ...]
    results: tuple[ToolResult, ...]
    after: tuple[Message, ...]

    def answer_to(self, history: str) -> tuple[Message, ...] | None:
        """The messages of the answer, if it was given to the history with this digest (`history_digest`).

        Most clients know an answer as one message. One that is shown the server's own tools, or for whom the
        server keeps the history, has it as several: calls, results, and what was said between them.
        """
        if history == history_digest(self.told[:-1]):
            return self.told[-1:]
        begins = len(self.told) - 1
        while begins > 0 and self.told[begins - 1].role in ("assistant", "tool"):
            begins -= 1
        first = instructions(self.told)
        prefixes = digests(self.told[first:])
        found = (cut for cut in range(begins, len(self.told) - 1) if prefixes[cut - first] == history)
        cut = next(found, None)
        return None if cut is None else self.told[cut:]

    def all_results(self, answer: Sequence[Message]) -> tuple[ToolResult, ...]:
        """The results of all calls of the answer: some clients put each right behind its call."""
        within = [result for message in answer for result in message.tool_results]
        return (*within, *self.results)


def returned(messages: Sequence[Message]) -> Returned | None:
    """The tool results that a request brings for the last answer that called tools, if it brings any."""
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if message.role != "assistant":
            continue
        row = takewhile(lambda each: each.role == "assistant", reversed(messages[: index + 1]))
        called = {call.id for each in row for call in each.tool_calls}
        if not called:
            return None
        results: dict[str, ToolResult] = {}
        after: list[Message] = []
        for following in messages[index + 1 :]:
            for result in following.tool_results:
                if result.tool_call_id in called:
                    results.setdefault(result.tool_call_id, result)
            rest = tuple(part for part in following.parts if not isinstance(part, ToolResult))
            if rest:
                after.append(msgspec.structs.replace(following, parts=rest))
        if not results:
            return None
        return Returned(tuple(messages[: index + 1]), tuple(results.values()), tuple(after))
    return None


def instructions(messages: Sequence[Message]) -> int:
    """How many messages at the beginning only instruct the model."""
    return next((at for at, each in enumerate(messages) if each.role not in _INSTRUCTING), len(messages))


def newly_instructed(messages: Sequence[Message], by: Sequence[Message]) -> tuple[Message, ...]:
    """A conversation with the instructions at the beginning of another one in place of its own."""
    return (*by[: instructions(by)], *messages[instructions(messages) :])


def history_digest(messages: Sequence[Message]) -> str:
    """A digest of a conversation that was answered, by which it is known again. See `digest`.

    Instructions at the beginning do not count: many clients write them anew for each request, with the time
    in them, and in the Responses format no request has those of the one before.
    """
    return digest(messages[instructions(messages) :])


def digest(messages: Sequence[Message]) -> str:
    """A digest of what a conversation says, blind to how a client spells it.

    Reasoning is left out, since most clients drop it; so are caching markers and who wrote a message.
    """
    hasher = hashlib.blake2b(digest_size=16)
    for message in messages:
        _take_in(hasher, message)
    return hasher.hexdigest()


def digests(messages: Sequence[Message]) -> list[str]:
    """The digest of each beginning of a conversation: of no message, of the first, and so on to the whole."""
    hasher = hashlib.blake2b(digest_size=16)
    found = [hasher.hexdigest()]
    for message in messages:
        _take_in(hasher, message)
        found.append(hasher.copy().hexdigest())
    return found


def _take_in(hasher: hashlib.blake2b, message: Message) -> None:
    hasher.update(_encode([message.role, message.name, [*_words(message)]]))
    hasher.update(b"\n")


def same_calls(ours: Sequence[ToolCall], theirs: Sequence[ToolCall]) -> bool:
    """Whether two lists hold the same calls: ids, names, and arguments as JSON values."""
    return {call.id: call_words(call) for call in ours} == {call.id: call_words(call) for call in theirs}


def same_answer(said: Sequence[Message], owed: Sequence[ToolCall], theirs: Sequence[Message]) -> bool:
    """Whether a client gave back the answer that it was handed: the very calls, and the text unedited.

    Args:
        said: what the turn added to the conversation; the client saw the end of it.
        theirs: the client's version. Its text may be missing, for some clients keep only the calls. It may
            hold the calls of the server's own tools. Where its wire has no refusals, they are text.
    """
    waits = {call.id for call in owed}
    called = {call.id: call for message in theirs for call in message.tool_calls}
    if not same_calls(owed, [call for call in called.values() if call.id in waits]):
        return False
    ours = {call.id: call for message in said for call in message.tool_calls}
    others = [call for call in called.values() if call.id not in waits]
    if not same_calls([ours[call.id] for call in others if call.id in ours], others):
        return False
    told = _told(theirs, Text)
    return _told(said, Text).endswith(told) or _told(said, Text, Refusal).endswith(told)


def _told(messages: Sequence[Message], *kinds: type[Text | Refusal]) -> str:
    """What an assistant says in parts of these kinds, without white space: clients trim and join parts."""
    parts = (part for message in messages if message.role == "assistant" for part in message.parts)
    return "".join(word for part in parts if isinstance(part, kinds) for word in part.text.split())


def _words(message: Message) -> list[Any]:
    words: list[Any] = [message.text] if message.text else []
    for part in message.parts:
        match part:
            case Image():
                words.append(["image", part.url])
            case ToolCall():
                words.append(call_words(part))
            case ToolResult():
                words.append(result_words(part))
            case _:
                pass
    return words


def call_words(call: ToolCall) -> list[Any]:
    """What a call says: its arguments count as a JSON value, where they are one.

    A tool that takes free text is offered as a function with one string, for which some models write the bare
    text, or JSON that is none. Its client is handed the text, and gives back the text as that string: however
    a text came, and whatever it looks like, it is the same.
    """
    arguments: Any = call.arguments
    value = _value(arguments)
    if isinstance(value, dict) and value.keys() == {MEMBER} and isinstance(value[MEMBER], str):
        arguments = value[MEMBER]
        value = _value(arguments)
    elif value is None:
        arguments = unwrapped(arguments)
    return [call.id, call.name, arguments if value is None else value]


def _value(text: str) -> Any:
    """The JSON value that a text is; `None` where it is none, or null."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None


def result_words(result: ToolResult) -> list[Any]:
    """What a result says."""
    return ["result", result.tool_call_id, result.is_error, _said(result)]


def _said(result: ToolResult) -> list[str]:
    return [part.text if isinstance(part, Text) else part.url for part in result.content]
