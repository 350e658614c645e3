"""A worker that not even SIGKILL ends: it hangs in the kernel, say on a dead disk."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from trio_agent.server.options import ServeOptions
from trio_agent.server.workers.messages import Start
from trio_agent.server.workers.worker import CLOSE_SECONDS, KILL_SECONDS, Worker


class _Undying:
    pid = 4_000_000
    returncode = None
    kills = 0

    def kill(self) -> None:
        self.kills += 1

    async def wait(self) -> None:
        await trio.sleep_forever()


def _worker(monkeypatch: pytest.MonkeyPatch, process: _Undying) -> Worker:
    async def spawn(self: Worker, descriptor: int) -> Any:
        return process

    monkeypatch.setattr(Worker, "_spawn", spawn)
    start = Start(
        number=1, count=2, options=ServeOptions(), config=b"{}", version=1, listeners=(), problems=()
    )
    return Worker(start, (), lambda worker, message: None)


async def test_a_killed_worker_that_stays_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its place is free after some seconds, with a word in the log."""
    process = _Undying()
    worker = _worker(monkeypatch, process)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await trio.testing.wait_all_tasks_blocked()
        worker.kill()
    assert trio.current_time() <= KILL_SECONDS + CLOSE_SECONDS + KILL_SECONDS
    assert (worker.returncode, process.kills) == (-9, 2)
    assert f"worker process {process.pid} was killed and has not ended" in caplog.text


async def test_a_supervisor_that_is_cancelled_gives_it_up_too(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """The clean-up is shielded, and has a limit."""
    worker = _worker(monkeypatch, _Undying())
    with trio.move_on_after(1):
        await worker.run()
    assert trio.current_time() == pytest.approx(1 + CLOSE_SECONDS + KILL_SECONDS)
