"""Other processes with a store, for tests: `store_child.py` as its parent sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import trio

import trio_agent

HERE = Path(__file__).parent
ROOT = Path(trio_agent.__file__).parent.parent


class Child:
    """A process that runs `store_child.py`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    async def line(self) -> str:
        assert self._process.stdout is not None
        with trio.fail_after(20):
            return (
                await trio.to_thread.run_sync(self._process.stdout.readline, abandon_on_cancel=True)
            ).strip()

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    async def kill(self) -> None:
        self._process.kill()
        await self.ended()

    async def ended(self) -> int:
        with trio.fail_after(20):
            return await trio.to_thread.run_sync(self._process.wait, abandon_on_cancel=True)


@contextmanager
def process(command: str, database: Path) -> Iterator[Child]:
    arguments = [sys.executable, str(HERE / "store_child.py"), command, str(database)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(HERE)))}
    with subprocess.Popen(
        arguments, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            yield Child(child)
        finally:
            child.kill()


@asynccontextmanager
async def ready(command: str, database: Path) -> AsyncIterator[Child]:
    with process(command, database) as child:
        assert await child.line() == "ready"
        yield child
