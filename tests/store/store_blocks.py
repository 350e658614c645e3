"""Work that holds a store's writer for as long as a test likes."""

from __future__ import annotations

import sqlite3
import threading

import trio


class Block:
    """Work that holds the writer's thread, inside its transaction, until it is let go."""

    def __init__(self) -> None:
        self._inside = threading.Event()
        self._let_go = threading.Event()

    def __call__(self, _: sqlite3.Connection) -> str:
        self._inside.set()
        assert self._let_go.wait(20)
        return "let go"

    async def inside(self) -> None:
        assert await trio.to_thread.run_sync(self._inside.wait, 20)

    def let_go(self) -> None:
        self._let_go.set()
