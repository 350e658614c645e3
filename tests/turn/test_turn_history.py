"""What a client sends as history: repaired, refused, compared, by tables and by property."""

from __future__ import annotations

import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rig import result, said, user

from trio_agent.errors import AgentError
from trio_agent.statemachine.conversation import (
    Image,
    Message,
    Part,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from trio_agent.turn.history import digest, digests, returned, same_answer
from trio_agent.turn.repair import INTERRUPTED, repaired
from trio_agent.wire.freeform import unwrapped, wrapped

A, B = ToolCall("a", "read", '{"path": "x"}'), ToolCall("b", "list", "{}")


def interrupted(*ids: str) -> Message:
    return Message("tool", tuple(ToolResult(each, (Text(INTERRUPTED),), is_error=True) for each in ids))


def mixed(*parts: Part) -> Message:
    """A user's message that holds tool results and words, as Anthropic's wire has it."""
    return Message("user", parts)


RA, RB = (ToolResult(each, (Text("42"),)) for each in "ab")

REPAIRS: dict[str, tuple[list[Message], list[Message], int]] = {
    "nothing to do": ([user()], [user()], 0),
    "answered": ([said("", A), result("a"), user()], [said("", A), result("a"), user()], 0),
    "answered in another order": (
        [said("", A, B), result("b"), result("a")],
        [said("", A, B), result("b"), result("a")],
        0,
    ),
    "never answered": ([said("", A), user()], [said("", A), interrupted("a"), user()], 1),
    "never answered, at the end": (
        [said("", A, B), result("a")],
        [said("", A, B), result("a"), interrupted("b")],
        1,
    ),
    "two rounds unanswered": (
        [said("", A), said("", B), user()],
        [said("", A), interrupted("a"), said("", B), interrupted("b"), user()],
        2,
    ),
    "called twice alike": (
        [said("Hm", A, B, ToolCall("a", "read", '{ "path":"x" }')), result("a"), result("b")],
        [said("Hm", A, B), result("a"), result("b")],
        1,
    ),
    "one id in two answers": (
        [said("", A), result("a"), said("", A), result("a")],
        [said("", A), result("a"), said("", A), result("a")],
        0,
    ),
    "said twice alike": (
        [said("", A), result("a"), result("a"), user()],
        [said("", A), result("a"), user()],
        1,
    ),
    "said twice in one message": ([said("", A), mixed(RA, RA)], [said("", A), mixed(RA)], 1),
    "results and words": (
        [said("", A, B), mixed(RA, Text("go on"))],
        [said("", A, B), interrupted("b"), mixed(RA, Text("go on"))],
        1,
    ),
    "calls in messages of their own": (
        [said("Look", A), said("", B), said("both"), result("b"), result("a"), user()],
        [Message("assistant", (Text("Look"), A, B, Text("both"))), result("b"), result("a"), user()],
        2,
    ),
    "calls in messages of their own, one of them never answered": (
        [user(), said("", A), said("", B), result("b")],
        [user(), said("", A), interrupted("a"), said("", B), result("b")],
        1,
    ),
    "a call made again": (
        [said("", A), said("", A), result("a")],
        [said("", A), interrupted("a"), said("", A), result("a")],
        1,
    ),
    "one answer by two models": (
        [said("", A), msgspec.structs.replace(said("", B), origin="lab/lab-1"), result("b")],
        [
            said("", A),
            interrupted("a"),
            msgspec.structs.replace(said("", B), origin="lab/lab-1"),
            result("b"),
        ],
        1,
    ),
    "an id used again": (
        [said("", A), result("a"), said("", A), result("a", "43")],
        [said("", A), result("a"), said("", A), result("a", "43")],
        0,
    ),
}


@pytest.mark.parametrize("case", REPAIRS)
def test_a_history_is_repaired(case: str) -> None:
    """Every call comes out answered once, with a note for each thing that was changed."""
    given_, expected, notes = REPAIRS[case]
    found = repaired(given_)
    assert found.messages == tuple(expected)
    assert len(found.notes) == notes
    for message, (index, parts) in zip(found.messages, found.sources, strict=True):
        assert tuple(given_[at].parts[part] for at, part in parts) == (message.parts if parts else ())
        assert not parts or parts[0][0] == index


@pytest.mark.parametrize(
    ("messages", "index", "why"),
    [
        ([result("a")], 0, "no message before it"),
        ([user(), result("a"), said("", A)], 1, "no message before it"),
        ([said("", A), result("b")], 1, "no message before it"),
        ([said("", A), result("a"), result("a", "43")], 2, "already has another result"),
        ([said("", A), user(), result("a")], 2, "right behind the call"),
        ([user(), said("", A, ToolCall("a", "read", "{}")), result("a")], 1, "another call with the same id"),
        ([said("", A, ToolCall("a", "list", A.arguments)), result("a")], 0, "another call with the same id"),
    ],
)
def test_what_cannot_be_repaired_is_refused(messages: list[Message], index: int, why: str) -> None:
    """The error names the message and says what is wrong with it."""
    with pytest.raises(AgentError) as caught:
        repaired(messages)
    assert (caught.value.code, caught.value.param) == ("invalid_tool_results", f"messages[{index}]")
    assert why in caught.value.message


IDS = st.sampled_from("abc")
CALLS = st.lists(IDS, max_size=3).map(
    lambda ids: said("words", *(ToolCall(each, "read", "{}") for each in ids))
)
RESULTS = st.lists(
    st.builds(ToolResult, IDS, st.just((Text("42"),))) | st.builds(Text, st.just("and")),
    min_size=1,
    max_size=3,
).map(lambda parts: Message("tool", tuple(parts)))
HISTORIES = st.lists(st.just(user()) | CALLS | RESULTS, max_size=8)


def answered_once(messages: tuple[Message, ...]) -> bool:
    """Whether each call is answered, once, before anything else is said."""
    open_calls: set[str] = set()
    for message in messages:
        for part in message.parts:
            if isinstance(part, ToolResult):
                if part.tool_call_id not in open_calls:
                    return False
                open_calls.remove(part.tool_call_id)
            elif open_calls and not isinstance(part, ToolCall):
                return False
        if message.tool_calls:
            if open_calls:
                return False
            open_calls = {call.id for call in message.tool_calls}
            if len(open_calls) < len(message.tool_calls):
                return False
    return not open_calls


def results_first(message: Message) -> Message:
    parts = sorted(message.parts, key=lambda part: not isinstance(part, ToolResult))
    return Message(message.role, tuple(parts))


@given(HISTORIES)
def test_a_repaired_history_has_every_call_answered_once(messages: list[Message]) -> None:
    """Whatever a client sends is refused or comes out in order; a second repair changes nothing."""
    try:
        out = repaired(messages).messages
    except AgentError:
        return  # the tables say which ones
    assert answered_once(tuple(results_first(message) for message in out))
    again = repaired(out)
    assert (again.messages, again.notes) == (out, ())


def test_calls_that_come_again_and_again_cost_time_in_proportion() -> None:
    """The first of them is read once, however long it is."""
    first = ToolCall("a", "read", "{" + " " * 4_000_000 + "}")
    again = [ToolCall("a", "read", "{}") for _ in range(10_000)]
    begun = time.perf_counter()
    assert repaired([said("", first, *again), result("a")]).messages[0].parts == (first,)
    assert time.perf_counter() - begun < 3  # it takes some 20 ms; with the first read each time, a minute


PLACES = [
    # the place in the repaired history, and in what the client sent
    ("messages[0]", "messages[0]"),
    ("messages[1].content[0]", "messages[0]"),
    ("messages[2].content[1]", "messages[1].content[1]"),
    ("messages[5].content[0].content[2]", "messages[4].content[1].content[2]"),
    ("messages[6]", "messages[5]"),
    ("messages[9]", "messages[9]"),
    ("tools", "tools"),
]


@pytest.mark.parametrize(("ours", "theirs"), PLACES)
def test_a_place_is_counted_in_what_the_client_sent(ours: str, theirs: str) -> None:
    """A result that was added and one that was dropped move what follows; the error says where it was."""
    c = ToolCall("c", "read", "{}")
    rc = ToolResult("c", (Text("1"),))
    seen = Message("user", (Text("See"), Image("https://x.test/a.png")))
    sent = [said("", A), seen, said("", c, B), mixed(rc), mixed(rc, RB), user()]
    found = repaired(sent)
    error = found.in_the_clients_numbers(AgentError("invalid_request", f"{ours} is bad", param=ours))
    assert (error.param, error.message) == (theirs, f"{theirs} is bad")


def test_the_results_that_a_request_brings() -> None:
    """The last answer that called tools, its results without repetitions, and what the client added."""
    brought = returned([user(), said("hm", A, B), result("b"), result("a"), result("a"), user("go on")])
    assert brought is not None
    assert brought.told == (user(), said("hm", A, B))
    assert brought.answer_to(digest([user()])) == (said("hm", A, B),)
    assert [each.tool_call_id for each in brought.results] == ["b", "a"]
    assert brought.after == (user("go on"),)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [user()],
        [said("", A), result("a"), said("done")],
        [said("", A)],
        [said("", A), user("never mind")],
    ],
)
def test_a_request_that_brings_no_results(messages: list[Message]) -> None:
    """Results that were answered already, or none at all, resume nothing."""
    assert returned(messages) is None


CUTS: dict[str, tuple[list[Message], int | None]] = {
    "nothing is left out": ([user()], 1),
    "the answer before is part of it": ([user(), said("", B), result("b")], 3),
    "the whole answer": ([user(), said("", B), result("b"), said("hm", A)], None),
    "not before what a user said": ([], None),
    "another history": ([user("what?")], None),
}


@pytest.mark.parametrize("case", CUTS)
def test_where_an_answer_begins(case: str) -> None:
    """The answer to a history is all that stands behind it, however many messages that is."""
    history, begins = CUTS[case]
    told = (user(), said("", B), result("b"), said("hm", A))
    brought = returned([*told, result("a")])
    assert brought is not None
    assert brought.answer_to(digest(history)) == (None if begins is None else told[begins:])


@given(st.lists(st.sampled_from([user(), said("hm"), said("", A), result("a")]), max_size=6))
def test_the_digests_of_all_beginnings(messages: list[Message]) -> None:
    """They are those that each beginning has alone."""
    assert digests(messages) == [digest(messages[:end]) for end in range(len(messages) + 1)]


def test_an_answer_in_messages_of_their_own() -> None:
    """The calls of assistant messages in a row are those of one answer, and so are their results."""
    told = (user(), said("hm", A), said("", B), said("both"))
    brought = returned([*told, result("a"), result("b")])
    assert brought is not None
    assert brought.answer_to(digest([user()])) == told[1:]
    assert [each.tool_call_id for each in brought.results] == ["a", "b"]


def test_a_result_for_another_call_is_not_brought() -> None:
    """A repeated result of an earlier round is no part of this one."""
    brought = returned([said("", B), result("b"), said("", A), result("b"), result("a")])
    assert brought is not None
    assert [each.tool_call_id for each in brought.results] == ["a"]


SAME: dict[str, tuple[Message, Message]] = {
    "text in pieces": (Message("user", (Text("a"), Text("b"))), user("ab")),
    "caching markers": (user("a"), Message("user", (Text("a", {"type": "ephemeral"}),))),
    "reasoning": (said("x", A), Message("assistant", (Thinking("hm", "sig"), *said("x", A).parts))),
    "spelling of arguments": (said("", A), said("", ToolCall("a", "read", '{"path":"x"}'))),
    "free text": (said("", ToolCall("a", "x", "ls -l")), said("", ToolCall("a", "x", '{"input": "ls -l"}'))),
    "who wrote it": (said("x"), Message("assistant", (Text("x"),), None, "lab/lab-1")),
}
DIFFERENT: dict[str, tuple[Message, Message]] = {
    "words": (user("a"), user("b")),
    "role": (Message("system", (Text("a"),)), user("a")),
    "name": (user("a"), Message("user", (Text("a"),), "ann")),
    "arguments": (said("", A), said("", ToolCall("a", "read", '{"path": "y"}'))),
    "invalid arguments": (said("", ToolCall("a", "read", "{")), said("", ToolCall("a", "read", "{{"))),
    "call id": (said("", A), said("", ToolCall("c", "read", A.arguments))),
    "result": (result("a", "1"), result("a", "2")),
    "error": (result("a"), Message("tool", (ToolResult("a", (Text("42"),), is_error=True),))),
    "image": (Message("user", (Image("http://a"),)), Message("user", (Image("http://b"),))),
    "one more": (user("a"), user("a\n")),
}


@pytest.mark.parametrize("case", SAME)
def test_a_digest_is_blind_to_spelling(case: str) -> None:
    """Two ways to say the same conversation."""
    ours, theirs = SAME[case]
    assert digest([user("x"), ours]) == digest([user("x"), theirs])


@pytest.mark.parametrize("case", DIFFERENT)
def test_a_digest_sees_an_edit(case: str) -> None:
    """Another conversation."""
    ours, theirs = DIFFERENT[case]
    assert digest([ours]) != digest([theirs])


def test_a_digest_keeps_messages_apart() -> None:
    """Where one message ends is part of what is said."""
    assert digest([user("a"), user("b")]) != digest([user("ab")])


@pytest.mark.parametrize(
    ("theirs", "same"),
    [
        (said("Let me look", A), True),
        (said("", A), True),
        (said(" Let me look\n", A), True),
        (said("Let me\n\nlook", A), True),
        (said("look", A), True),  # the client saw several calls' words as one; it may have kept the last
        (said("I looked", A), False),
        (said("Let me look", B), False),
        (said("Let me look", A, B), False),
        (said("Let me look", ToolCall("a", "read", '{"path": "y"}')), False),
    ],
)
def test_an_answer_that_comes_back_is_compared(theirs: Message, same: bool) -> None:
    """The calls must be the very ones; the text may be missing, but not edited."""
    assert same_answer([said("Let me "), result("s"), said("look", A)], [A], [theirs]) is same


@pytest.mark.parametrize(
    "written",
    [
        "console.log(1)",
        '{"input":"console.log(1)"}',
        ' { "input" : "a\\u00e9" } ',
        '{"input":"a\nb"}',
        '{"input":"cut',
        '{"code":"a"}',
        '{"input":["a"]}',
        '{"input":"{\\"input\\":\\"a\\"}"}',
        "5",
        "null",
        '"a"',
        "{}",
        "",
        "[" * 100_000,
    ],
)
def test_free_text_is_the_same_however_a_model_wrote_it(written: str) -> None:
    """The client of a custom tool is handed its text, and gives it back in the one shape that it has."""
    mine = ToolCall("a", "shell", written)
    theirs = ToolCall("a", "shell", wrapped(unwrapped(written)))
    assert same_answer([said("", mine)], [mine], [said("", theirs)])
    assert not same_answer([said("", mine)], [mine], [said("", ToolCall("a", "shell", wrapped("rm -r")))])


@pytest.mark.parametrize(
    ("theirs", "same"),
    [
        (Message("assistant", (Text("I will not look, but read."), A)), True),
        (Message("assistant", (Text("I will not look, "), Text("but read."), A)), True),
        (Message("assistant", (Text("but read."), Refusal("I will not look, "), A)), True),
        (Message("assistant", (Text("but read."), A)), True),
        (Message("assistant", (A,)), True),
        (Message("assistant", (Text("I will look, but read."), A)), False),
    ],
)
def test_a_refusal_comes_back_as_text_where_the_wire_has_no_other_word(theirs: Message, same: bool) -> None:
    """A client of Messages gives back as text what the model declined with; one of Chat leaves it out."""
    said_by_us = Message("assistant", (Refusal("I will not look, "), Text("but read."), A))
    assert same_answer([said_by_us], [A], [theirs]) is same
