"""Recordings that break off: the turn ends as it would have, and what is on the disk can be read."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from recording.recording_agents import (
    Client,
    ask,
    asked,
    chunk,
    files,
    finish,
    recording_agent,
    warnings,
)
from support.upstream import Reply

from trio_agent import Record
from trio_agent.recording import recorder
from trio_agent.recording.codec import load
from trio_agent.recording.files import Job, Pen
from trio_agent.recording.format import AnyEntry, End, Header, Hold, Lost
from trio_agent.recording.masking import Masker
from trio_agent.recording.trace import Trace, bytes_line

Redact = Callable[[dict[str, Any]], Any]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are written as soon as they are there, not once a second."""
    monkeypatch.setattr(recorder, "FLUSH_SECONDS", 0.0)


def raising(error: BaseException) -> Redact:
    def redact(line: dict[str, Any]) -> Any:
        raise error

    return redact


HOOKS: dict[str, tuple[Redact, str]] = {
    "raises": (raising(ValueError("no")), "the redaction function failed: ValueError: no"),
    "exits": (raising(SystemExit(3)), "the redaction function failed: SystemExit: 3"),
    "interrupts": (raising(KeyboardInterrupt()), "the redaction function failed: KeyboardInterrupt"),
    "returns a text": (lambda line: "junk", "returned str, not a dict or None"),
    "returns an object": (lambda line: line | {"t": object()}, "returned what is no JSON"),
    "returns no line": (lambda line: {"a": 1}, "returned what is no line"),
    "drops the header": (
        lambda line: None if "trio_agent_recording" in line else line,
        "left out the header, which a recording needs",
    ),
}


@pytest.mark.parametrize("hook", HOOKS)
async def test_a_hook_that_is_wrong_costs_the_recording_alone(
    tmp_path: Path, at_once: None, caplog: pytest.LogCaptureFixture, hook: str
) -> None:
    """The agent goes on, one warning says what the hook did, and no file is there that it did not see."""
    redact, words = HOOKS[hook]
    async with recording_agent(tmp_path, record=Record(tmp_path / "rec", redact=redact)) as agent:
        client = await asked(agent, ask())
    assert client.sent[-1].endswith(b"data: [DONE]\n\n")
    assert files(tmp_path) == []
    (told,) = warnings(caplog)
    assert words in told


async def test_a_hook_that_fails_amid_a_file_leaves_it_with_a_last_word(
    tmp_path: Path, at_once: None, caplog: pytest.LogCaptureFixture
) -> None:
    """Who reads it sees that something is missing."""
    go_on = trio.Event()
    failing = threading.Event()

    def redact(line: dict[str, Any]) -> dict[str, Any]:
        if failing.is_set():
            raise ValueError("later")
        return line

    async def in_two_parts(reply: Reply) -> None:
        await reply.head()
        await reply.chunk(b"data: " + chunk(role="assistant", content="Hel") + b"\n\n")
        await go_on.wait()
        await reply.chunk(
            b"data: " + chunk(content="lo") + b"\n\ndata: " + finish() + b"\n\ndata: [DONE]\n\n"
        )
        await reply.end()

    async def fail() -> None:
        with trio.fail_after(10):
            while not any(b"Hel" in path.read_bytes() for path in files(tmp_path)):
                await trio.lowlevel.checkpoint()
        failing.set()
        go_on.set()

    record = Record(tmp_path / "rec", redact=redact)
    async with recording_agent(tmp_path, in_two_parts, record) as agent, trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        await asked(agent, ask())
    (path,) = files(tmp_path)
    last = load(path).entries[-1]
    assert isinstance(last, Lost)
    assert last.why == "the redaction function failed: ValueError: later"
    assert [isinstance(each, Lost) for each in load(path).entries].count(True) == 1
    assert len(warnings(caplog)) == 1


# --- a client that leaves ---------------------------------------------------------------------------


def folder_gone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    def redact(line: dict[str, Any]) -> dict[str, Any]:
        shutil.rmtree(folder / "rec", ignore_errors=True)
        return line

    return Record(folder / "rec", redact=redact)


def hook_raises(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    return Record(folder / "rec", redact=raising(ValueError("no")))


def hook_exits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    return Record(folder / "rec", redact=raising(SystemExit(3)))


def too_much(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    monkeypatch.setattr(recorder, "MAX_BYTES", 10)
    return Record(folder / "rec")


@pytest.mark.parametrize("way", [folder_gone, hook_raises, hook_exits, too_much])
async def test_a_client_that_leaves_amid_a_write_after_the_recording_broke_off(
    tmp_path: Path,
    at_once: None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    way: Callable[[Path, pytest.MonkeyPatch], Record],
) -> None:
    """It is cancelled as any other, and its turn's row says so."""
    client: Client | None = None

    async def in_two_parts(reply: Reply) -> None:
        await reply.head()
        await reply.chunk(b"data: " + chunk(role="assistant", content="Hel") + b"\n\n")
        with trio.fail_after(10):
            while not warnings(caplog):
                await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert client is not None
        client.takes = len(client.sent)
        await reply.chunk(b"data: " + chunk(content="lo") + b"\n\n")
        await trio.sleep_forever()

    record = way(tmp_path, monkeypatch)
    async with recording_agent(tmp_path, in_two_parts, record) as agent, trio.open_nursery() as nursery:
        client = Client(agent, ask())
        nursery.start_soon(client.run)
        await client.held.wait()
        client.scope.cancel()
    assert client.scope.cancelled_caught
    assert "breaks off" in warnings(caplog)[0]
    assert len(warnings(caplog)) == 1


ORDERS: list[tuple[str, ...]] = [
    ("stop", "begin", "tear"),
    ("stop", "begin", "end"),
    ("stop", "add", "begin", "take", "tear"),
    ("begin", "stop", "tear"),
    ("begin", "stop", "end", "begin", "tear"),
    ("begin", "take", "stop", "tear"),
    ("add", "begin", "take", "stop", "begin", "tear", "take"),
]


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_a_trace_that_was_stopped_holds_nothing(order: tuple[str, ...]) -> None:
    """Whatever the turn tells it then, and whatever was under way."""
    trace = Trace(lambda: 0.0)
    steps: dict[str, Callable[[], object]] = {
        "stop": trace.stop,
        "begin": lambda: trace.begin_write(bytes_line(0.0, b"x", False), 100),
        "tear": trace.tear_write,
        "end": trace.end_write,
        "add": lambda: trace.add(Hold()),
        "take": trace.take_settled,
    }
    for step in order:
        steps[step]()
    assert trace.lines == []
    assert trace.size == 0
    assert not trace.is_writing


# --- a disk that hangs ------------------------------------------------------------------------------


class Gate:
    """Stands where lines are redacted. From the text `first` on, lines wait until it is opened."""

    def __init__(self, first: str) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        self._first = first

    def __call__(self, line: dict[str, Any]) -> dict[str, Any]:
        if self.reached.is_set() or self._first in str(line):
            self.reached.set()
            assert self.opened.wait(30)
        return line


@pytest.fixture
def gates() -> Iterator[Callable[[str], Gate]]:
    made: list[Gate] = []

    def make(first: str) -> Gate:
        made.append(Gate(first))
        return made[-1]

    yield make
    for gate in made:
        gate.opened.set()


@pytest.mark.parametrize(("first", "is_begun"), [("trio_agent_recording", False), ("[DONE]", True)])
async def test_an_exit_that_does_not_wait_leaves_no_half_file(
    tmp_path: Path,
    at_once: None,
    monkeypatch: pytest.MonkeyPatch,
    gates: Callable[[str], Gate],
    first: str,
    is_begun: bool,
) -> None:
    """A file that was not begun is not there, also not later; one that was says what is missing, once."""
    monkeypatch.setattr(recorder, "CLOSE_SECONDS", 0.3)
    gate = gates(first)
    go_on = trio.Event()

    async def in_two_parts(reply: Reply) -> None:
        await reply.head()
        await reply.chunk(b"data: " + chunk(role="assistant", content="Hel") + b"\n\n")
        await go_on.wait()
        await reply.chunk(b"data: " + finish() + b"\n\ndata: [DONE]\n\n")
        await reply.end()

    async def begun() -> None:
        with trio.fail_after(10):
            while is_begun and not any(b"Hel" in path.read_bytes() for path in files(tmp_path)):
                await trio.lowlevel.checkpoint()
        go_on.set()

    record = Record(tmp_path / "rec", redact=gate)
    async with recording_agent(tmp_path, in_two_parts, record) as agent, trio.open_nursery() as nursery:
        nursery.start_soon(begun)
        await asked(agent, ask())
        await trio.to_thread.run_sync(gate.reached.wait)
        before = trio.current_time()
    assert trio.current_time() - before < 3.0

    def kinds() -> list[type[AnyEntry]]:
        return [type(each) for path in files(tmp_path) for each in load(path).entries]

    left = kinds()
    assert left.count(Lost) == int(is_begun)
    assert is_begun is bool(left)
    threads = set(threading.enumerate())
    gate.opened.set()
    with trio.fail_after(10):
        while not threads.isdisjoint(each for each in threading.enumerate() if "Pen.write" in each.name):
            await trio.lowlevel.checkpoint()
    assert kinds() == left


def test_nothing_is_written_behind_the_last_word(tmp_path: Path) -> None:
    """A file that was broken off is not gone on with, nor is one that another program has changed."""
    path = tmp_path / "one.turn.jsonl"
    pen = Pen(Masker(()), None)
    job = Job(path, Header(trio_agent_recording=1), [End(call=1)])
    pen.write([job])
    with path.open("ab") as file:
        file.write(b'{"out":"lost","t":0.0,"why":"another"}\n')
    job.lines = [End(call=2)]
    pen.write([job])
    assert job.failure == "another program has changed the file"
    assert [type(each) for each in load(path).entries] == [End, Lost]


def test_a_large_batch_is_encoded_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it takes in memory besides the lines does not grow with them."""
    sizes: list[int] = []
    mask = Masker(["a secret that is nowhere"])
    monkeypatch.setattr(mask, "lines", lambda content: sizes.append(len(content)) or content)
    lines = [bytes_line(float(number), b"y" * 100_000, False) for number in range(50)]
    job = Job(tmp_path / "one.turn.jsonl", Header(trio_agent_recording=1), lines)
    Pen(mask, None).write([job])
    assert max(sizes) < 1_200_000
    assert len(load(job.path).entries) == 50
