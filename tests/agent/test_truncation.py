"""What is left out of a conversation that is too long for its model: by table, and by property."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_agent.statemachine.conversation import Message, Part, Role, Text, Tool, ToolCall, ToolResult
from trio_agent.token_estimate import estimated
from trio_agent.truncation import fitted, room_of

SPOKEN: dict[str, Role] = {"s": "system", "d": "developer", "u": "user", "a": "assistant"}


def conversation(shape: str) -> list[Message]:
    """Messages of a hundred tokens each: `a` says something, `c` calls a tool, `r` is its result."""
    found: list[Message] = []
    for at, letter in enumerate(shape):
        words = f"{at}".ljust(384, ".")
        match letter:
            case "c":
                found.append(Message("assistant", (Text(words[:379]), ToolCall("t", "f", "{at}"))))
            case "r":
                found.append(Message("tool", (ToolResult("t", (Text(words),)),)))
            case _:
                found.append(Message(SPOKEN[letter], (Text(words),)))
    return found


def kept(shape: str, room: int, tools: Sequence[Tool] = ()) -> str:
    """What is left of a conversation where so many of its messages fit: `.` for what is not."""
    whole = conversation(shape)
    found = fitted(whole, tools, window=room * 125, answer=0)
    there = [message in found.messages for message in whole]
    assert len(found.messages) + found.left_out == len(whole)
    return "".join(letter if here else "." for letter, here in zip(shape, there, strict=True))


CASES = [
    # what, conversation, how many messages fit, what is left of it
    ("it fits", "suaua", 5, "suaua"),
    ("the oldest round goes", "suaua", 4, "s..ua"),
    ("no more than it takes", "suauaua", 5, "s..uaua"),
    ("all rounds but the latest", "suauaua", 2, "s....ua"),
    ("the system's words stand at the beginning", "sduau", 3, "sd..u"),
    ("later ones go with their round", "uasuadu", 5, "..suadu"),
    ("a round may begin with several words", "udauua", 3, "...uua"),
    ("a greeting has no question", "sauau", 4, "s.uau"),
    ("calls go with their results", "ucrcrauau", 5, "......uau"),
    ("the latest round loses its oldest answers", "sucrcrcra", 7, "su..crcra"),
    ("and keeps the latest one", "sucrcrcr", 1, "su....cr"),
    ("after all older rounds", "uaucrcra", 5, "..u..cra"),
    ("two answers in a row", "uaaau", 2, "....u"),
    ("nothing but instructions", "sd", 1, "sd"),
    ("nothing at all", "", 1, ""),
]


@pytest.mark.parametrize(("shape", "room", "left"), [case[1:] for case in CASES],
                         ids=[case[0] for case in CASES])  # fmt: skip
def test_what_goes_first(shape: str, room: int, left: str) -> None:
    """Whole rounds go, oldest first; then answers of the latest one; and never more than it takes."""
    assert kept(shape, room) == left


def test_tools_take_room() -> None:
    """What the model is offered is part of its prompt."""
    assert kept("uaua", 4) == "uaua"
    assert kept("uaua", 4, [Tool("f", "d" * 400)]) == "..ua"


def test_where_the_window_is_not_known_nothing_goes() -> None:
    """Nobody can say that it is too long."""
    whole = tuple(conversation("ua" * 50))
    assert fitted(whole, (), window=None, answer=10).messages == whole


ROOMS = [
    # window, most tokens of the answer, room for the prompt
    (1_000, 0, 800),
    (1_000, 500, 400),
    (1_000, None, 600),
    (200_000, None, (200_000 - 16_384) * 4 // 5),
    (1_000, 999, 0),
    (1_000, 1_000, 600),
    (1_000, 5_000, 600),
]


@pytest.mark.parametrize(("window", "answer", "room"), ROOMS)
def test_room_is_kept_for_the_answer(window: int, answer: int | None, room: int) -> None:
    """As much as the client bounds it to; else a quarter, 16,384 at most. A fifth is margin."""
    assert room_of(window, answer) == room


IDS = st.sampled_from("abc")
WORDS = st.builds(lambda length: Text("x" * length), st.integers(0, 400))
CALLS = st.builds(ToolCall, IDS, st.just("f"), st.just("{}"))
RESULTS = st.builds(lambda each, text: ToolResult(each, (text,)), IDS, WORDS)
PARTS: dict[Role, st.SearchStrategy[Part]] = {
    "system": WORDS,
    "developer": WORDS,
    "user": st.one_of(WORDS, RESULTS),
    "assistant": st.one_of(WORDS, CALLS),
    "tool": RESULTS,
}
MESSAGES = st.lists(
    st.sampled_from([*PARTS]).flatmap(
        lambda role: st.lists(PARTS[role], max_size=3).map(lambda parts: Message(role, tuple(parts)))
    ),
    max_size=14,
).map(lambda messages: [Message(each.role, each.parts, f"{at}") for at, each in enumerate(messages)])


def pairs(messages: Sequence[Message]) -> list[tuple[Message, Message]]:
    """Each message with a call, and the message with its result: of the latest call of that id."""
    calls: dict[str, Message] = {}
    found = []
    for message in messages:
        calls |= {call.id: message for call in message.tool_calls}
        found += [(calls[each.tool_call_id], message) for each in message.tool_results
                  if each.tool_call_id in calls]  # fmt: skip
    return found


@given(MESSAGES, st.integers(1, 1_500))
def test_what_is_left_of_any_conversation(messages: list[Message], window: int) -> None:
    """It fits or is as short as it gets, in order, with its beginning and its end; no call is torn off."""
    found = fitted(messages, (), window=window, answer=0)
    shortest = fitted(messages, (), window=1, answer=1)
    left = iter(messages)
    assert all(message in left for message in found.messages), "the order is another"
    assert estimated(found.messages, ()) <= max(1, room_of(window, 0)) or found == shortest
    for call, result in pairs(messages):
        assert (call in found.messages) == (result in found.messages)
    standing = tuple(takewhile(lambda each: each.role in ("system", "developer"), messages))
    assert found.messages[: len(standing)] == standing
    assert found.messages[-1:] == tuple(messages[-1:])
    assert fitted(found.messages, (), window=window, answer=0).messages == found.messages


@given(MESSAGES, st.integers(1, 1_500), st.integers(0, 500))
def test_more_room_never_loses_more(messages: list[Message], window: int, more: int) -> None:
    """What fits a window fits a larger one."""
    less = fitted(messages, (), window=window, answer=0).messages
    assert set(map(id, less)) <= set(map(id, fitted(messages, (), window=window + more, answer=0).messages))
