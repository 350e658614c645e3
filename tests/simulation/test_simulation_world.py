"""The simulated world is like the real one where the product leans on it: sockets, threads, an ill disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing
from simulation import kernel
from simulation.disk import Disk, Threads
from simulation.http_text import BadHttp, Message
from simulation.network import Network
from simulation.scenario import DiskFault

from trio_agent.store.contract import StoreError, TurnRow
from trio_agent.store.sqlite import SqliteStore, open_store


def run(main: Callable[[], Awaitable[None]]) -> None:
    kernel.run(0, main)


def test_a_client_that_closes_with_unread_bytes_resets_the_connection() -> None:
    """As over TCP: the other side's next read fails, and does not see an orderly end."""

    async def main() -> None:
        network = Network()
        listener = network.listen()
        client = network.connect()
        server = await listener.accept()
        await server.send_all(b"unread")
        client.close()
        with pytest.raises(trio.BrokenResourceError):
            await server.receive_some(10)
        await server.aclose()
        assert network.open_halves() == 0

    run(main)


def test_nobody_listens_after_the_listener_closed() -> None:
    """A connection is refused then, and one that was offered and not accepted is ended."""

    async def main() -> None:
        network = Network()
        with pytest.raises(ConnectionRefusedError):
            network.connect()
        listener = network.listen()
        client = network.connect()
        listener.close()
        assert await client.recv(1) == b""
        client.close()
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()
        with pytest.raises(ConnectionRefusedError):
            network.connect()

    run(main)


def test_a_reader_that_does_not_read_blocks_the_writer() -> None:
    """The buffers are bounded, and small."""

    async def main() -> None:
        network = Network()
        listener = network.listen()
        client = network.connect()
        server = await listener.accept()
        with trio.move_on_after(1) as blocked:
            await server.send_all(b"x" * 500_000)
        assert blocked.cancelled_caught
        client.close()
        await server.aclose()

    run(main)


async def with_store(
    folder: Path,
    faults: tuple[DiskFault, ...],
    body: Callable[[SqliteStore, Disk, Threads], Awaitable[None]],
) -> None:
    """Run `body` with a real store on a disk with these faults."""
    disk = Disk(faults)
    async with trio.open_nursery() as nursery:
        threads = Threads(disk, nursery)
        with kernel.replaced((trio.to_thread, "run_sync", threads.run_sync)):
            now = kernel.SeededWorld(0).now
            async with open_store(folder / "store.sqlite3", instance_id="one", now=now) as store:
                await body(store, disk, threads)


ROW = TurnRow(id="turn_1", face="chat", model="m", created_at=1.0)


def outcomes(folder: Path) -> list[str]:
    with sqlite3.connect(folder / "store.sqlite3") as connection:
        return [outcome for (outcome,) in connection.execute("SELECT outcome FROM turns")]


@pytest.mark.parametrize("kind", ["refuses to begin", "refuses rows", "refuses to commit"])
def test_a_refused_write_fails_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    """SQLite itself refuses, so the store's own roll-back is what is met; afterwards it serves again."""

    async def body(store: SqliteStore, disk: Disk, threads: Threads) -> None:
        del threads
        disk.apply(store._writer._connection, [])
        with pytest.raises(Exception, match="store"):
            await store.open_turn(ROW)
        assert outcomes(tmp_path) == []
        await trio.sleep(2)
        disk.apply(store._writer._connection, [])
        await store.open_turn(ROW)
        assert outcomes(tmp_path) == ["running"]

    fault = DiskFault(kind, 0.0, 1.0)  # type: ignore[arg-type]
    run(lambda: with_store(tmp_path, (fault,), body))


def test_a_write_that_hangs_happens_when_the_disk_answers(tmp_path: Path) -> None:
    """Its caller is told after the store's limit; the thread goes on, as threads do, and is undone then."""

    async def body(store: SqliteStore, disk: Disk, threads: Threads) -> None:
        del disk, threads
        await trio.sleep(1)
        with pytest.raises(Exception, match="not known"):
            await store.open_turn(ROW)
        assert trio.current_time() == 11
        assert outcomes(tmp_path) == []
        await trio.sleep(10)
        assert outcomes(tmp_path) == ["abandoned"]

    run(lambda: with_store(tmp_path, (DiskFault("hangs", 1.0, 20.0),), body))


def test_a_process_that_died_writes_nothing_more(tmp_path: Path) -> None:
    """Neither a write that hung at that moment nor one that comes later takes effect."""

    async def body(store: SqliteStore, disk: Disk, threads: Threads) -> None:
        del disk
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails, store, ROW)
            await trio.sleep(1)
            threads.die()
            await fails(store, msgspec.structs.replace(ROW, id="turn_2"))
        assert outcomes(tmp_path) == []

    async def fails(store: SqliteStore, row: TurnRow) -> None:
        with pytest.raises(StoreError):
            await store.open_turn(row)

    run(lambda: with_store(tmp_path, (DiskFault("slow", 1.0, 5.0, 2.0),), body))


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    ],
)
def test_the_clients_are_strict(wire: bytes) -> None:
    """A response whose end could be read in two ways is no response to a simulated client."""
    with pytest.raises(BadHttp):
        Message(response=True).feed(wire)
