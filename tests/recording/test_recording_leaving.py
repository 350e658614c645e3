"""What is written down once a turn is being left: what the machine still takes, and nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from recording.recording_agents import Client, ask, chunk, files, finish, hello, recording_agent
from replay.replay_files import schedule
from support.upstream import Reply

from trio_agent.recording.calls import TracedCall
from trio_agent.recording.codec import load
from trio_agent.recording.context import TracedContext
from trio_agent.recording.format import Disconnect, Outcome, Recording
from trio_agent.recording.trace import Trace
from trio_agent.replay import Player, render_difference
from trio_agent.statemachine.events import Cancel, CancelReason
from trio_agent.world import SeededWorld

__all__ = ["schedule"]


def only(folder: Path) -> Recording:
    (path,) = files(folder)
    return load(path)


def kinds(recording: Recording) -> list[str]:
    return [str(type(each).__struct_config__.tag) for each in recording.entries]


async def plays(recording: Recording) -> None:
    replayed = await trio.to_thread.run_sync(Player().replay, recording, "recorded")
    assert replayed.ok, render_difference(replayed)


async def calls_a_tool(reply: Reply) -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "wait", "arguments": "{}"}}
    await reply.sse(chunk(role="assistant", tool_calls=[call]), finish("tool_calls"))


async def says_little(reply: Reply) -> None:
    await reply.head()
    await reply.chunk(b"data: " + chunk(content="Hel") + b"\n\n")
    await reply.until_client_leaves()


@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("inside", [False, True])
async def test_a_tool_that_fails_as_it_is_cancelled(inside: bool, tmp_path: Path) -> None:
    """The turn takes nothing that comes of its own end, be the tool the server's or the program's."""
    works = trio.Event()

    async def wait() -> str:
        """Wait."""
        works.set()
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("not now")

    async def program() -> None:
        async with agent.turn("Hi", model="m", host_tools={"wait": wait}) as turn:
            await turn.text()

    own = [] if inside else [wait]
    scope = trio.CancelScope()
    async with recording_agent(tmp_path, calls_a_tool, tools=own) as agent, trio.open_nursery() as nursery:

        async def run(what: Callable[[], Awaitable[None]]) -> None:
            with scope:
                await what()

        nursery.start_soon(run, program if inside else Client(agent, ask()).run)
        await works.wait()
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
    assert kinds(only(tmp_path))[-2:] == ["disconnect", "outcome"]
    await plays(only(tmp_path))


async def test_a_tool_that_ends_behind_a_stop(tmp_path: Path) -> None:
    """A result that waits while the turn is ended is neither a line nor in the outcome."""
    works, done = trio.Event(), trio.Event()

    async def wait() -> str:
        """Wait."""
        works.set()
        await done.wait()
        return "done"

    async with recording_agent(tmp_path, calls_a_tool, tools=[wait]) as agent, trio.open_nursery() as nursery:
        nursery.start_soon(Client(agent, ask()).run)
        await works.wait()
        await trio.testing.wait_all_tasks_blocked()
        (driver,) = agent._running
        async with driver._lock:  # as a write to the client holds it
            nursery.start_soon(agent.stop_turns)
            await trio.testing.wait_all_tasks_blocked()
            done.set()
            await trio.testing.wait_all_tasks_blocked()
    recording = only(tmp_path)
    assert "tool" not in kinds(recording)
    (outcome,) = [each for each in recording.entries if isinstance(each, Outcome)]
    assert not outcome.turn.get("tools")
    await plays(recording)


async def test_a_drained_call_that_the_end_of_the_server_cuts_off(tmp_path: Path) -> None:
    """The client left first, and that is why the turn ended: nothing is told of the server's end."""
    async with (
        recording_agent(tmp_path, says_little, on_disconnect="drain", drain_timeout=60) as agent,
        trio.open_nursery() as nursery,
    ):
        client = Client(agent, ask(), takes=0)
        nursery.start_soon(client.run)
        await client.held.wait()
        client.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        agent.end_as("shutdown")
    recording = only(tmp_path)
    left = [each.reason for each in recording.entries if isinstance(each, Disconnect)]
    assert left == ["client_disconnected"]
    (outcome,) = [each for each in recording.entries if isinstance(each, Outcome)]
    assert outcome.turn["reason"] == "client_disconnected"
    await plays(recording)


async def test_a_client_that_leaves_amid_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store has not failed: nobody waits for it any more."""
    writes = trio.Event()

    async def hang(*args: object) -> None:
        writes.set()
        await trio.sleep_forever()

    async with recording_agent(
        tmp_path, hello, server={"max_concurrent_turns": 1, "max_queued_turns": 0}
    ) as agent:
        monkeypatch.setattr(agent.store, "close_turn", hang)
        with agent.slots.slot("another") as held:
            await held.take()
            async with trio.open_nursery() as nursery:
                client = Client(agent, ask())
                nursery.start_soon(client.run)
                await writes.wait()
                client.scope.cancel()
        monkeypatch.undo()
    assert kinds(only(tmp_path)) == ["request", "disconnect"]
    await plays(only(tmp_path))


@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_as_the_outcome_is_written(
    stream: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the very moment before its last bytes, which the turn still owes it: that it left is in the file."""
    async with recording_agent(tmp_path, hello) as agent:
        write = agent.store.close_turn
        client = Client(agent, ask(stream=stream))

        async def leaving(*args: object) -> None:
            await write(*args)  # type: ignore[arg-type]
            client.scope.cancel()

        monkeypatch.setattr(agent.store, "close_turn", leaving)
        await client.run()
        monkeypatch.undo()
    assert "disconnect" in kinds(only(tmp_path))
    await plays(only(tmp_path))


@pytest.mark.parametrize(
    ("reason", "drains", "taken"),
    [
        ("client_disconnected", True, ["head", "data"]),
        ("client_disconnected", False, []),
        ("shutdown", True, []),
        ("shutdown", False, []),
    ],
)
def test_what_arrives_after_the_turn_was_left(reason: CancelReason, drains: bool, taken: list[str]) -> None:
    """Only a call that is read on for its bill takes it."""
    trace = Trace(lambda: 0.0)
    context = TracedContext(SeededWorld("a", lambda: 0.0), trace, "seed")
    call = TracedCall("lab", context)
    call.drains = drains
    context.begin_call(call)
    call.asked("POST", "http://127.0.0.1/", b"")
    context.leaving(Cancel(reason, 0.0), told=False)
    call.answered(200, [])
    call.arrived(b"late")
    call.stop()
    told = [str(type(each).__struct_config__.tag) for each in trace.entries]
    assert told == ["call", "disconnect", *taken, "close"]


@pytest.mark.parametrize("left", [False, True])
def test_what_breaks_behind_the_last_word(left: bool) -> None:
    """An exchange that breaks when the turn has heard all of the answer says nothing."""
    trace = Trace(lambda: 0.0)
    context = TracedContext(SeededWorld("a", lambda: 0.0), trace, "seed")
    call = TracedCall("lab", context)
    context.begin_call(call)
    call.asked("POST", "http://127.0.0.1/", b"")
    call.finished = True
    if left:
        context.leaving(Cancel("client_disconnected", 0.0), told=False)
    call.broke("read_error", "The connection is gone.")
    call.flush()
    told = [str(type(each).__struct_config__.tag) for each in trace.entries]
    assert told == (["call", "disconnect"] if left else ["call"])
