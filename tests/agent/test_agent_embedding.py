"""Turns inside another Trio program: events, host tools that wait alive, and leaving by any door."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import trio
from support.rig import make_agent, nothing_left, store_of, user
from support.scripted import HANG, Scripted, answer, calling, ending, text

from trio_agent.agent import Agent
from trio_agent.embedding import TurnFinished
from trio_agent.errors import AgentError
from trio_agent.providers.contract import UpstreamError
from trio_agent.statemachine.conversation import Text
from trio_agent.statemachine.events import TextDelta, ToolCallDelta, ToolCallStarted
from trio_agent.tools.python import ToolDefinitionError


def told(lab: Scripted, call: int = 1) -> list[tuple[str, bool]]:
    """The tool results that a model call got: text and whether it is an error."""
    return [
        ("".join(part.text for part in each.content if isinstance(part, Text)), each.is_error)
        for message in lab.calls[call].request.messages
        for each in message.tool_results
    ]


async def test_a_turn_is_a_block_and_an_iteration(autojump_clock: trio.abc.Clock) -> None:
    """Text as it comes, then `TurnFinished` with usage and cost; the outcome was written before."""
    lab = Scripted(answer("Hello", " you"))
    agent = make_agent(lab)
    with nothing_left(lab):
        async with agent.turn("Hi", model="lab-1", session_id="s") as turn:
            events = [event async for event in turn]
            assert store_of(agent).only.outcome == "completed"
    assert events[:2] == [TextDelta("Hello"), TextDelta(" you")]
    assert isinstance(events[2], TurnFinished)
    assert turn.finished is events[2]
    assert turn.finished.usage.total_tokens == 15
    assert turn.finished.cost_usd is not None
    row = store_of(agent).only
    assert (row.id, row.face, row.session_id) == (turn.id, "embedded", "s")


async def test_host_tools_are_called_while_the_turn_waits(autojump_clock: trio.abc.Clock) -> None:
    """Async and sync callables at once; their results go back in the order of the calls."""
    threads: list[str] = []

    async def read_file(path: str) -> str:
        """Read a file."""
        await trio.sleep(2)
        return f"contents of {path}"

    async def broken() -> str:
        """Never works."""
        raise ValueError("no disk")

    lab = Scripted(calling(("a", "read_file", '{"path": "x"}'), ("b", "broken")), answer("ok"))
    agent = make_agent(lab)
    with nothing_left(lab):
        async with agent.turn(
            [user()], model="lab-1", host_tools={"read_file": read_file, "broken": broken}
        ) as turn:
            events = [event async for event in turn]
    assert told(lab) == [("contents of x", False), ("The tool broken failed: ValueError: no disk", True)]
    assert [event.name for event in events if isinstance(event, ToolCallStarted)] == ["read_file", "broken"]
    assert "".join(each.arguments for each in events if isinstance(each, ToolCallDelta) and each.index == 0)
    assert lab.calls[0].request.tools[0].description == "Read a file."
    assert threads == []
    row = store_of(agent).only
    assert row.outcome == "completed"
    assert "host_tool_wait" in [each.state for each in row.states]


async def test_a_synchronous_host_tool_runs_in_a_thread() -> None:
    """The loop goes on meanwhile."""
    seen: list[int] = []

    def where() -> int:
        """Say where."""
        seen.append(threading.get_ident())
        return 1

    lab = Scripted(calling(("a", "where")), answer("ok"))
    async with make_agent(lab).turn("Hi", model="lab-1", host_tools={"where": where}) as turn:
        assert await turn.text() == "ok"
    assert seen
    assert threading.get_ident() not in seen


async def test_an_unknown_tool_is_told_to_the_model(autojump_clock: trio.abc.Clock) -> None:
    """A name that nobody knows gets a result that says so, and the turn goes on."""

    async def known() -> str:
        """Known."""
        return "known"

    lab = Scripted(calling(("a", "unknown")), answer("ok"))
    async with make_agent(lab).turn("Hi", model="lab-1", host_tools={"known": known}) as turn:
        assert await turn.text() == "ok"
    assert told(lab) == [("There is no tool named 'unknown'.", True)]


async def test_a_host_tool_that_takes_too_long_ends_the_turn(autojump_clock: trio.abc.Clock) -> None:
    """`host_tool_ttl` is the turn's limit: abandoned, told as a timeout, always the same way."""

    async def slow() -> str:
        """Takes for ever."""
        await trio.sleep_forever()
        return ""

    for _ in range(5):
        lab = Scripted(calling(("a", "slow")), answer("never"))
        agent = make_agent(lab, server={"host_tool_ttl": 100})
        began = trio.current_time()
        with nothing_left(lab), pytest.raises(AgentError) as caught:
            async with agent.turn("Hi", model="lab-1", host_tools={"slow": slow}) as turn:
                await turn.text()
        assert trio.current_time() - began == 100
        assert (caught.value.code, caught.value.status) == ("turn_timeout", 504)
        assert (store_of(agent).only.outcome, store_of(agent).only.reason) == (
            "abandoned",
            "host_tool_timeout",
        )


async def test_a_wait_for_the_host_is_not_the_turn_s_time(autojump_clock: trio.abc.Clock) -> None:
    """`turn_timeout` pauses while the host works."""

    async def slow() -> str:
        """Takes long."""
        await trio.sleep(500)
        return "there"

    lab = Scripted(calling(("a", "slow")), answer("ok"))
    agent = make_agent(lab, server={"turn_timeout": 60, "host_tool_ttl": 900})
    async with agent.turn("Hi", model="lab-1", host_tools={"slow": slow}) as turn:
        assert await turn.text() == "ok"


@pytest.mark.parametrize("door", ["leave", "raise", "cancel"])
@pytest.mark.parametrize("phase", ["before", "streaming", "host tool"])
async def test_leaving_the_block_ends_the_turn(autojump_clock: trio.abc.Clock, phase: str, door: str) -> None:
    """By whatever door, in whatever phase: when the block is left the outcome is written."""
    cancelled: list[str] = []

    async def slow() -> str:
        """Takes for ever."""
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append("slow")
        return ""

    script = {"before": [HANG], "streaming": [text("a"), HANG], "host tool": calling(("a", "slow"))}[phase]
    lab = Scripted(script)
    agent = make_agent(lab)

    async def leave() -> None:
        async with agent.turn("Hi", model="lab-1", host_tools={"slow": slow}) as turn:
            with trio.move_on_after(1):
                async for _event in turn:
                    pass
            if door == "raise":
                raise KeyError("mine")
            if door == "cancel":
                await trio.sleep_forever()

    with nothing_left(lab):
        if door == "raise":
            with pytest.raises(KeyError, match="mine"):
                await leave()
        else:
            with trio.move_on_after(2 if door == "cancel" else 99) as scope:
                await leave()
            assert scope.cancelled_caught == (door == "cancel")
    row = store_of(agent).only
    assert (row.outcome, row.reason) == ("cancelled", "client_disconnected")
    assert cancelled == (["slow"] if phase == "host tool" else [])
    assert agent.active_turns == 0


async def test_a_turn_that_nobody_reads_is_cancelled(autojump_clock: trio.abc.Clock) -> None:
    """Entering and leaving at once leaves nothing behind."""
    lab = Scripted(answer("Hello"))
    agent = make_agent(lab)
    with nothing_left(lab):
        async with agent.turn("Hi", model="lab-1"):
            pass
    assert all(row.outcome == "cancelled" for row in store_of(agent).turns.values())


@pytest.mark.parametrize(
    ("script", "code", "status", "before"),
    [
        ([UpstreamError("unauthorized", "no", status=401)], "upstream_error", 502, 0),
        ([UpstreamError("rejected", "too long", status=400)], "upstream_rejected", 400, 0),
        ([text("a"), UpstreamError("truncated", "cut")], "upstream_error", 502, 1),
        ([10.0, UpstreamError("rate_limited", "no", status=429, retry_after=7)], "rate_limited", 429, 0),
    ],
)
async def test_a_failure_is_raised_from_the_iteration(
    autojump_clock: trio.abc.Clock, script: list[Any], code: str, status: int, before: int
) -> None:
    """An AgentError with the status it would have over HTTP, after the events that came; not in a group."""
    lab = Scripted(script)
    agent = make_agent(lab)
    seen: list[object] = []
    with nothing_left(lab), pytest.raises(AgentError) as caught:
        await read(agent, seen)
    assert (caught.value.code, caught.value.status) == (code, status)
    assert len(seen) == before


async def read(agent: Agent, seen: list[object]) -> None:
    async with agent.turn("Hi", model="lab-1") as turn:
        async for event in turn:
            seen.append(event)  # noqa: PERF401 - what came before a failure counts


async def test_a_refusal_is_raised_on_entering(autojump_clock: trio.abc.Clock) -> None:
    """An unknown model, or a callable that cannot be a tool, never starts a turn."""
    agent = make_agent(Scripted(answer("no")))
    with pytest.raises(AgentError) as caught:
        async with agent.turn("Hi", model="lab-9"):
            raise AssertionError("not reached")
    assert caught.value.code == "unknown_model"
    with pytest.raises(ToolDefinitionError, match="no type hint"):
        agent.turn("Hi", model="lab-1", host_tools={"bad": lambda path: path})


async def test_a_slow_host_slows_the_model(autojump_clock: trio.abc.Clock) -> None:
    """Nothing is read ahead of the host by more than the batch in hand."""
    lab = Scripted([text("a"), text("b"), text("c"), ending()])
    async with make_agent(lab).turn("Hi", model="lab-1") as turn:
        await trio.sleep(50)
        assert lab.calls[0].asked == 1
        assert await turn.text() == "abc"


async def test_two_agents_live_side_by_side(autojump_clock: trio.abc.Clock) -> None:
    """Different configurations in one program share nothing."""
    one, two = Scripted([1.0, *answer("one")]), Scripted(answer("two"), name="other")
    first = make_agent(one, agent={"system_prompt": "Be one"})
    second = make_agent(two)
    async with first.turn("Hi", model="lab-1") as left, second.turn("Hi", model="other-1") as right:
        assert (await right.text(), await left.text()) == ("two", "one")
    assert [message.role for message in one.calls[0].request.messages] == ["system", "user"]
    assert [message.role for message in two.calls[0].request.messages] == ["user"]
    assert len(store_of(first).turns) == len(store_of(second).turns) == 1


async def test_the_operators_host_tools_are_not_offered_to_an_embedding_host() -> None:
    """Nobody in this program would run them; only the callables that came with the turn are offered."""
    provider = Scripted(answer("fine"))
    agent = make_agent(provider, host_tools=[{"name": "open_door", "description": "Opens a door"}])
    async with agent.turn("Hi", model="lab-1") as turn:
        assert await turn.text() == "fine"
    assert provider.calls[0].request.tools == ()


async def test_a_check_that_crashes_is_told_and_lets_nobody_down() -> None:
    """A plug-in's bug is an error with a code, and its text stays in the log."""

    class Broken(Scripted):
        def check(self, request: object) -> None:
            raise RuntimeError("sk-secret")

    agent = make_agent(Broken(answer("fine")))
    with pytest.raises(AgentError, match="RuntimeError") as caught:
        async with agent.turn("Hi", model="lab-1"):
            pass
    assert (caught.value.code, "sk-secret" in str(caught.value)) == ("internal_error", False)


@pytest.mark.parametrize("how", ["iterated", "read whole"])
async def test_a_slow_host_is_not_given_half_an_answer_for_a_whole_one(
    autojump_clock: trio.abc.Clock, how: str
) -> None:
    """It was too slow to be told that the time was up; it learns it at the end all the same."""
    agent = make_agent(Scripted([text("word ")] * 50), server={"turn_timeout": 1})

    async def read_slowly() -> None:
        async with agent.turn("Hi", model="lab-1") as turn:
            if how == "read whole":
                await trio.sleep(5)
                await turn.text()
            async for _ in turn:
                await trio.sleep(0.7)

    with pytest.raises(AgentError) as caught:
        await read_slowly()
    assert caught.value.code == "turn_timeout"
    (row,) = await store_of(agent).list_turns()
    assert (row.outcome, row.reason, row.state) == ("failed", "timeout", "streaming")
