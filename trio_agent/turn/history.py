"""The client's history: repaired where it can be, refused where it cannot, compared where a turn goes on.

Rules, in the order in which they are applied:

- A tool result whose call is not in the history before it is refused: the model would be told of
  something that it never asked for.
- A second result for the same call is dropped if it says the same, and refused otherwise.
- A call that never got a result (a client was interrupted) gets one that says so, as an error; without
  it most upstreams reject the conversation for good. The turn's record notes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from trio_agent.errors import AgentError
from trio_agent.statemachine.conversation import Image, Message, Part, Text, ToolCall, ToolResult

_encode = msgspec.json.Encoder(order="sorted").encode

INTERRUPTED = "The call was interrupted and has no result."


def repaired(messages: Sequence[Message]) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """The history with every call answered exactly once, and notes on what was changed.

    Raises:
        AgentError: `invalid_tool_results`, naming the message.
    """
    out: list[Message] = []
    notes: list[str] = []
    open_calls: dict[str, ToolCall] = {}
    answered: dict[str, ToolResult] = {}
    interrupted: set[str] = set()
    for index, message in enumerate(messages):
        if not message.tool_results:
            interrupted |= open_calls.keys()
            _close(open_calls, out, notes)
            out.append(message)
            open_calls |= {call.id: call for call in message.tool_calls}
            continue
        rest: list[Part] = []
        for part in message.parts:
            if not isinstance(part, ToolResult):
                rest.append(part)
                continue
            call_id = part.tool_call_id
            if call_id in open_calls:
                del open_calls[call_id]
                answered[call_id] = part
                rest.append(part)
            elif call_id in answered and _said(answered[call_id]) == _said(part):
                notes.append(f"dropped a second result for tool call {call_id}")
            else:
                raise _stray(call_id, index, again=call_id in answered, late=call_id in interrupted)
        if any(not isinstance(part, ToolResult) for part in rest):
            interrupted |= open_calls.keys()
            _close(open_calls, out, notes)
        if rest:
            out.append(msgspec.structs.replace(message, parts=tuple(rest)))
            open_calls |= {call.id: call for call in message.tool_calls}
    _close(open_calls, out, notes)
    return tuple(out), tuple(notes)


def _close(open_calls: dict[str, ToolCall], out: list[Message], notes: list[str]) -> None:
    if not open_calls:
        return
    results = tuple(ToolResult(call_id, (Text(INTERRUPTED),), is_error=True) for call_id in open_calls)
    out.append(Message("tool", results))
    notes.extend(f"added an error result for tool call {call_id}, which had none" for call_id in open_calls)
    open_calls.clear()


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


class Returned(msgspec.Struct, frozen=True):
    """A history that brings tool results: up to the last answer, the results, and what follows.

    `results` holds at most one result for each call of the last answer, and none for any other call.
    """

    told: tuple[Message, ...]
    results: tuple[ToolResult, ...]
    after: tuple[Message, ...]

    def answer_to(self, history: str) -> tuple[Message, ...] | None:
        """The messages of the answer, if it was given to the history with this digest.

        Most clients know an answer as one message. One that is shown the server's own tools, or for whom the
        server keeps the history, has it as several: calls, results, and what was said between them.
        """
        if history == digest(self.told[:-1]):
            return self.told[-1:]
        begins = len(self.told) - 1
        while begins > 0 and self.told[begins - 1].role in ("assistant", "tool"):
            begins -= 1
        prefixes = digests(self.told)
        found = (cut for cut in range(begins, len(self.told) - 1) if prefixes[cut] == history)
        cut = next(found, None)
        return None if cut is None else self.told[cut:]


def returned(messages: Sequence[Message]) -> Returned | None:
    """The tool results that a request brings for the last answer that called tools, if it brings any."""
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if message.role != "assistant":
            continue
        if not message.tool_calls:
            return None
        called = {call.id for call in message.tool_calls}
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
            hold the calls of the server's own tools.
    """
    waits = {call.id for call in owed}
    called = {call.id: call for message in theirs for call in message.tool_calls}
    if not same_calls(owed, [call for call in called.values() if call.id in waits]):
        return False
    ours = {call.id: call for message in said for call in message.tool_calls}
    others = [call for call in called.values() if call.id not in waits]
    if not same_calls([ours[call.id] for call in others if call.id in ours], others):
        return False
    return _text_of(said).endswith(_text_of(theirs))


def _text_of(messages: Sequence[Message]) -> str:
    return "".join(message.text for message in messages if message.role == "assistant").strip()


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
    """What a call says: its arguments count as a JSON value, where they are one."""
    try:
        arguments = msgspec.json.decode(call.arguments)
    except (msgspec.DecodeError, RecursionError):
        arguments = call.arguments
    return [call.id, call.name, arguments]


def result_words(result: ToolResult) -> list[Any]:
    """What a result says."""
    return ["result", result.tool_call_id, result.is_error, _said(result)]


def _said(result: ToolResult) -> list[str]:
    return [part.text if isinstance(part, Text) else part.url for part in result.content]
