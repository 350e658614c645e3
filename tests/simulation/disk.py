"""The store's disk in a run: the real SQLite store, its worker threads run in the loop, its disk made ill.

`Threads.run_sync` stands for `trio.to_thread.run_sync`. A healthy disk answers at once, so the work is done
in the caller's own step and the caller waits one pass through the scheduler, as for a real thread. While the
disk is slow or hangs, the work happens later, in a task of its own, whether or not its caller still waits,
as in a thread. A write that fails is refused by SQLite itself, through an authorizer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

import trio
from simulation.scenario import DiskFault

from trio_agent.store.readers import Readers
from trio_agent.store.writer import Writer

T = TypeVar("T")

_BEGIN, _COMMIT = "BEGIN", "COMMIT"


class Disk:
    """How ill the disk is, at each moment. `dead` is set when the process that used it has died."""

    def __init__(self, faults: tuple[DiskFault, ...]) -> None:
        self._faults = faults
        self.healed_at = max((fault.until for fault in faults), default=0.0)

    def delay(self) -> float:
        """Seconds that an access takes which begins now."""
        now = trio.current_time()
        delay = 0.0
        for fault in self._faults:
            if fault.at <= now < fault.until:
                if fault.kind == "slow":
                    delay = max(delay, fault.seconds)
                elif fault.kind == "hangs":
                    delay = max(delay, fault.until - now)
        return delay

    def passes(self) -> int:
        """Passes through the scheduler by which a caller that accesses it now hears of it later."""
        now = trio.current_time()
        faults = (fault for fault in self._faults if fault.kind == "late" and fault.at <= now < fault.until)
        return max((fault.passes for fault in faults), default=0)

    def refuses(self, *kinds: str) -> set[str]:
        now = trio.current_time()
        return {fault.kind for fault in self._faults if fault.at <= now < fault.until} & set(kinds)

    def changes(self) -> list[float]:
        """The moments at which it may begin or cease to refuse."""
        return sorted({moment for fault in self._faults for moment in (fault.at, fault.until)})

    def apply(self, writer: sqlite3.Connection, readers: list[sqlite3.Connection]) -> None:
        """Make the connections refuse what is to be refused from now on."""
        refused = self.refuses("refuses to begin", "refuses rows", "refuses parks", "refuses to commit")
        writer.set_authorizer(_refusing(refused) if refused else None)
        for reader in readers:
            reader.set_authorizer(_refuse_reads if self.refuses("unreadable") else None)


def _refuse_reads(action: int, *_: Any) -> int:
    return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_SELECT else sqlite3.SQLITE_OK


def _refusing(kinds: set[str]) -> Callable[..., int]:
    def authorize(action: int, first: str | None, *_: Any) -> int:
        denied = (
            action == sqlite3.SQLITE_TRANSACTION
            and (
                (first == _BEGIN and "refuses to begin" in kinds)
                or (first == _COMMIT and "refuses to commit" in kinds)
            )
        ) or (
            action in (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE)
            and ("refuses rows" in kinds or (first == "parks" and "refuses parks" in kinds))
        )
        return sqlite3.SQLITE_DENY if denied else sqlite3.SQLITE_OK

    return authorize


class Threads:
    """The worker threads of one process.

    Args:
        nursery: late work happens in it; it ends with the process.
    """

    def __init__(self, disk: Disk, nursery: trio.Nursery) -> None:
        self._disk = disk
        self._nursery = nursery
        self._dead = False

    def die(self) -> None:
        """No access to the database takes effect from now on."""
        self._dead = True

    async def run_sync(
        self,
        work: Callable[..., T],
        *args: Any,
        thread_name: str | None = None,
        abandon_on_cancel: bool = False,
        limiter: trio.CapacityLimiter | None = None,
    ) -> T:
        """As Trio's own. Raises RuntimeError in a process that has died, as where no thread can be had."""
        del thread_name
        await trio.lowlevel.checkpoint_if_cancelled()
        token = object()
        if limiter is not None:
            await limiter.acquire_on_behalf_of(token)
        job = _Job(work, args, limiter, token)
        if self._dead and job.is_the_stores:
            job.let_go()
            raise RuntimeError("the process has died")
        delay = 0.0 if self._dead else self._disk.delay()
        if not delay:
            job.run()
            for _ in range(1 + self._disk.passes()):
                await trio.lowlevel.cancel_shielded_checkpoint()
            return job.result()
        self._nursery.start_soon(self._later, job, delay)
        with trio.CancelScope(shield=not abandon_on_cancel):
            await job.done.wait()
        return job.result()

    async def _later(self, job: _Job, delay: float) -> None:
        await trio.sleep(delay)
        if self._dead and job.is_the_stores:
            job.let_go()
        else:
            job.run()


class _Job:
    def __init__(
        self,
        work: Callable[..., Any],
        args: tuple[Any, ...],
        limiter: trio.CapacityLimiter | None,
        token: object,
    ) -> None:
        self._work = work
        self._args = args
        self._limiter = limiter
        self._token = token
        self._value: Any = None
        self._error: Exception | None = None
        self.done = trio.Event()

    @property
    def is_the_stores(self) -> bool:
        """Whether this reads or writes the database. Closing it is another matter."""
        return isinstance(getattr(self._work, "__self__", None), Writer | Readers)

    def run(self) -> None:
        try:
            self._value = self._work(*self._args)
        except Exception as error:  # noqa: BLE001 - handed to whoever waits
            self._error = error
        self.let_go()

    def let_go(self) -> None:
        if self._limiter is not None:
            self._limiter.release_on_behalf_of(self._token)
        self.done.set()

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value
