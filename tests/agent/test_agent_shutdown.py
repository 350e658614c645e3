"""Ending all turns: each client is told in its own format, each outcome is written, in bounded time."""

from __future__ import annotations

from collections.abc import Sequence

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
from support.scripted import HANG, Scripted, answer, calling, text

from trio_agent.agent import Agent
from trio_agent.errors import AgentError
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.conversation import ToolCall
from trio_agent.statemachine.events import CancelReason
from trio_agent.sweeping import _tidy
from trio_agent.turn.sink import SinkClosedError


async def stop_at(agent: Agent, seconds: float, reason: CancelReason = "shutdown") -> None:
    await trio.sleep_until(seconds)
    await agent.stop_turns(reason)


@pytest.mark.parametrize(
    ("reason", "code"), [("shutdown", "server_shutdown"), ("cancelled", "turn_cancelled")]
)
@pytest.mark.parametrize("script", [[HANG], [text("Hel"), HANG]], ids=["preflight", "streaming"])
async def test_a_reading_client_is_told(
    autojump_clock: trio.abc.Clock, script: list[object], reason: CancelReason, code: str
) -> None:
    """At once, as a status or as an error event, and the upstream is closed."""
    lab = Scripted(script)
    agent = make_agent(lab)
    sink = Collector()
    with nothing_left(lab):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(respond, agent, request(), sink)
            await stop_at(agent, 1.0, reason)
    assert trio.current_time() == 1.0
    assert sink.problem.code == code
    assert type(sink.last) is (fx.Reject if script == [HANG] else fx.SendError)
    assert (store_of(agent).only.outcome, store_of(agent).only.reason) == ("cancelled", reason)


async def test_a_client_that_does_not_read_is_not_waited_for(autojump_clock: trio.abc.Clock) -> None:
    """Half a second; the outcome is written all the same, and the other clients are told meanwhile."""
    lab = Scripted([text("Hel"), HANG])
    agent = make_agent(lab)
    reading, blocked = Collector(), Collector(held=trio.Event())
    with nothing_left(lab):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(respond, agent, request(), reading)
            nursery.start_soon(respond, agent, request(), blocked)
            await stop_at(agent, 1.0)
    assert 1.0 < trio.current_time() <= 2.0
    assert reading.problem.code == "server_shutdown"
    assert reading.times[-1] == 1.0
    assert blocked.attempts == 1, "after a write that was cut short nothing more is written"
    assert {(row.outcome, row.reason) for row in store_of(agent).turns.values()} == {
        ("cancelled", "shutdown")
    }


class Leaving(Collector):
    """A client whose connection breaks after a second."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def send(self, outputs: Sequence[fx.Output]) -> None:
        if trio.current_time() >= 1.0:
            raise self._error
        await super().send(outputs)


@pytest.mark.parametrize("error", [SinkClosedError(), RuntimeError("bug")])
async def test_a_client_that_is_gone_does_not_harm_the_others(
    autojump_clock: trio.abc.Clock, error: Exception
) -> None:
    """A write of the goodbye that fails stays inside its own turn."""
    lab = Scripted([text("Hel"), HANG])
    agent = make_agent(lab)
    reading = Collector()
    with nothing_left(lab):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(respond, agent, request(), Leaving(error))
            nursery.start_soon(respond, agent, request(), reading)
            await stop_at(agent, 1.0)
    assert reading.problem.code == "server_shutdown"
    assert [row.reason for row in store_of(agent).turns.values()] == ["shutdown"] * 2


async def test_an_answer_that_is_being_finished_is_finished(autojump_clock: trio.abc.Clock) -> None:
    """A turn whose outcome is being written when the server stops is complete, for the client too."""
    lab = Scripted(answer("Hello"))
    agent = make_agent(lab)
    sink = Collector()
    for delay in (0.3, 2.0):
        store_of(agent).delay = delay
        sink = Collector()
        admitted = await agent.admit(request())
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent.run, admitted, sink)
            await stop_at(agent, began + 1.5 * delay)
        assert sink.kinds[-1] == "Finish"
    assert {row.outcome for row in store_of(agent).turns.values()} == {"completed"}


async def test_a_slow_store_does_not_cost_the_goodbye(autojump_clock: trio.abc.Clock) -> None:
    """Stopped while the turn is being opened: 503, and no model call any more."""
    lab = Scripted(answer("never"))
    agent = make_agent(lab)
    store_of(agent).delay = 2.0
    sink = Collector()
    admitted = await agent.admit(request())
    began = trio.current_time()
    with nothing_left(lab):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent.run, admitted, sink)
            await stop_at(agent, began + 1.0)
    assert sink.problem.code == "server_shutdown"
    assert lab.calls == []
    assert store_of(agent).only.reason == "shutdown"
    assert store_of(agent).model_calls == []


@pytest.mark.parametrize("resumes", [False, True])
async def test_a_turn_that_was_let_in_too_late_ends_at_once(
    autojump_clock: trio.abc.Clock, resumes: bool
) -> None:
    """Between being admitted and being run the server stopped: 503, a row, and no model call."""
    lab = Scripted(calling(("h1", "read_file")), answer("never"))
    agent = make_agent(lab)
    asked = request(tools=(tool(),))
    if resumes:
        await respond(agent, asked)
        history = (user(), said("", ToolCall("h1", "read_file", "{}")), result("h1"))
        asked = request(*history, tools=(tool(),))
    admitted = await agent.admit(asked)
    made = len(lab.calls)
    agent.drain()
    await agent.stop_turns()
    sink = Collector()
    await agent.run(admitted, sink)
    assert sink.problem.code == "server_shutdown"
    assert isinstance(sink.last, fx.Reject)
    assert len(lab.calls) == made
    (row,) = store_of(agent).turns.values()
    assert (row.outcome, row.reason) == ("parked" if resumes else "cancelled", "shutdown")
    assert row.usage.total_tokens == 15 * made
    assert len(store_of(agent).model_calls) == made


async def test_a_draining_agent_lets_nobody_in(autojump_clock: trio.abc.Clock) -> None:
    """503 with a time to come back, while the turns that run go on."""
    lab = Scripted([5.0, *answer("Hello")])
    agent = make_agent(lab)
    sink = Collector()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(respond, agent, request(), sink)
        await trio.testing.wait_all_tasks_blocked()
        agent.drain()
        with pytest.raises(AgentError) as caught:
            await agent.admit(request())
        assert (caught.value.status, caught.value.code) == (503, "server_shutdown")
        assert caught.value.retry_after
    assert sink.text == "Hello"


async def test_a_host_that_waits_is_told(autojump_clock: trio.abc.Clock) -> None:
    """An embedded turn in its host-tool wait raises `server_shutdown`; the tool is cancelled."""

    async def slow() -> str:
        """Takes for ever."""
        await trio.sleep_forever()
        return ""

    lab = Scripted(calling(("a", "slow")))
    agent = make_agent(lab)
    with nothing_left(lab):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop_at, agent, 1.0)
            with pytest.raises(AgentError) as caught:
                async with agent.turn("Hi", model="lab-1", host_tools={"slow": slow}) as turn:
                    await turn.text()
    assert caught.value.code == "server_shutdown"


async def test_stopping_while_a_server_tool_runs(autojump_clock: trio.abc.Clock) -> None:
    """The tool is cancelled and the client told."""

    async def slow() -> str:
        """Takes for ever."""
        await trio.sleep_forever()
        return ""

    lab = Scripted(calling(("a", "slow")))
    agent = make_agent(lab, tools=[slow])
    sink = Collector()
    with nothing_left(lab):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(respond, agent, request(), sink)
            await stop_at(agent, 1.0)
    assert sink.problem.code == "server_shutdown"


async def test_turns_that_are_cancelled_from_outside_say_why(autojump_clock: trio.abc.Clock) -> None:
    """Whether they ran already or were only let in: the record has the reason that was given."""
    lab = Scripted([text("Hel"), HANG])
    agent = make_agent(lab)
    with nothing_left(lab):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(respond, agent, request(), Collector())
            admitted = await agent.admit(request())
            await trio.sleep(1)
            agent.end_as("shutdown")
            nursery.start_soon(agent.run, admitted, Collector())
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
    rows = list(store_of(agent).turns.values())
    assert [(row.outcome, row.reason) for row in rows] == [("cancelled", "shutdown")] * 2


async def test_a_provider_that_fails_to_tidy_up_harms_nobody() -> None:
    """Nor does one that is no subclass and has nothing to tidy."""
    tidied: list[str] = []

    class Untidy(Scripted):
        def tidy(self) -> None:
            tidied.append(self.name)
            raise RuntimeError("no broom")

    _tidy(Untidy(name="untidy"))
    _tidy(object())  # type: ignore[arg-type]
    assert tidied == ["untidy"]
