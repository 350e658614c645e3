"""Recordings that the recorder made of a real agent, in real time, play again as they were.

The limits of the turns are short and really pass, for timers that fire in real time are what is recorded. The
tests themselves wait for what happens, never for a time.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from replay.replay_files import PLAYER
from support.upstream import Reply, Script, scripted_upstream

from trio_agent import open_agent
from trio_agent.agent import Agent
from trio_agent.errors import AgentError
from trio_agent.recording.codec import load
from trio_agent.recording.format import Data, Disconnect, Outcome, Recording, Request, Stop, TimerFired
from trio_agent.replay import render_difference
from trio_agent.server.app import create_app
from trio_agent.server.connection import CANCELS_ON_DISCONNECT
from trio_agent.store.contract import StoreError

KEY = "sk-never-to-be-written-0123456789"
QUICK = {"preflight_timeout": 0.05, "keepalive_interval": 0.06}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
RETURNED = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "42"},
]


def ask(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True, **fields}


class Asked:
    """A request to the application, without a socket."""

    def __init__(
        self,
        agent: Agent,
        body: Any,
        *,
        key: str | None = None,
        reads: float = float("inf"),
        once: str | None = None,
    ) -> None:
        """`once` is its Idempotency-Key."""
        self.sent: list[bytes] = []
        self.headers: dict[str, str] = {}
        self.scope = trio.CancelScope()
        self._app = create_app(agent, api_key=key)
        self._body = json.dumps(body).encode()
        self._key = key
        self._once = once
        self._reads = reads
        self._more = trio.Event()

    async def saw(self, wanted: bytes) -> None:
        """Return once `wanted` is in what was sent."""
        with trio.fail_after(10):
            while wanted not in b"".join(self.sent):
                await self._more.wait()

    async def run(self) -> None:
        given = [(b"host", b"127.0.0.1"), (b"content-length", b"%d" % len(self._body))]
        if self._key is not None:
            given.append((b"authorization", f"Bearer {self._key}".encode()))
        if self._once is not None:
            given.append((b"idempotency-key", self._once.encode()))
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http",
            "method": "POST", "path": "/v1/chat/completions", "raw_path": b"/v1/chat/completions",
            "query_string": b"", "root_path": "", "headers": given, "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2), "extensions": {CANCELS_ON_DISCONNECT: {}},
        }  # fmt: skip
        incoming = [{"type": "http.request", "body": self._body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if incoming:
                return incoming.pop()
            await trio.sleep_forever()
            raise AssertionError

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
                return
            if len(self.sent) >= self._reads:
                await trio.sleep_forever()
            self.sent.append(message["body"])
            self._more.set()
            self._more = trio.Event()

        with self.scope:
            await self._app(scope, receive, send)  # type: ignore[arg-type]


@asynccontextmanager
async def recorded(folder: Path, script: Script, **config: Any) -> AsyncIterator[Agent]:
    tools = config.pop("own_tools", ())
    async with scripted_upstream(script) as upstream:
        lab = {"base_url": f"{upstream.url}/v1", "api_key": KEY, "models": ["m"]}
        settings = {
            "providers": {
                "lab": {"module": "chat-completions", "config": lab | config.pop("lab", {})},
                "replay": {},
            },
            **config,
        }
        async with open_agent(
            settings, home=folder / "home", env={}, record=folder / "rec", tools=tools
        ) as agent:
            yield agent


def only(folder: Path) -> Recording:
    (path,) = (folder / "rec").glob("*.turn.jsonl")
    return load(path)


def kinds(recording: Recording) -> set[str]:
    return {str(entry.__struct_config__.tag) for entry in recording.entries}


def stretched(recording: Recording) -> Recording:
    """The same where the turn was left five seconds later, and the store answered seven seconds after."""
    later, entries = 0.0, []
    for line in recording.entries:
        ends = isinstance(line, Disconnect | Stop)
        later = max(later, 5.0 if ends else 0.0)
        entries.append(msgspec.structs.replace(line, t=line.t + later))
        later += 7.0 if ends else 0.0
    return msgspec.structs.replace(recording, entries=entries)


async def plays(recording: Recording) -> None:
    replayed = await trio.to_thread.run_sync(PLAYER.replay, recording, "recorded")
    assert replayed.ok, render_difference(replayed)


def chunk(**delta: Any) -> bytes:
    return json.dumps({"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta}]}).encode()


def finish(reason: str = "stop") -> bytes:
    choice = {"index": 0, "delta": {}, "finish_reason": reason}
    return json.dumps({"id": "c", "model": "m", "choices": [choice]}).encode()


async def hello(reply: Reply) -> None:
    await reply.sse(chunk(role="assistant", content="Hel"), chunk(content="lo"), finish())


class Slow:
    """Says its head at once, its text and its end when it is told to."""

    def __init__(self) -> None:
        self.text = trio.Event()
        self.said = trio.Event()
        self.end = trio.Event()

    async def __call__(self, reply: Reply) -> None:
        await reply.head()
        await self.text.wait()
        await reply.chunk(b"data: " + chunk(content="Hel") + b"\n\n")
        self.said.set()
        await self.end.wait()
        await reply.chunk(b"data: " + finish() + b"\n\ndata: [DONE]\n\n")
        await reply.end()


async def refuse(reply: Reply) -> None:
    await reply.json({"error": {"message": f"Incorrect API key provided: {KEY}"}}, status=401)


async def busy(reply: Reply) -> None:
    await reply.json({"error": {"message": "busy"}}, status=503)


async def whole(reply: Reply) -> None:
    answer = {"message": {"role": "assistant", "content": "Hello"}, "index": 0, "finish_reason": "stop"}
    await reply.json({"id": "c", "choices": [answer]})


async def cut(reply: Reply) -> None:
    await reply.head()
    await reply.chunk(b"data: " + chunk(content="Hel") + b"\n\n")


async def silent(reply: Reply) -> None:
    await reply.head()
    await reply.chunk(b"data: " + chunk(content="Hel") + b"\n\n")
    await reply.until_client_leaves()


async def deaf(reply: Reply) -> None:
    await reply.until_client_leaves()


async def calls(reply: Reply) -> None:
    if reply.request.json()["messages"][-1]["role"] == "tool":
        await hello(reply)
        return
    call = {"index": 0, **CALL}
    await reply.sse(chunk(role="assistant", tool_calls=[call]), finish("tool_calls"))


@pytest.mark.parametrize("script", [hello, refuse, busy, whole, cut])
@pytest.mark.parametrize("stream", [True, False])
async def test_what_an_upstream_did(script: Script, stream: bool, tmp_path: Path) -> None:
    """Whatever the upstream does, in one piece or many, with an error, or not to the end."""
    async with recorded(tmp_path, script, server=QUICK, lab={"max_retries": 1}) as agent:
        await Asked(agent, ask(stream=stream)).run()
    await plays(only(tmp_path))


async def test_a_slow_upstream(tmp_path: Path) -> None:
    """The window closes before the text comes, and keepalives go out before the end does."""
    slow = Slow()
    async with recorded(tmp_path, slow, server=QUICK) as agent, trio.open_nursery() as nursery:
        client = Asked(agent, ask())
        nursery.start_soon(client.run)
        await client.saw(b'"role"')
        slow.text.set()
        await client.saw(b"Hel")
        await client.saw(b"\n\n: ")
        slow.end.set()
    recording = only(tmp_path)
    fired = {line.timer for line in recording.entries if isinstance(line, TimerFired)}
    assert {"preflight", "keepalive"} <= fired
    await plays(recording)


async def test_a_slow_upstream_of_an_answer_that_is_not_streamed(tmp_path: Path) -> None:
    """What came in pieces is in the file in pieces."""
    slow = Slow()
    async with recorded(tmp_path, slow, server=QUICK) as agent, trio.open_nursery() as nursery:
        nursery.start_soon(Asked(agent, ask(stream=False)).run)
        slow.text.set()
        await slow.said.wait()
        await trio.testing.wait_all_tasks_blocked()
        slow.end.set()
    recording = only(tmp_path)
    assert len([line for line in recording.entries if isinstance(line, Data)]) == 2
    await plays(recording)


@pytest.mark.parametrize("script", [silent, deaf])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("on_disconnect", ["cancel", "drain"])
async def test_a_client_that_left(script: Script, stream: bool, on_disconnect: str, tmp_path: Path) -> None:
    """Before content or amid it, streamed or not, and also where the upstream is read on for its bill."""
    lab = {"on_disconnect": on_disconnect, "drain_timeout": 0.1}
    arrived = trio.Event()

    async def noted(reply: Reply) -> None:
        arrived.set()
        await script(reply)

    async with recorded(tmp_path, noted, lab=lab) as agent, trio.open_nursery() as nursery:
        client = Asked(agent, ask(stream=stream))
        nursery.start_soon(client.run)
        await arrived.wait()
        await trio.testing.wait_all_tasks_blocked()  # what the upstream has said has been taken in
        client.scope.cancel()
    assert "disconnect" in kinds(only(tmp_path))
    await plays(only(tmp_path))


@pytest.mark.parametrize("op", ["open_turn", "close_turn", "park_turn"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("stopped", [True, False])
async def test_an_end_amid_a_write(
    op: str, stream: bool, stopped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever leaves or is stopped while the store writes: what came after, and what did not."""
    began, may_write = trio.Event(), trio.Event()

    async with recorded(tmp_path, calls) as agent, trio.open_nursery() as nursery:
        write = getattr(agent.store, op)

        async def slowly(*args: object) -> None:
            began.set()
            await may_write.wait()
            await write(*args)

        monkeypatch.setattr(agent.store, op, slowly)
        client = Asked(agent, ask(stream=stream, tools=[] if op == "close_turn" else TOOLS))
        nursery.start_soon(client.run)
        await began.wait()
        if stopped:
            nursery.start_soon(agent.stop_turns)
        else:
            client.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        may_write.set()
    await plays(only(tmp_path))
    await plays(stretched(only(tmp_path)))


async def test_a_client_that_did_not_read(tmp_path: Path) -> None:
    """The write that was never taken is told as `hold`."""
    slow = Slow()
    slow.text.set()
    slow.end.set()
    async with recorded(tmp_path, slow, server={"turn_timeout": 0.4}) as agent:
        await Asked(agent, ask(), reads=1).run()
    assert "hold" in kinds(only(tmp_path))
    await plays(only(tmp_path))


async def test_a_turn_that_was_stopped(tmp_path: Path) -> None:
    """The shutdown of the server, told to the client."""
    async with recorded(tmp_path, silent) as agent, trio.open_nursery() as nursery:
        client = Asked(agent, ask())
        nursery.start_soon(client.run)
        await client.saw(b"Hel")
        await agent.stop_turns()
    assert "stop" in kinds(only(tmp_path))
    await plays(only(tmp_path))


async def test_a_stall_and_the_end_of_a_turns_time(tmp_path: Path) -> None:
    """Timers fire when the file says so, not when the virtual clock would."""
    async with recorded(tmp_path, silent, lab={"idle_timeout": 0.1}, server=QUICK) as agent:
        await Asked(agent, ask()).run()
    await plays(only(tmp_path))


async def test_a_park_that_is_taken_up_again(tmp_path: Path) -> None:
    """Both responses of the turn, in one file."""
    async with recorded(tmp_path, calls) as agent:
        await Asked(agent, ask(tools=TOOLS)).run()
        await Asked(agent, ask(messages=RETURNED, tools=TOOLS, stream=False)).run()
    await plays(only(tmp_path))


async def test_a_park_that_another_file_left(tmp_path: Path) -> None:
    """The second response alone: what the store held is in the file, whoever it belonged to."""
    key = "the-caller-key-0123456789abcdef"
    async with recorded(tmp_path, calls) as agent:
        await Asked(agent, ask(tools=TOOLS), key=key).run()
    (first,) = (tmp_path / "rec").iterdir()
    first.unlink()
    async with recorded(tmp_path, calls) as agent:
        await Asked(agent, ask(messages=RETURNED, tools=TOOLS), key=key).run()
    recording = only(tmp_path)
    assert "found" in kinds(recording)
    await plays(recording)


async def look(place: str = "here") -> str:
    """Look somewhere."""
    await trio.testing.wait_all_tasks_blocked()  # so that two of them are at work at once
    return f"a house, {place}"


async def looks(reply: Reply) -> None:
    if reply.request.json()["messages"][-1]["role"] == "tool":
        await hello(reply)
        return
    made = [
        {
            "index": index,
            "id": f"call_{index}",
            "type": "function",
            "function": {"name": "look", "arguments": json.dumps({"place": place})},
        }
        for index, place in enumerate(("here", "there"))
    ]
    await reply.sse(chunk(role="assistant", tool_calls=made), finish("tool_calls"))


async def test_tools_of_the_server(tmp_path: Path) -> None:
    """Two of them at once, and the model's second answer."""
    async with recorded(tmp_path, looks, own_tools=[look]) as agent:
        await Asked(agent, ask()).run()
    assert {"run_tool", "tool"} <= kinds(only(tmp_path))
    await plays(only(tmp_path))


async def _reads_on(agent: Agent) -> None:
    async with agent.turn("What is there?", model="m", host_tools={"look": look}) as turn:
        assert await turn.text() == "Hello"


async def _leaves(agent: Agent) -> None:
    async with agent.turn("What is there?", model="m", host_tools={"look": look}) as turn:
        async for _ in turn:
            break


@pytest.mark.parametrize("program", [_reads_on, _leaves])
async def test_a_turn_inside_a_program(program: Callable[[Agent], Awaitable[None]], tmp_path: Path) -> None:
    """Read to its end with the host's tools, or left after the first event."""
    async with recorded(tmp_path, looks) as agent:
        await program(agent)
    await plays(only(tmp_path))


@pytest.mark.parametrize("model", ["replay/demo", "replay/slow", "replay/parallel", "replay/think"])
async def test_a_provider_without_http(model: str, tmp_path: Path) -> None:
    """Its batches of events are in the file."""
    replay = {"module": "replay", "config": {"pace": 0.01}}
    async with recorded(tmp_path, hello, providers={"replay": replay}) as agent:
        await Asked(agent, ask(model=model, tools=TOOLS)).run()
    assert "asked" in kinds(only(tmp_path))
    await plays(only(tmp_path))


@pytest.mark.parametrize("op", ["open_turn", "close_turn", "park_turn"])
async def test_a_store_that_failed(op: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the beginning, at the end, and at the park."""

    async def fail(*args: object) -> None:
        await trio.lowlevel.checkpoint()
        raise StoreError("The disk is gone.")

    async with recorded(tmp_path, calls) as agent:
        monkeypatch.setattr(agent.store, op, fail)
        await Asked(agent, ask(tools=TOOLS if op == "park_turn" else [])).run()
        monkeypatch.undo()
    if (tmp_path / "rec").exists() and list((tmp_path / "rec").iterdir()):
        await plays(only(tmp_path))


async def test_a_refusal(tmp_path: Path) -> None:
    """A turn that was rejected before it began, in this process and over HTTP."""
    async with recorded(tmp_path, hello, server={"max_concurrent_turns": 1, "max_queued_turns": 0}) as agent:
        with agent.slots.slot("another") as held:
            await held.take()
            await Asked(agent, ask()).run()
    await plays(only(tmp_path))


async def test_a_refusal_in_this_process(tmp_path: Path) -> None:
    """The same in an embedding program."""
    async with recorded(tmp_path, hello, server={"max_concurrent_turns": 1, "max_queued_turns": 0}) as agent:
        with agent.slots.slot("another") as held:
            await held.take()
            with pytest.raises(AgentError):
                await _reads_on(agent)
    await plays(only(tmp_path))


async def test_a_refusal_after_a_wait(tmp_path: Path) -> None:
    """It says how long it waited, and when to come again; so does its replay, which waits for nobody."""
    config = {"max_concurrent_turns": 1, "queue_timeout": 0.1}
    async with recorded(tmp_path, hello, server=config) as agent:
        agent.slots._ends.append(trio.current_time() - 7)
        with agent.slots.slot("another") as held:
            await held.take()
            asked = Asked(agent, ask())
            await asked.run()
    (line,) = [line for line in only(tmp_path).entries if isinstance(line, Request)]
    assert line.full
    assert line.waited >= 0.1
    assert asked.headers["retry-after"] == "8"
    await plays(only(tmp_path))


async def test_a_turn_that_waited(tmp_path: Path) -> None:
    """Its file begins when the wait is over; the replay's record says the same of it."""
    async with recorded(tmp_path, hello, server={"max_concurrent_turns": 1}) as agent:

        async def hold() -> None:
            with agent.slots.slot("another") as held:
                await held.take()
                while not agent.slots.waiting:
                    await trio.lowlevel.checkpoint()
                await trio.sleep(0.05)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold)
            while not agent.slots.figures.running:
                await trio.lowlevel.checkpoint()
            await Asked(agent, ask()).run()
    (line,) = [line for line in only(tmp_path).entries if isinstance(line, Request)]
    assert line.waited >= 0.05
    assert not line.full
    assert line.t == 0
    (outcome,) = [line for line in only(tmp_path).entries if isinstance(line, Outcome)]
    assert outcome.turn["notes"] == [f"it waited {line.waited:g} s for one of the turns that may run at once"]
    await plays(only(tmp_path))
