"""The reading side of a store: a few query-only connections, each used by one worker thread at a time."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import trio

from trio_agent.store.contract import ObserveStore, StoreError
from trio_agent.store.failures import explain

T = TypeVar("T")


class Readers:
    """Runs queries beside the writer.

    Args:
        connections: opened by `schema.connect_reader`; owned by this pool.
        read_timeout: seconds after which a caller is told that the disk does not answer.
        observe: is told of each read.
    """

    def __init__(
        self,
        connections: Sequence[sqlite3.Connection],
        *,
        read_timeout: float,
        observe: ObserveStore | None = None,
    ) -> None:
        self._free = list(connections)
        self._read_timeout = read_timeout
        self._observe = observe
        self._limiter = trio.CapacityLimiter(len(connections))
        self._lock = threading.Lock()
        self._closed = False

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """The result of `query`, which runs in a worker thread and must fetch all it returns.

        A cancelled caller leaves at once; the query ends in its thread and its result is dropped.
        Raises StoreError, also after `read_timeout` seconds.
        """
        if self._closed:
            raise StoreError("The store is closed.")
        began = trio.current_time()
        failed = False
        try:
            result = await self._read(query)
        except StoreError:
            failed = True
            raise
        finally:
            if self._observe is not None:
                self._observe("read", trio.current_time() - began, failed)
        return result

    async def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with trio.fail_after(self._read_timeout):
                return await trio.to_thread.run_sync(
                    self._run, query, limiter=self._limiter, abandon_on_cancel=True
                )
        except trio.TooSlowError:
            raise StoreError(
                f"The store has not answered within {self._read_timeout:g} s. "
                "Its disk does not answer or is too slow; try again later."
            ) from None
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            raise explain(error) from error

    def close(self) -> None:
        """Close the connections; one that a thread still uses is closed by that thread at its end."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, []
        for connection in free:
            connection.close()

    def _run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            if self._closed:
                raise StoreError("The store is closed.")
            connection = self._free.pop()  # The limiter has as many tokens as there are connections.
        try:
            return query(connection)
        finally:
            self._give_back(connection)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if not self._closed:
                self._free.append(connection)
                return
        connection.close()
