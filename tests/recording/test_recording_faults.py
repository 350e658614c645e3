"""A disk that does not do what it should, under a server that records: no turn may notice."""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from support.serving import serving, until
from support.upstream import Reply, Script, scripted_upstream

from trio_agent import Record, open_agent
from trio_agent.agent import Agent
from trio_agent.recording import recorder
from trio_agent.recording.codec import load
from trio_agent.recording.format import Bytes, Lost, Recording
from trio_agent.server.app import create_app
from trio_agent.world import CountingWorld

LONG = "x" * 400_000
"""A prompt by which the recording becomes larger than the store's files."""


def chunk(**delta: Any) -> str:
    return json.dumps({"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta}]})


FINISH = json.dumps({"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})


async def hello(reply: Reply) -> None:
    await reply.sse(chunk(role="assistant", content="Hel"), chunk(content="lo"), FINISH)


@asynccontextmanager
async def recorded(
    folder: Path, script: Script = hello, record: Record | None = None
) -> AsyncIterator[Agent]:
    """An agent in front of a scripted upstream, recording to `folder / "rec"`; each gives the same ids."""
    async with scripted_upstream(script) as upstream:
        lab = {"base_url": f"{upstream.url}/v1", "api_key": "sk-of-the-lab", "models": ["m"]}
        async with open_agent(
            {"providers": {"lab": {"module": "chat-completions", "config": lab}}},
            home=folder / f"home-{upstream.port}",
            env={},
            world=CountingWorld(),
            record=record or folder / "rec",
        ) as agent:
            yield agent


async def said(agent: Agent, prompt: str = "Hi") -> str:
    """The whole answer's text; it must have ended as it should."""
    transport = httpx.ASGITransport(create_app(agent, api_key=None))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        body = {"model": "m", "messages": [{"role": "user", "content": prompt}], "stream": True}
        answer = await client.post("/v1/chat/completions", json=body)
    events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    choices = [json.loads(event)["choices"][0] for event in events[:-1]]
    assert choices[-1]["finish_reason"] == "stop"
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def files(folder: Path) -> list[Path]:
    return sorted((folder / "rec").glob("*.turn.jsonl"))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


def body_of(recording: Recording) -> str:
    """What the client was sent, as the recording has it."""
    return "".join(each.text or "" for each in recording.entries if isinstance(each, Bytes))


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are written as soon as they are there, not once a second."""
    monkeypatch.setattr(recorder, "FLUSH_SECONDS", 0.0)


# --- folders ----------------------------------------------------------------------------------------


def vanish(folder: Path) -> None:
    shutil.rmtree(folder)


def become_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("not a folder any more")


@pytest.mark.parametrize("happen", [vanish, become_a_file])
async def test_a_folder_that_is_gone_costs_each_turn_its_recording_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, happen: Callable[[Path], None]
) -> None:
    """The answers are whole, and the log says once for each turn what is missing."""
    async with recorded(tmp_path) as agent:
        happen(tmp_path / "rec")
        assert [await said(agent), await said(agent)] == ["Hello", "Hello"]
    told = warnings(caplog)
    assert len(told) == 2
    assert len(set(told)) == 2
    assert all("breaks off" in each for each in told)


async def test_a_file_that_vanishes_does_not_begin_again_in_its_middle(
    tmp_path: Path, at_once: None, caplog: pytest.LogCaptureFixture
) -> None:
    """Lines without a header would be no recording."""
    removed = trio.Event()

    async def in_two_parts(reply: Reply) -> None:
        await reply.head()
        await reply.chunk(f"data: {chunk(role='assistant', content='Hel')}\n\n".encode())
        await removed.wait()
        await reply.chunk(f"data: {chunk(content='lo')}\n\ndata: {FINISH}\n\ndata: [DONE]\n\n".encode())
        await reply.end()

    async def remove() -> None:
        (path,) = await there(tmp_path, "Hel")
        path.unlink()
        removed.set()

    async with recorded(tmp_path, in_two_parts) as agent, trio.open_nursery() as nursery:
        nursery.start_soon(remove)
        assert await said(agent) == "Hello"
    assert files(tmp_path) == []
    assert len(warnings(caplog)) == 1


async def there(folder: Path, text: str) -> list[Path]:
    """Wait until the recording holds a text."""
    with trio.fail_after(10):
        while not any(text in path.read_text() for path in files(folder)):
            await trio.lowlevel.checkpoint()
    return files(folder)


# --- full disks -------------------------------------------------------------------------------------


@pytest.fixture
def limit_files() -> Iterator[Callable[[int], None]]:
    """Lets no file of this process grow beyond a size: a write goes as far as that, the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert signal.getsignal(signal.SIGXFSZ) is signal.SIG_IGN, "Python ignores it from its start"
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_disk_that_was_full_from_the_beginning_leaves_no_file(
    tmp_path: Path, limit_files: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    """A file without its header would be no recording, and an empty one neither."""
    async with recorded(tmp_path) as agent:
        limit_files(300_000)
        assert await said(agent, LONG) == "Hello"
    assert files(tmp_path) == []
    (told,) = warnings(caplog)
    assert "File too large" in told


@pytest.mark.parametrize(
    ("room", "has_last_word"), [(0, False), (30, False), (200, True)], ids=["none", "little", "some"]
)
async def test_a_disk_that_fills_up_leaves_whole_lines(
    tmp_path: Path,
    at_once: None,
    limit_files: Callable[[int], None],
    caplog: pytest.LogCaptureFixture,
    room: int,
    has_last_word: bool,
) -> None:
    """What was written half is taken back. Where there is room for it, the last line says what happened."""
    full = trio.Event()

    async def in_two_parts(reply: Reply) -> None:
        await reply.head()
        await reply.chunk(f"data: {chunk(role='assistant', content='Hel')}\n\n".encode())
        await full.wait()
        rest = [chunk(content="l"), chunk(content="o"), FINISH, "[DONE]"]
        await reply.chunk("".join(f"data: {each}\n\n" for each in rest).encode())
        await reply.end()

    async def fill() -> None:
        nonlocal limit
        (path,) = await there(tmp_path, "Hel")
        await trio.testing.wait_all_tasks_blocked()  # nothing is being written
        limit = path.stat().st_size + room
        limit_files(limit)
        full.set()

    limit = 0
    async with recorded(tmp_path, in_two_parts) as agent, trio.open_nursery() as nursery:
        nursery.start_soon(fill)
        assert await said(agent, LONG) == "Hello"
    (path,) = files(tmp_path)
    assert path.stat().st_size <= limit
    recording = load(path)
    assert isinstance(recording.entries[-1], Lost) is has_last_word
    assert "Hel" in body_of(recording)
    (told,) = warnings(caplog)
    assert "File too large" in told


# --- slow disks -------------------------------------------------------------------------------------


class Gate:
    """A disk that hangs: nothing is written until it is opened. Where it stands, lines are redacted."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self, line: dict[str, Any]) -> dict[str, Any]:
        self.reached.set()
        assert self.opened.wait(30)
        return line


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


async def test_a_disk_that_hangs_holds_up_no_turn_and_the_exit_only_for_so_long(
    tmp_path: Path,
    at_once: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    gate: Gate,
) -> None:
    """Turns answer as ever; at the end the server waits for its limit, gives up, and says so."""
    monkeypatch.setattr(recorder, "CLOSE_SECONDS", 0.3)
    async with recorded(tmp_path, record=Record(tmp_path / "rec", redact=gate)) as agent:
        assert await said(agent) == "Hello"
        await trio.to_thread.run_sync(gate.reached.wait)
        assert await said(agent) == "Hello"
        began = trio.current_time()
    assert 0.3 <= trio.current_time() - began < 5.0
    assert "could not be written in time" in warnings(caplog)[-1]


async def test_what_is_being_written_when_the_server_stops_is_written_once_and_first(
    tmp_path: Path, at_once: None, gate: Gate
) -> None:
    """The last lines wait for those before them, although whoever began those is leaving."""

    async def open_gate() -> None:
        await trio.testing.wait_all_tasks_blocked()
        gate.opened.set()

    async with (
        trio.open_nursery() as nursery,
        recorded(tmp_path, record=Record(tmp_path / "rec", redact=gate)) as agent,
    ):
        assert await said(agent) == "Hello"
        await trio.to_thread.run_sync(gate.reached.wait)
        nursery.start_soon(open_gate)
    recording = load(files(tmp_path)[0])
    kinds = [str(type(each).__struct_config__.tag) for each in recording.entries]
    assert kinds.count("request") == kinds.count("outcome") == 1
    assert kinds[0] == "request"
    assert kinds[-1] == "bytes"
    assert "[DONE]" in body_of(recording)


async def test_memory_is_bounded_while_the_disk_hangs(
    tmp_path: Path,
    at_once: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    gate: Gate,
) -> None:
    """The largest recordings break off before there is too much, and each file says that it did."""
    limit = 1_000_000
    monkeypatch.setattr(recorder, "MAX_BYTES", limit)
    contexts: list[recorder.RecordedContext] = []
    make = recorder.Recorder.context

    def noted(self: recorder.Recorder, *request: Any) -> recorder.RecordedContext:
        contexts.append(make(self, *request))
        return contexts[-1]

    monkeypatch.setattr(recorder.Recorder, "context", noted)
    words = "y" * 20_000

    async def at_length(reply: Reply) -> None:
        await reply.sse(*[chunk(role="assistant", content=words)] * 10, FINISH)

    async with recorded(tmp_path, at_length, Record(tmp_path / "rec", redact=gate)) as agent:
        for number in range(6):
            assert len(await said(agent)) == 200_000
            held = sum(context.trace.size for context in contexts)
            assert held <= limit, number
        gate.opened.set()
    broken = [each for each in warnings(caplog) if "does not keep up" in each]
    assert 2 <= len(broken) <= 5
    endings = [type(load(path).entries[-1]) for path in files(tmp_path)]
    assert endings.count(Lost) == len(broken)
    assert endings.count(Bytes) == 6 - len(broken)


# --- a server that is killed ------------------------------------------------------------------------


def test_a_server_that_is_killed_leaves_what_was_older_than_a_second(tmp_path: Path) -> None:
    """A turn that was under way can be read up to there, line by line."""
    folder = tmp_path / "rec"
    steps = json.dumps([{"text": ["Hel", "lo"]}, {"stall": True}])
    with serving(tmp_path / "srv", {"providers": {"replay": {}}}, "--record", str(folder)) as served:
        body = {"model": "demo", "messages": [{"role": "user", "content": steps}], "stream": True}
        with served.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            got = ""
            for text in answer.iter_text():
                got += text
                if '"lo"' in got:
                    break
            (path,) = until(lambda: [each for each in folder.glob("*") if b'\\"lo' in each.read_bytes()])
            os.kill(served.process.pid, signal.SIGKILL)
            served.end()
    assert body_of(load(path)) == got
