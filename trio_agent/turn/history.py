"""What was said, compared with what a client brings: which answer it gives back, and with which results."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Final

import msgspec

from trio_agent.statemachine.conversation import Image, Message, Refusal, Text, ToolCall, ToolResult
from trio_agent.wire.freeform import MEMBER, unwrapped

_encode = msgspec.json.Encoder(order="sorted").encode

_INSTRUCTING: Final = frozenset({"system", "developer"})


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


def same_instructions(ours: Sequence[Message], theirs: Sequence[Message]) -> bool:
    """Whether two conversations begin with the same instructions, or both without."""
    return digest(ours[: instructions(ours)]) == digest(theirs[: instructions(theirs)])


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
    return ["result", result.tool_call_id, result.is_error, result_texts(result)]


def result_texts(result: ToolResult) -> list[str]:
    """The parts of a result, in words."""
    return [part.text if isinstance(part, Text) else part.url for part in result.content]
