"""Which file a response is written to: its turn's, or one of its own beside that."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import trio
from recording.recording_agents import (
    RETURNED,
    TOOLS,
    Client,
    ask,
    asked,
    call_then_answer,
    files,
    recording_agent,
)

from trio_agent.recording import recorder
from trio_agent.recording.codec import load
from trio_agent.recording.files import Job, Pen, prepare
from trio_agent.recording.format import Found, Header, Lost, Request
from trio_agent.recording.masking import Masker
from trio_agent.recording.trace import Line, bytes_line
from trio_agent.replay import Player, render_difference

PARK = Found(park={"turn_id": "turn_1"})
WHOLE: list[Line] = [Request(), bytes_line(0.5, b"one", True)]
RESUMED: list[Line] = [Request(), PARK, bytes_line(0.1, b"two", True)]


def write(folder: Path, lines: list[Line], *, start: float = 1000.0) -> Job:
    """Write lines as a process does that knows of no other."""
    job = Job(folder / "turn_1.turn.jsonl", Header(trio_agent_recording=1, start=start), list(lines))
    Pen(Masker(()), None).write([job])
    assert job.failure is None
    return job


def kinds(path: Path) -> list[str]:
    return [str(type(each).__struct_config__.tag) for each in load(path).entries]


def test_a_turn_goes_on_in_its_file_where_that_ends_well(tmp_path: Path) -> None:
    """The file has the park already, and time goes on in it."""
    write(tmp_path, WHOLE)
    job = write(tmp_path, RESUMED, start=1060.0)
    assert job.path.name == "turn_1.turn.jsonl"
    assert kinds(job.path) == ["request", "bytes", "request", "bytes"]
    assert [each.t for each in load(job.path).entries] == [0.0, 0.5, 60.0, 60.1]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param([Request()], RESUMED, id="the first response is still being written"),
        pytest.param([*WHOLE, Lost(why="full")], RESUMED, id="the first was broken off"),
        pytest.param(RESUMED, WHOLE, id="the second was written first"),
    ],
)
def test_a_response_has_a_file_of_its_own_where_the_turns_is_not_free(
    tmp_path: Path, first: list[Line], second: list[Line]
) -> None:
    """With a header and what the store held. Nothing is interleaved, nothing stands behind a last word."""
    before = write(tmp_path, first)
    content = before.path.read_bytes()
    job = write(tmp_path, second)
    assert job.path.name == "turn_1.2.turn.jsonl"
    assert before.path.read_bytes() == content
    assert len(load(job.path).entries) == len(second)
    third = write(tmp_path, RESUMED)
    assert third.path == job.path
    assert kinds(third.path)[-2:] == ["request", "bytes"]


def test_the_first_writer_goes_on_in_its_file(tmp_path: Path) -> None:
    """Whoever came amid it has another one."""
    job = write(tmp_path, [Request()])
    write(tmp_path, RESUMED)
    job.lines = [bytes_line(0.5, b"one", True)]
    Pen(Masker(()), None).write([job])
    assert kinds(tmp_path / "turn_1.turn.jsonl") == ["request", "bytes"]
    assert kinds(tmp_path / "turn_1.2.turn.jsonl") == ["request", "found", "bytes"]


async def test_a_turn_that_is_resumed_amid_the_last_write_of_its_first_response(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines of the second wait for that write, however long it takes: one file, in order, which plays."""
    monkeypatch.setattr(recorder, "FLUSH_SECONDS", 0.0)
    async with recording_agent(tmp_path, call_then_answer) as agent, trio.open_nursery() as nursery:
        first = Client(agent, ask(tools=TOOLS, stream=False), takes=0)
        nursery.start_soon(first.run)
        await first.held.wait()
        again = await asked(agent, ask(tools=TOOLS, stream=False, messages=RETURNED))
        assert b"Hello" in b"".join(again.sent)
        await trio.sleep(0.1)  # written, if it were not for the first
        first.taking.set()
    assert first.turn_id == again.turn_id
    (path,) = files(tmp_path)
    order = kinds(path)
    assert order.count("request") == 2
    assert order.index("request", 1) == order.index("bytes") + 1
    replayed = await trio.to_thread.run_sync(Player().replay, load(path), path.name)
    assert replayed.ok, render_difference(replayed)


async def test_a_client_that_never_took_the_first_response_splits_the_recording(tmp_path: Path) -> None:
    """When the server stops, nothing waits any more: the second response has its own file, which plays."""
    async with recording_agent(tmp_path, call_then_answer) as agent, trio.open_nursery() as nursery:
        first = Client(agent, ask(tools=TOOLS, stream=False), takes=0)
        nursery.start_soon(first.run)
        await first.held.wait()
        await asked(agent, ask(tools=TOOLS, stream=False, messages=RETURNED))
        first.scope.cancel()
    paths = files(tmp_path)
    assert [path.name.count(".2.") for path in sorted(paths, key=lambda path: len(path.name))] == [0, 1]
    (own,) = [path for path in paths if ".2." in path.name]
    assert kinds(own)[:2] == ["request", "found"]
    replayed = await trio.to_thread.run_sync(Player().replay, load(own), own.name)
    assert replayed.ok, render_difference(replayed)


def _prepare_often(folder: Path, failures: multiprocessing.SimpleQueue[int]) -> None:
    failed = 0
    for _ in range(200):
        try:
            prepare(folder)
        except OSError:
            failed += 1
    failures.put(failed)


def test_two_servers_that_start_at_once_share_a_folder(tmp_path: Path) -> None:
    """Neither takes the other's trial file away."""
    context = multiprocessing.get_context("fork")
    failures = context.SimpleQueue()
    both = [context.Process(target=_prepare_often, args=(tmp_path, failures)) for _ in range(2)]
    for each in both:
        each.start()
    assert [failures.get() for _ in both] == [0, 0]
    for each in both:
        each.join()
    assert list(tmp_path.iterdir()) == []
