"""Turns that wait for their caller's tools over HTTP: parked, resumed once, or left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from support.rig import (
    Collector,
    make_agent,
    nothing_left,
    request,
    respond,
    result,
    said,
    store_of,
    tool,
    user,
)
from support.scripted import Scripted, answer, calling, ending, text, tool_call

from trio_agent.agent import Agent
from trio_agent.errors import AgentError
from trio_agent.statemachine import Turn
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import Message, Text, ToolCall, ToolResult
from trio_agent.store.sqlite import open_store
from trio_agent.turn.request import TurnRequest

READ = ToolCall("h1", "read_file", '{"path": "a"}')
LIST = ToolCall("h2", "list_dir", "{}")
TOOLS = (tool("read_file"), tool("list_dir"))


def clock() -> str:
    """The time."""
    return "noon"


def asking(*messages: Message, **fields: Any) -> TurnRequest:
    return request(*messages, **({"tools": TOOLS} | fields))


def provider(*more: Any) -> Scripted:
    """Calls one tool of the caller's, then answers."""
    first = [text("Let me look"), *calling(("h1", "read_file", READ.arguments))]
    return Scripted(first, *(more or [answer("It says 42")]))


CONTINUED = (user(), said("Let me look", READ), result("h1"))


async def parked(agent: Agent, *, messages: tuple[Message, ...] = (), **fields: Any) -> Collector:
    sink = await respond(agent, asking(*messages, **fields))
    assert sink.last.finish_reason == "tool_calls"  # type: ignore[union-attr]
    return sink


def outcomes(agent: Agent) -> list[str]:
    return sorted(row.outcome for row in store_of(agent).turns.values())


async def test_a_turn_goes_on_with_its_results(autojump_clock: trio.abc.Clock) -> None:
    """Same turn id, a preflight of its own, usage of its own; the record holds the sum."""
    lab = provider()
    agent = make_agent(lab)
    with nothing_left(lab):
        first = await parked(agent)
        assert store_of(agent).only.outcome == "parked"
        assert agent.active_turns == 0
        await trio.sleep(300)
        admitted = await agent.admit(asking(*CONTINUED))
        assert admitted.turn_id == store_of(agent).only.id
        second = Collector()
        await agent.run(admitted, second)
    assert second.kinds == ["Commit", "SendRole", "SendText", "Finish"]
    assert second.text == "It says 42"
    assert [each.last.usage.total_tokens for each in (first, second)] == [15, 15]  # type: ignore[union-attr]
    row = store_of(agent).only
    assert (row.outcome, row.usage.total_tokens) == ("completed", 30)
    assert [each.state for each in row.states] == [
        "preflight",
        "streaming",
        "host_tool_wait",
        "resumed",
        "preflight",
        "streaming",
        "done",
    ]
    assert [call.number for call in store_of(agent).model_calls] == [1, 2]
    assert store_of(agent).parks == {}


async def test_the_model_gets_what_it_said_and_what_came_back(autojump_clock: trio.abc.Clock) -> None:
    """The resumed call continues the machine's conversation, and words after the results come along."""
    lab = provider()
    agent = make_agent(lab)
    await parked(agent)
    await respond(agent, asking(*CONTINUED, user("Be brief")))
    told = lab.calls[1].request.messages
    assert [message.role for message in told] == ["user", "assistant", "tool", "user"]
    assert told[1].origin == "lab/lab-1"
    assert told[3].text == "Be brief"


async def test_results_stand_where_their_calls_do(autojump_clock: trio.abc.Clock) -> None:
    """A client may know an answer with two calls as two messages, each with its result right behind it."""
    lab = Scripted([text("Look"), *calling(("h1", "read_file"), ("h2", "list_dir"))], answer("done"))
    agent = make_agent(lab)
    await parked(agent)
    first, second = ToolCall("h1", "read_file", "{}"), ToolCall("h2", "list_dir", "{}")
    history = (user(), said("Look", first), result("h1", "1"), said("", second), result("h2", "2"))
    with pytest.raises(AgentError, match="h1 are missing"):
        await agent.admit(asking(*history[:1], said("Look", first, second), result("h2", "2")))
    sink = await respond(agent, asking(*history))
    assert sink.text == "done"
    assert store_of(agent).only.outcome == "completed"
    told = lab.calls[1].request.messages
    assert [message.role for message in told] == ["user", "assistant", "tool"]
    assert [each.text for each in told[2].tool_results] == ["1", "2"]


NOON, ONE = (Message("system", (Text(f"It is {time}."),)) for time in ("noon", "one"))
INSTRUCTED: dict[str, tuple[list[Message], list[Message]]] = {
    "written anew": ([NOON], [ONE]),
    "left out": ([NOON], []),
    "added": ([], [Message("developer", (Text("Be brief"),)), ONE]),
}


IDS = ("call_Zq81LwXo3bT5kY", "toolu_01abcDEF2345ghij")


@pytest.mark.parametrize("case", INSTRUCTED)
async def test_instructions_do_not_tell_turns_apart(autojump_clock: trio.abc.Clock, case: str) -> None:
    """The turn goes on under the instructions that the request brings, behind the operator's own."""
    before, now = INSTRUCTED[case]
    lab = Scripted(*(calling((each, "read_file")) for each in IDS), answer("42"))
    agent = make_agent(lab, agent={"system_prompt": "Be kind"})
    await respond(agent, asking(*before, user()))
    first, second = ((said("", ToolCall(each, "read_file", "{}")), result(each)) for each in IDS)
    await respond(agent, asking(*now, user(), *first))
    await respond(agent, asking(*before, user(), *first, *second))
    assert store_of(agent).only.outcome == "completed"
    told = [[message.text for message in call.request.messages] for call in lab.calls]
    assert told[1] == ["Be kind", *(each.text for each in now), "Hello", "", ""]
    assert told[2] == ["Be kind", *(each.text for each in before), "Hello", "", "", "", ""]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_instructions_tell_turns_apart_whose_calls_are_only_numbered(
    autojump_clock: trio.abc.Clock, order: tuple[int, int]
) -> None:
    """Two users of one key ask the same and get a call of the same id: neither gets the other's turn."""
    lab = Scripted(*(calling(("h1", "read_file")) for _ in range(2)), answer("42"))
    agent = make_agent(lab)
    users = [Message("system", (Text(f"You help {name}."),)) for name in ("Ann", "Bob")]
    turns = []
    for each in users:
        turns.append(await agent.admit(asking(each, user())))
        await agent.run(turns[-1], Collector())
    came = (user(), said("", ToolCall("h1", "read_file", "{}")), result("h1"))
    for at in order:
        admitted = await agent.admit(asking(users[at], *came))
        assert admitted.turn_id == turns[at].turn_id
        await agent.run(admitted, Collector())


async def test_a_turn_parks_again_and_again(autojump_clock: trio.abc.Clock) -> None:
    """Three rounds of the caller's tools are one turn, each matched by its own history."""
    lab = Scripted(
        calling(("a", "read_file")), calling(("b", "read_file")), calling(("c", "read_file")), answer("done")
    )
    agent = make_agent(lab)
    history: list[Message] = [user()]
    await parked(agent)
    for call_id in "abc":
        history += [said("", ToolCall(call_id, "read_file", "{}")), result(call_id)]
        sink = await respond(agent, asking(*history))
    assert sink.text == "done"
    row = store_of(agent).only
    assert (row.outcome, row.usage.total_tokens) == ("completed", 60)


@pytest.mark.parametrize(
    ("why", "changed"),
    [
        ("another owner", {"owner": "somebody"}),
        ("another model", {"model": "lab/lab-1"}),
        ("an edited history", {"messages": (user("Hello!"), *CONTINUED[1:])}),
        ("a shorter history", {"messages": CONTINUED[1:]}),
        ("an edited answer", {"messages": (user(), said("I looked", READ), result("h1"))}),
        (
            "edited arguments",
            {"messages": (user(), said("", ToolCall("h1", "read_file", "{}")), result("h1"))},
        ),
        ("an answered history", {"messages": (*CONTINUED, said("42"), user("And now?"))}),
    ],
)
async def test_what_does_not_match_is_an_ordinary_turn(
    autojump_clock: trio.abc.Clock, why: str, changed: dict[str, Any]
) -> None:
    """The client's view of the conversation wins, and the park stays for who may want it."""
    lab = provider()
    agent = make_agent(lab)
    await parked(agent, owner="me")
    fields = {"owner": "me"} | changed
    messages = fields.pop("messages", CONTINUED)
    sink = await respond(agent, asking(*messages, **fields))
    assert sink.text == "It says 42"
    assert outcomes(agent) == ["completed", "parked"]
    assert len(store_of(agent).parks) == 1
    assert [message.origin for message in lab.calls[1].request.messages] == [None] * len(messages)


async def test_missing_results_are_named_and_the_park_stays(autojump_clock: trio.abc.Clock) -> None:
    """400 with the ids; the full set resumes afterwards."""
    lab = Scripted(calling(("h1", "read_file", READ.arguments), ("h2", "list_dir")), answer("ok"))
    agent = make_agent(lab)
    await parked(agent)
    history = (user(), said("", READ, LIST))
    with pytest.raises(AgentError) as caught:
        await agent.admit(asking(*history, result("h2")))
    assert (caught.value.status, caught.value.code) == (400, "invalid_tool_results")
    assert "h1" in caught.value.message
    assert "h2" not in caught.value.message
    assert outcomes(agent) == ["parked"]
    sink = await respond(agent, asking(*history, result("h2"), result("h1")))
    assert sink.text == "ok"
    results = [each.tool_call_id for each in lab.calls[1].request.messages[-1].tool_results]
    assert results == ["h1", "h2"]


async def test_a_result_that_comes_twice_resumes_once(autojump_clock: trio.abc.Clock) -> None:
    """A repeated result is dropped, whether of this round or of an earlier one."""
    lab = Scripted(calling(("a", "read_file")), calling(("b", "read_file")), answer("done"))
    agent = make_agent(lab)
    await parked(agent)
    first = (user(), said("", ToolCall("a", "read_file", "{}")), result("a"))
    await respond(agent, asking(*first, result("a")))
    second = (*first, result("a"), said("", ToolCall("b", "read_file", "{}")), result("b"), result("a"))
    sink = await respond(agent, asking(*second))
    assert sink.text == "done"
    assert sorted(store_of(agent).endings.values()) == [1]


async def test_a_client_that_skips_the_tools_goes_on_without_them(autojump_clock: trio.abc.Clock) -> None:
    """No result at all: an ordinary turn whose history is repaired, and the record says so."""
    lab = provider()
    agent = make_agent(lab)
    await parked(agent)
    await respond(agent, asking(user(), said("Let me look", READ), user("Never mind")))
    row = next(row for row in store_of(agent).turns.values() if row.outcome == "completed")
    assert row.notes == ("added an error result for tool call h1, which had none",)
    assert outcomes(agent) == ["completed", "parked"]


async def test_an_expired_park_is_abandoned(autojump_clock: trio.abc.Clock) -> None:
    """After `host_tool_ttl` the turn is closed, and its results make an ordinary turn."""
    lab = provider()
    agent = make_agent(lab, server={"host_tool_ttl": 100})
    await parked(agent)
    await trio.sleep(101)
    sink = await respond(agent, asking(*CONTINUED))
    assert sink.text == "It says 42"
    assert await store_of(agent).expire_parks(agent.world.now()) == 1
    assert outcomes(agent) == ["abandoned", "completed"]


async def test_limits_count_over_the_whole_turn(autojump_clock: trio.abc.Clock) -> None:
    """`max_model_calls` is not reset by a park; reaching it on resumption is a 422 before content."""
    lab = Scripted(calling(("h1", "read_file", READ.arguments)))
    agent = make_agent(lab, agent={"max_model_calls": 1})
    await parked(agent)
    sink = await respond(agent, asking(user(), said("", READ), result("h1")))
    assert sink.kinds == ["Reject"]
    assert sink.problem.code == "max_model_calls"
    assert store_of(agent).only.outcome == "failed"


async def test_a_resumed_turn_that_fails_early_is_a_status(autojump_clock: trio.abc.Clock) -> None:
    """The new response has its own preflight; when it fails, the turn waits on."""
    lab = provider([ValueError("no")])
    agent = make_agent(lab)
    await parked(agent)
    sink = await respond(agent, asking(*CONTINUED, stream=False))
    assert sink.kinds == ["Reject"]
    row = store_of(agent).only
    assert (row.outcome, row.usage.total_tokens) == ("parked", 15)


async def test_a_turn_that_may_not_run_does_not_use_up_the_park(autojump_clock: trio.abc.Clock) -> None:
    """429 for a full server leaves the park where it is."""
    lab = provider()
    agent = make_agent(lab, server={"max_concurrent_turns": 1, "max_queued_turns": 0})
    await parked(agent)
    blocked = Collector(held=trio.Event())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(respond, agent, request(user("other")), blocked)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(AgentError) as caught:
            await agent.admit(asking(*CONTINUED))
        assert caught.value.status == 429
        nursery.cancel_scope.cancel()
    assert len(store_of(agent).parks) == 1
    assert "rejected" in outcomes(agent)


async def test_parallel_calls_reach_the_client_in_fragments(autojump_clock: trio.abc.Clock) -> None:
    """Interleaved fragments keep their index, and the parked conversation has them whole."""
    start = [*tool_call("h1", "read_file", '{"pa', 0), *tool_call("h2", "list_dir", "{", 1)]
    fragments = [fx_delta(0, 'th": "a"}'), fx_delta(1, "}")]
    lab = Scripted([start, fragments, ending("tool_calls")], answer("ok"))
    agent = make_agent(lab)
    sink = await parked(agent)
    for index, expected in ((0, READ), (1, LIST)):
        pieces = [each.arguments for each in sink.of(fx.SendToolArguments) if each.index == index]
        assert "".join(pieces) == expected.arguments
    sink = await respond(agent, asking(user(), said("", READ, LIST), result("h1"), result("h2")))
    assert sink.text == "ok"


def fx_delta(index: int, arguments: str) -> ev.CallEvent:
    return ev.ToolCallDelta(index, arguments)


@pytest.mark.parametrize("real", [False, True], ids=["memory", "sqlite"])
async def test_of_twenty_requests_with_the_same_results_one_resumes(tmp_path: Path, real: bool) -> None:
    """The others are ordinary turns of what the client sent; every one is answered and accounted for."""
    lab = provider()

    async def race(agent: Agent) -> None:
        with nothing_left(lab):
            await parked(agent)
            sinks = [Collector() for _ in range(20)]
            async with trio.open_nursery() as nursery:
                for sink in sinks:
                    nursery.start_soon(respond, agent, asking(*CONTINUED), sink)
        assert [sink.text for sink in sinks] == ["It says 42"] * 20
        rows = await agent.store.list_turns()
        assert [row.outcome for row in rows] == ["completed"] * 20
        assert len([row for row in rows if any(each.state == "resumed" for each in row.states)]) == 1
        assert sum(row.usage.total_tokens for row in rows) == 21 * 15

    if not real:
        await race(make_agent(lab))
        return
    async with open_store(tmp_path / "store.db", instance_id="one", now=lambda: 1_700_000_000.0) as store:
        await race(make_agent(lab, store=store))


async def test_a_collected_answer_parks_too(autojump_clock: trio.abc.Clock) -> None:
    """Not streamed: the calls come at once, and streaming may be asked for when it goes on."""
    lab = provider()
    agent = make_agent(lab)
    sink = await parked(agent, stream=False)
    assert sink.committed_by == "end"
    sink = await respond(agent, asking(*CONTINUED, stream=True))
    assert sink.committed_by == "content"
    assert store_of(agent).only.outcome == "completed"


async def test_results_in_anthropic_s_shape_resume(autojump_clock: trio.abc.Clock) -> None:
    """A user's message that holds the results and more words: both reach the model."""
    lab = provider()
    agent = make_agent(lab)
    await parked(agent)
    back = Message("user", (ToolResult("h1", (Text("42"),)), Text("Go on")))
    await respond(agent, asking(user(), said("Let me look", READ), back))
    assert store_of(agent).only.outcome == "completed"
    told = lab.calls[1].request.messages
    assert told[-2].tool_results[0].content == (Text("42"),)
    assert told[-1].text == "Go on"


async def test_an_answer_that_shows_the_servers_tools_is_resumed_too() -> None:
    """A history with the rounds of the server's own tools in it, kept or sent back, goes on with the park."""
    script = Scripted(
        calling(("s1", "clock")),
        [text("Let me look"), *calling(("s2", "clock"), ("h1", "read_file", READ.arguments))],
        answer("It says 42"),
    )
    agent = make_agent(script, tools=(clock,))
    await parked(agent)
    [row] = store_of(agent).turns.values()
    kept = Turn.restore(store_of(agent).parks[row.id].snapshot).answered
    assert [message.role for message in kept] == ["assistant", "tool", "assistant", "tool"]
    await respond(agent, asking(user(), *kept, result("h1")))
    assert outcomes(agent) == ["completed"]
    roles = [message.role for message in script.requests[-1].messages]
    assert roles == ["user", "assistant", "tool", "assistant", "tool"]


async def test_an_edited_call_of_the_servers_tools_begins_another_turn() -> None:
    """Where the client changed what the server's own tool was asked, its view of the conversation wins."""
    script = Scripted(calling(("s1", "clock"), ("h1", "read_file", READ.arguments)), answer("It says 42"))
    agent = make_agent(script, tools=(clock,))
    await parked(agent)
    theirs = said("", ToolCall("s1", "clock", '{"zone": "UTC"}'), READ)
    await respond(agent, asking(user(), theirs, result("s1"), result("h1")))
    assert outcomes(agent) == ["completed", "parked"]


async def test_what_each_response_of_a_turn_answered() -> None:
    """A turn that parks twice tells its two answers apart: the second begins behind the caller's results."""
    script = provider(calling(("s1", "clock"), ("h2", "list_dir")), answer("done"))
    agent = make_agent(script, tools=(clock,))
    await parked(agent)
    await respond(agent, asking(*CONTINUED))
    [park] = store_of(agent).parks.values()
    kept = Turn.restore(park.snapshot).answered
    assert [message.role for message in kept] == ["assistant", "tool"]
    assert [call.id for call in kept[0].tool_calls] == ["s1", "h2"]
    assert [each.tool_call_id for each in kept[1].tool_results] == ["s1"]
