"""The one writer of a store: group commit over one connection.

Every operation that is queued when the connection is free goes into one transaction, which runs in a
worker thread. Nothing waits for company: a lone operation is committed at once, and while one
transaction is being synced the next batch gathers. Each operation stands behind a savepoint, so one
that fails does not take its neighbours along.

There are never two transactions at once. When the disk hangs, callers are told after `write_timeout`,
but the thread cannot be stopped: it keeps the limiter's only token, and the next batch waits for it.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import trio

from trio_agent.store.contract import ObserveStore, StoreError
from trio_agent.store.failures import explain
from trio_agent.store.files import Gate

T = TypeVar("T")

QUEUE_MAX: Final = 1024
BATCH_MAX: Final = 256


class _Operation:
    """One piece of work, its caller, and how it went."""

    __slots__ = ("begun", "error", "finished", "result", "task", "undo", "verdict", "withdrawn", "work")

    def __init__(
        self, work: Callable[[sqlite3.Connection], Any], undo: Callable[[sqlite3.Connection], object] | None
    ) -> None:
        self.work = work
        self.undo = undo
        self.task: trio.lowlevel.Task | None = None
        self.begun = self.withdrawn = self.finished = False
        # Set in the worker thread; `verdict` is what the caller is told, set in the loop.
        self.result: Any = None
        self.error: Exception | None = None
        self.verdict: Exception | None = None

    async def wait(self) -> None:
        """Until it is finished. Cancelled only while it has not begun; then it never will."""
        if self.finished:
            return
        self.task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            if self.begun:
                return trio.lowlevel.Abort.FAILED
            self.withdrawn = True
            self.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def finish(self, verdict: Exception | None) -> None:
        self.verdict = verdict
        self.finished = True
        if self.task is not None:
            trio.lowlevel.reschedule(self.task)
            self.task = None


class _Batch:
    """Operations of one transaction. Thread and loop agree here, once, on who reports the results."""

    def __init__(self, operations: Sequence[_Operation]) -> None:
        self.operations = operations
        self._lock = threading.Lock()
        self._settled_by: str | None = None

    def deliver(self) -> bool:
        """From the thread: the results stand. False if the callers were already told otherwise."""
        return self._settle("thread")

    def give_up(self) -> bool:
        """From the loop: the callers wait no longer. False if the results stand."""
        return self._settle("loop")

    @property
    def given_up(self) -> bool:
        return self._settled_by == "loop"

    def _settle(self, by: str) -> bool:
        with self._lock:
            self._settled_by = self._settled_by or by
            return self._settled_by == by


class Writer:
    """Serialises all writing of one open store.

    Args:
        connection: in autocommit mode; belongs to the writer until `farewell` has run.
        gate: held around each transaction, so that writers in other processes wait.
        write_timeout: seconds after which a caller is told that the disk does not answer.
        farewell: runs last, in the worker thread, with the time (epoch seconds) that `aclose` was given;
            gives up the instance and closes the connection.
        observe: is told of each write, in the task of its caller.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        gate: Gate,
        *,
        write_timeout: float,
        farewell: Callable[[float], None],
        observe: ObserveStore | None = None,
    ) -> None:
        self._connection = connection
        self._gate = gate
        self._write_timeout = write_timeout
        self._farewell = farewell
        self._observe = observe
        self._limiter = trio.CapacityLimiter(1)
        self._scope = trio.CancelScope(shield=True)
        self._stopped = trio.Event()
        self._abandoned = False
        self._closed_at = 0.0
        self._send, self._receive = trio.open_memory_channel[_Operation](QUEUE_MAX)
        self.transactions = 0
        """Transactions committed so far."""

    async def submit(
        self,
        work: Callable[[sqlite3.Connection], T],
        *,
        undo: Callable[[sqlite3.Connection], object] | None = None,
    ) -> T:
        """Run `work` in a transaction; when this returns, its effects are on the disk.

        `work` runs in a worker thread, must leave transactions alone, and may run again after a
        roll-back. A caller that is cancelled before the work has begun has written nothing. Once it
        has begun the caller gets the result, after `write_timeout` seconds more at the latest, and its
        cancellation at the next checkpoint. So `Cancelled` out of here means that nothing was done.

        `undo` runs if the caller was told that time is up and the commit succeeds after all.

        Raises StoreError: refused, full, locked, damaged; not begun within `write_timeout` seconds
        (nothing written) or not ended within as many more (not known).
        """
        began = trio.current_time()
        failed = False
        try:
            result: T = await self._submit(_Operation(work, undo))
        except StoreError:
            failed = True
            raise
        finally:
            if self._observe is not None:
                self._observe("write", trio.current_time() - began, failed)
        return result

    async def _submit(self, operation: _Operation) -> Any:
        with trio.move_on_after(self._write_timeout) as limit:
            try:
                await self._enqueue(operation)
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                raise StoreError("The store is closed. Nothing was written.") from None
            await operation.wait()
        if limit.cancelled_caught:
            raise StoreError(
                f"The store has not got to this write within {self._write_timeout:g} s. Nothing was written. "
                "Its disk does not answer or is too slow; try again later."
            )
        if operation.verdict is not None:
            told = explain(operation.verdict)
            raise told from (None if told is operation.verdict else operation.verdict)
        return operation.result

    async def _enqueue(self, operation: _Operation) -> None:
        try:
            self._send.send_nowait(operation)
        except trio.WouldBlock:
            await self._send.send(operation)

    async def run(self) -> None:
        """Commit batches until `aclose`. Shielded: clean-up in cancelled scopes must still be able to write.

        Callers that wait when it ends, by whatever door, get StoreError.
        """
        try:
            with self._scope:
                async for first in self._receive:
                    if operations := self._gather(first):
                        await self._commit(operations)
                await trio.to_thread.run_sync(
                    self._farewell, self._closed_at, limiter=self._limiter, abandon_on_cancel=True
                )
        finally:
            self._refuse_the_rest()
            self._stopped.set()

    async def aclose(self, at: float) -> None:
        """Commit what is queued, then end at time `at`; a disk that hangs is left behind after a while."""
        self._closed_at = at
        self._send.close()
        with trio.move_on_after(2 * self._write_timeout, shield=True):
            await self._stopped.wait()
        self._abandoned = True  # The thread that hangs closes the connection itself, should it ever return.
        self._scope.cancel()

    def _gather(self, first: _Operation) -> list[_Operation]:
        queued = [first]
        while len(queued) < BATCH_MAX:
            try:
                queued.append(self._receive.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                break
        operations = [operation for operation in queued if not operation.withdrawn]
        for operation in operations:
            operation.begun = True
        return operations

    async def _commit(self, operations: Sequence[_Operation]) -> None:
        batch = _Batch(operations)
        silence = StoreError(
            f"The store's disk has not answered within {self._write_timeout:g} s. It is not known whether "
            "this write took effect. Look into the disk; the server goes on when it answers."
        )
        try:
            with trio.move_on_after(self._write_timeout):
                await trio.to_thread.run_sync(
                    self._write, batch, limiter=self._limiter, abandon_on_cancel=True
                )
        except RuntimeError as error:
            silence = StoreError(f"The store could not start a thread ({error}). Nothing was written.")
        finally:
            given_up = batch.give_up()
            for operation in operations:
                operation.finish(silence if given_up else operation.error)
        if self._limiter.borrowed_tokens:  # The thread of an abandoned batch still owns the connection.
            async with self._limiter:
                pass

    def _refuse_the_rest(self) -> None:
        self._send.close()
        while True:
            try:
                operation = self._receive.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
                break
            operation.begun = True
            operation.finish(StoreError("The store was closed. Nothing was written."))
        self._receive.close()

    # --- in the worker thread -----------------------------------------------------------------------

    def _write(self, batch: _Batch) -> None:
        try:
            with self._gate.held():
                self._transact(batch)
                if not batch.deliver():
                    self._undo(batch)
        except Exception as error:  # noqa: BLE001 -- nothing was committed; every caller is told
            for operation in batch.operations:
                operation.error = operation.error or error
            batch.deliver()
        if self._abandoned:
            self._farewell(self._closed_at)

    def _transact(self, batch: _Batch) -> None:
        """Commit the operations together or, when the whole transaction was lost, one by one.

        Raises only when nothing was committed.
        """
        self._begin()
        try:
            self._run(batch.operations)
        except sqlite3.Error:
            self._roll_back()
            if len(batch.operations) == 1:
                raise
        else:
            return
        for operation in batch.operations:
            if operation.error is None and not batch.given_up:
                self._run_alone(operation)

    def _run_alone(self, operation: _Operation) -> None:
        try:
            self._begin()
            self._run([operation])
        except sqlite3.Error as error:
            self._roll_back()
            operation.error = operation.error or error

    def _begin(self) -> None:
        self._roll_back()  # Only if an earlier roll-back failed.
        self._connection.execute("BEGIN IMMEDIATE")

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # The next BEGIN will say so.
                self._connection.execute("ROLLBACK")

    def _run(self, operations: Sequence[_Operation]) -> None:
        for operation in operations:
            self._attempt(operation)
        self._connection.execute("COMMIT")
        self.transactions += 1

    def _attempt(self, operation: _Operation) -> None:
        """Run one operation behind a savepoint. Raises sqlite3.Error only if the transaction is lost."""
        self._connection.execute("SAVEPOINT operation")
        try:
            operation.result = operation.work(self._connection)
        except Exception as error:  # Handed to the caller; the writer serves the others.
            if not self._connection.in_transaction:
                # A full or broken disk rolls everything back; whose fault it was shows when each runs alone.
                if isinstance(error, sqlite3.Error):
                    raise
                operation.error = error
                raise sqlite3.OperationalError("the transaction was rolled back") from error
            operation.error = error
            self._connection.execute("ROLLBACK TO operation")
        self._connection.execute("RELEASE operation")

    def _undo(self, batch: _Batch) -> None:
        """Take back what callers believe has failed. What cannot be taken back now, recovery closes later."""
        for operation in batch.operations:
            if operation.undo is not None and operation.error is None:
                with contextlib.suppress(sqlite3.Error):
                    operation.undo(self._connection)
