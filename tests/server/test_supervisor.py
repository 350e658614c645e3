"""The supervisor and workers that misbehave: small programs that say what the test wants."""

from __future__ import annotations

import logging
import os
import signal

import pytest
import trio

from trio_agent.config.problems import ConfigProblem
from trio_agent.server.options import ServeOptions
from trio_agent.server.workers import supervisor as module
from trio_agent.server.workers.messages import Serves, Start
from trio_agent.server.workers.supervisor import Supervisor, WorkerEnded

_PROGRAM = """
import os, signal, socket, sys
from trio_agent.config.problems import ConfigProblem
from trio_agent.server.workers.framing import FrameReader, frame
from trio_agent.server.workers.messages import *
from trio_agent.server.workers.messages import decode_to_worker, encode
end = socket.socket(fileno=int(sys.argv[1]))
frames, waiting = FrameReader(), []
def say(message): end.sendall(frame(encode(message)))
def hear():
    while not waiting:
        data = end.recv(65536)
        if not data: sys.exit(0)
        waiting.extend(frames.feed(data))
    return decode_to_worker(waiting.pop(0))
start = hear()
ready = Ready(Serves(3, {"replay": 3}, 0.0))
def serve_in_order():
    say(ready)
    while not isinstance(hear(), Stop): pass
"""


def arguments(body: str) -> tuple[str, ...]:
    return "-c", _PROGRAM + body


class Run:
    """A supervisor with two workers that all run one program, and what it said."""

    def __init__(self, body: str) -> None:
        start = Start(number=0, count=2, options=ServeOptions(), config=b"{}", version=1)
        self.supervisor = Supervisor(
            start, arguments(body), on_ready=self._on_ready, on_changed=self._on_changed
        )
        self.ready: list[Serves] = []
        self.pids: list[list[int]] = []
        self.changed = trio.Event()

    async def _on_ready(self, serves: Serves, pids: list[int]) -> None:
        self.ready.append(serves)
        self.pids.append(pids)

    async def _on_changed(self, pids: list[int]) -> None:
        self.pids.append(pids)
        self.changed.set()


async def test_it_ends_when_all_have_ended() -> None:
    """In order: what they serve is told once, with their processes."""
    run = Run("serve_in_order()")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.supervisor.run)
        await run.supervisor.until_serving()
        run.supervisor.stop()
    assert run.ready == [Serves(3, {"replay": 3}, 0.0)]
    assert len(set(run.pids[0])) == 2
    assert run.supervisor.failed == []


async def test_problems_of_all_are_told_as_one() -> None:
    """Each worker finds the same; the others are ended."""
    run = Run('say(Unusable((ConfigProblem("provider_unusable", "providers.lab", "no"),)))')
    with pytest.raises(WorkerEnded) as caught:
        await run.supervisor.run()
    assert caught.value.problems == (ConfigProblem("provider_unusable", "providers.lab", "no"),)
    assert run.ready == []


async def test_one_that_dies_at_the_start_ends_all() -> None:
    """Without a word: how it ended is all that can be told. The other one, which was well, is ended."""
    run = Run("os.kill(os.getpid(), signal.SIGKILL) if start.number == 2 else serve_in_order()")
    with pytest.raises(WorkerEnded, match=r"worker 2 \(pid \d+\) ended: killed by SIGKILL") as caught:
        await run.supervisor.run()
    assert caught.value.problems == ()


async def test_one_that_keeps_dying_is_started_with_longer_pauses(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The other one serves on, and each end is told."""
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.02)
    run = Run("serve_in_order() if start.number == 1 else (say(ready), hear(), sys.exit(7))")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.supervisor.run)
        with trio.fail_after(20):
            while len(run.pids) < 5:
                await run.changed.wait()
                run.changed = trio.Event()
        run.supervisor.stop()
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    pauses = [text.partition("starts in ")[2] for text in said]
    assert pauses[:2] == ["0.02 s", "0.04 s"]
    assert all("exit code 7" in text for text in said)
    assert len({pids[0] for pids in run.pids}) == 1


async def test_one_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the time is over that turns have, and some more."""
    monkeypatch.setattr(module, "STOP_MARGIN_SECONDS", 0.2)
    run = Run("say(ready)\nwhile True: hear()")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.supervisor.run)
        await run.supervisor.until_serving()
        run.supervisor.stop()
    assert sorted(run.supervisor.failed) == [1, 2]


async def test_one_that_crashes_while_it_is_to_end_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody would look for the turns that it took along."""
    run = Run("serve_in_order()\nif start.number == 2: os.kill(os.getpid(), signal.SIGKILL)")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.supervisor.run)
        await run.supervisor.until_serving()
        run.supervisor.stop()
    assert run.supervisor.failed == [2]
    (record,) = caplog.records
    assert record.getMessage().endswith("ended: killed by SIGKILL, while its turns were to finish")


async def test_a_start_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is being started hears nothing for a while; it has nothing to lose."""
    monkeypatch.setattr(module, "BOOT_SECONDS", 0.1)
    run = Run("import time; time.sleep(60)")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.supervisor.run)
        with trio.fail_after(20):
            while len(run.supervisor._pids()) < 2:  # noqa: ASYNC110 - processes are being started
                await trio.sleep(0.01)
            run.supervisor.stop()
    assert (run.ready, run.supervisor.failed) == ([], [])


async def test_what_cannot_be_understood_ends_its_worker(caplog: pytest.LogCaptureFixture) -> None:
    """Bytes that are no message: nothing can be said to such a process."""
    run = Run('end.sendall(b"\\xff" * 100)\nhear()\nhear()')
    with pytest.raises(WorkerEnded, match=signal.SIGKILL.name):
        await run.supervisor.run()
    assert any("cannot be understood" in record.getMessage() for record in caplog.records)


async def test_leaving_it_leaves_nothing() -> None:
    """Cancelled amid the start, it ends the processes that it began."""
    run = Run("serve_in_order() if start.number == 1 else hear()")
    workers = run.supervisor._workers
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.supervisor.run)
        with trio.fail_after(20):
            while not [w for w in workers.values() if w.serves]:  # noqa: ASYNC110 - a process says so
                await trio.sleep(0.01)
        pids = [worker.pid for worker in workers.values()]
        nursery.cancel_scope.cancel()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
