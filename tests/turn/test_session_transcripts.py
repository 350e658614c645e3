"""Turns of a session in its transcript: which follows which, whatever clients do under one id."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rig import make_agent, request, respond, result, said, store_of, tool, user
from support.scripted import HANG, Scripted, answer, calling, tool_call

from trio_agent.agent import Agent
from trio_agent.statemachine.conversation import Message, Refusal, Text, Thinking, ToolCall, ToolResult
from trio_agent.store.contract import StoreError
from trio_agent.store.kept import TranscriptNode
from trio_agent.turn.transcript import Told, branches, conversation


def digest(*messages: Message, hidden: Sequence[str] = ()) -> str:
    told = Told(hidden)
    told.begin(messages)
    return told.digest


async def nodes_of(agent: Agent, session: str = "s", owner: str = "") -> list[TranscriptNode]:
    """All nodes, the oldest first."""
    return (await agent.store.list_nodes(owner, session))[::-1]


async def ask(agent: Agent, *messages: Message, session: str | None = "s", **fields: object) -> None:
    await respond(agent, request(*messages, session_id=session, **fields))
    await trio.sleep(1)  # no two turns end in one moment


def texts(messages: Sequence[Message]) -> list[str]:
    return [f"{message.role}: {message.text}" for message in messages]


# --- what is one conversation -----------------------------------------------------------------------

CALL = ToolCall("c", "look", '{"a": 1}')
RAN = ToolCall("r", "clock", "{}")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([said("ab")], [said("a"), said("b")]),
        ([said("ab")], [Message("assistant", (Text("a"), Text("b")))]),
        ([said("a", CALL)], [said("a", ToolCall("c", "look", '{"a":1}'))]),
        ([said("ab")], [said("a", RAN), result("r"), said("b")]),
        ([said("a", CALL)], [said("a", RAN, CALL), result("r")]),
        ([said("a")], [Message("assistant", (Thinking("hm", "sig"), Text("a")))]),
        ([said("a")], [Message("assistant", (Refusal("a"),))]),
        ([user()], [Message("system", (Text("Be brief"),)), user()]),
        (
            [said("", CALL, ToolCall("d", "look", "{}")), result("c"), result("d")],
            [
                said("", CALL, ToolCall("d", "look", "{}")),
                Message("tool", (ToolResult("c", (Text("42"),)), ToolResult("d", (Text("42"),)))),
            ],
        ),
        (
            # An id that a hidden tool's call had before is the caller's own now.
            [said("", ToolCall("r", "look", "{}")), result("r", "7")],
            [said("", RAN), result("r"), said("", ToolCall("r", "look", "{}")), result("r", "7")],
        ),
    ],
)
def test_spellings_of_one_conversation(one: list[Message], other: list[Message]) -> None:
    """What clients write differently, or are not shown, is one conversation."""
    assert digest(*one, hidden=["clock"]) == digest(*other, hidden=["clock"])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([user("a"), user("b")], [user("ab")]),
        ([user("a")], [said("a")]),
        ([said("a", CALL)], [said("a")]),
        ([said("a", CALL)], [said("a", ToolCall("c", "look", '{"a": 2}'))]),
        ([said("", CALL), result("c")], [said("", CALL), result("c", "43")]),
        ([user("a"), Message("system", (Text("b"),))], [user("a")]),
        ([user('","')], [user("\t")]),
        ([Message("user", (Text("a"),), "Ann")], [Message("user", (Text("a"),), "Bob")]),
    ],
)
def test_conversations_that_differ(one: list[Message], other: list[Message]) -> None:
    """What says something else has another digest."""
    assert digest(*one) != digest(*other)


# --- turns ------------------------------------------------------------------------------------------------


async def test_a_conversation_is_one_branch(autojump_clock: trio.abc.Clock) -> None:
    """Each turn hangs on the one before; each node holds only what came with it."""
    agent = make_agent(Scripted(answer("One"), answer("Two")))
    history = [Message("system", (Text("Be brief"),)), user("1")]
    await ask(agent, *history)
    history[0] = Message("system", (Text("Be brief. It is Monday"),))  # some write it anew each time
    await ask(agent, *history, said("One"), user("2"))
    first, second = await nodes_of(agent)
    assert (first.parent_id, second.parent_id) == (None, first.id)
    assert (first.length, second.length) == (3, 5)
    path = await agent.store.transcript("", "s")
    assert texts(conversation(path[1:])) == ["user: 2", "assistant: Two"]
    assert texts(conversation(path)) == [
        "system: Be brief",
        "user: 1",
        "assistant: One",
        "user: 2",
        "assistant: Two",
    ]
    (branch,) = branches((await nodes_of(agent))[::-1])
    rows = [row.id for row in await agent.store.list_turns()][::-1]
    assert branch.turn_ids == tuple(rows)


async def test_an_edited_history_is_a_branch(autojump_clock: trio.abc.Clock) -> None:
    """Both stay; the newest is the one that the client spoke in last."""
    agent = make_agent(Scripted(*[answer(each) for each in "ABCD"]))
    await ask(agent, user("1"))
    await ask(agent, user("1"), said("A"), user("2"))
    await ask(agent, user("1"), said("A"), user("2, edited"))
    await ask(agent, user("a title for: 1"))
    nodes = await nodes_of(agent)
    assert [node.parent_id for node in nodes] == [None, nodes[0].id, nodes[0].id, None]
    found = list(branches(nodes[::-1]))
    assert [(branch.id, len(branch.turn_ids)) for branch in found] == [
        (nodes[3].id, 1),
        (nodes[2].id, 2),
        (nodes[1].id, 2),
    ]
    assert texts(conversation(await agent.store.transcript("", "s", nodes[2].id)))[-2:] == [
        "user: 2, edited",
        "assistant: C",
    ]


async def test_requests_at_the_same_time_do_not_wait(autojump_clock: trio.abc.Clock) -> None:
    """A title is asked for amid the first turn, under the same id; both are done at their own pace."""
    agent = make_agent(Scripted([5.0, *answer("Slow")], answer("Title")))
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, agent, user("1"))
        await trio.sleep(0.1)
        await ask(agent, user("title"))
        assert trio.current_time() - started < 2
    assert len(await nodes_of(agent)) == 2
    await ask(agent, user("1"), said("Slow"), user("2"))
    assert [node.parent_id is None for node in await nodes_of(agent)] == [True, True, False]


async def test_a_parked_turn_is_two_nodes(autojump_clock: trio.abc.Clock) -> None:
    """One for each answer that the client was given, with the rounds of the server's own tools."""
    lab = Scripted(
        [*calling(("r", "clock"), ("c", "look"))],
        answer("It is 42"),
        answer("Bye"),
    )

    async def clock() -> str:
        """The time."""
        return "noon"

    agent = make_agent(lab, tools=[clock])
    look = (tool("look"),)
    await ask(agent, user("1"), tools=look)
    history = [user("1"), said("", ToolCall("c", "look", "{}")), result("c")]
    await ask(agent, *history, tools=look)
    await ask(agent, *history, said("It is 42"), user("Thanks"), tools=look)
    first, second, third = await nodes_of(agent)
    assert (second.parent_id, third.parent_id) == (first.id, second.id)
    assert first.turn_id == second.turn_id != third.turn_id
    path = await agent.store.transcript("", "s")
    assert [message.role for message in conversation(path)] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
        "user",
        "assistant",
    ]
    (branch,) = branches([third, second, first])
    assert len(branch.turn_ids) == 2


@pytest.mark.parametrize("script", [[RuntimeError("crash")], [answer("Hal")[0], RuntimeError("crash")]])
async def test_a_failed_turn_adds_nothing(autojump_clock: trio.abc.Clock, script: list[object]) -> None:
    """The client has no answer to go on from; what it says again hangs where that would have hung."""
    agent = make_agent(Scripted(answer("One"), script, answer("Two")))  # type: ignore[arg-type]
    await ask(agent, user("1"))
    for _ in range(2):
        await ask(agent, user("1"), said("One"), user("2"))
    first, second = await nodes_of(agent)
    assert second.parent_id == first.id


async def test_a_turn_that_is_left_adds_nothing(autojump_clock: trio.abc.Clock) -> None:
    """A client that goes has heard no answer."""
    agent = make_agent(Scripted([answer("Hal")[0], HANG]))
    with trio.move_on_after(1):
        await ask(agent, user("1"))
    assert await nodes_of(agent) == []


async def test_nothing_without_a_label_and_nothing_that_must_not_be_kept(
    autojump_clock: trio.abc.Clock,
) -> None:
    """No label, no read and no node. `store: false` keeps the label on the record, and no words."""
    agent = make_agent(Scripted(answer("One"), answer("Two")))
    sought: list[object] = []
    store_of(agent).find_nodes = sought.append  # type: ignore[assignment]
    await ask(agent, user("1"), said("x"), user("2"), session=None)
    await ask(agent, user("1"), keep=False)
    assert (sought, store_of(agent).sessions) == ([], {})
    assert [row.session_id for row in await agent.store.list_turns()] == ["s", None]


async def test_owners_and_sessions_are_apart(autojump_clock: trio.abc.Clock) -> None:
    """The same words under another key or another label are another transcript."""
    agent = make_agent(Scripted(*[answer("One") for _ in range(3)]))
    await ask(agent, user("1"), owner="key_1")
    await ask(agent, user("1"), said("One"), user("2"), owner="key_2")
    await ask(agent, user("1"), said("One"), user("2"), owner="key_1", session="t")
    for owner, session in (("key_1", "s"), ("key_2", "s"), ("key_1", "t")):
        (node,) = await nodes_of(agent, session, owner)
        assert node.parent_id is None


async def test_an_embedded_turn_has_its_place_too(autojump_clock: trio.abc.Clock) -> None:
    """Its program is given the words; the calls of its own tools do not matter to what it says next."""

    async def look() -> str:
        """Look."""
        return "42"

    agent = make_agent(Scripted([tool_call("c", "look"), *calling()[1:]], answer("It is 42"), answer("Bye")))
    async with agent.turn("1", model="lab-1", host_tools={"look": look}, session_id="s") as turn:
        words = await turn.text()
    await trio.sleep(1)
    async with agent.turn(
        [user("1"), said(words), user("2")], model="lab-1", host_tools={"look": look}, session_id="s"
    ) as turn:
        await turn.text()
    first, second = await nodes_of(agent)
    assert second.parent_id == first.id
    assert first.length == 4


async def test_a_store_that_fails_takes_nothing(autojump_clock: trio.abc.Clock) -> None:
    """The park is still there when the place in the transcript could not be found."""
    agent = make_agent(Scripted(calling(("c", "look")), answer("Done")))
    look = (tool("look"),)
    await ask(agent, user("1"), tools=look)
    history = [user("1"), said("", ToolCall("c", "look", "{}")), result("c")]
    store, find = store_of(agent), store_of(agent).find_nodes

    async def broken(*_: object) -> list[TranscriptNode]:
        raise StoreError("the disk is gone")

    store.find_nodes = broken  # type: ignore[method-assign]
    with pytest.raises(Exception, match="the disk is gone") as failed:
        await ask(agent, *history, tools=look)
    assert failed.value.code == "store_unavailable"  # type: ignore[attr-defined]
    store.find_nodes = find  # type: ignore[method-assign]
    await ask(agent, *history, tools=look)
    (row,) = await agent.store.list_turns()
    assert row.outcome == "completed"


# --- any tree of histories ----------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.integers(0, 20),  # which of the conversations so far, with none at first
        st.sampled_from(["one", "two", "pieces"]),  # how its answers are spelled
        st.booleans(),  # whether the server runs a tool of its own in this turn
        st.sampled_from(["again", "other"]),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_any_tree_of_histories(steps: list[tuple[int, str, bool, str]]) -> None:
    """Whichever answer a request goes on from, its node hangs there, and the path is what was said."""
    trio.run(_grow, steps, clock=trio.testing.MockClock(autojump_threshold=0))


async def _grow(steps: list[tuple[int, str, bool, str]]) -> None:
    async def clock() -> str:
        """The time."""
        return "noon"

    scripts: list[object] = []
    for number, (_, _, ran, _) in enumerate(steps):
        if ran:
            scripts.append([answer(f"a{number} ")[0], *calling((f"r{number}", "clock"))])
        scripts.append(answer(f"b{number} ", f"c{number}"))
    agent = make_agent(Scripted(*scripts), tools=[clock])  # type: ignore[arg-type]
    ends: list[tuple[list[Message], str | None]] = [([], None)]
    for number, (which, spelling, ran, words) in enumerate(steps):
        history, parent = ends[which % len(ends)]
        told = [*history, user(words)]
        await ask(agent, *told)
        node = (await nodes_of(agent))[-1]
        assert node.parent_id == parent
        pieces = [*([f"a{number} "] if ran else []), f"b{number} ", f"c{number}"]
        match spelling:
            case "one":
                given_back = [said("".join(pieces))]
            case "two":
                given_back = [said(piece) for piece in pieces]
            case _:
                given_back = [Message("assistant", tuple(Text(piece) for piece in pieces))]
        ends.append(([*told, *given_back], node.id))
        path = conversation(await agent.store.transcript("", "s", node.id))
        assert digest(*path, hidden=["clock"]) == digest(*ends[-1][0]) == node.digest
    assert len(await nodes_of(agent)) == len(steps)
