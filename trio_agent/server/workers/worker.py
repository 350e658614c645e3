"""One worker as its supervisor sees it: a process, and the channel to it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import trio

from .channel import Channel
from .framing import FrameError
from .messages import (
    Committed,
    Message,
    Ready,
    Serves,
    Start,
    Stop,
    ToSupervisor,
    Unusable,
    decode_to_supervisor,
)

logger = logging.getLogger("trio_agent.workers")

LAST_WORDS_SECONDS: Final = 1.0
"""How long a worker that has ended is listened to: something else may hold its end of the socket."""
KILL_SECONDS: Final = 5.0
"""How long a killed worker is waited for. One that hangs in the kernel, on a dead disk, may take for ever."""
CLOSE_SECONDS: Final = 2.0
"""How long a worker may take to end when its supervisor leaves without an order."""


class Worker:
    """A worker process. `run` is its whole life.

    Args:
        start: what it is told first.
        arguments: of the Python interpreter, which runs the worker; the number of its descriptor is added.
        heard: called with each message of the worker's, but the first.
    """

    def __init__(
        self, start: Start, arguments: Sequence[str], heard: Callable[[Worker, ToSupervisor], None]
    ) -> None:
        self.number = start.number
        self.version = start.version
        self.pid = 0
        self.name = ""
        self.serves: Serves | None = None
        """Once it is ready."""
        self.dismissed = False
        """Whether it was told to end, for another one to take its place."""
        self.unusable: Unusable | None = None
        self.returncode = 0
        self._start = start
        self._arguments = arguments
        self._heard = heard
        self._channel: Channel[ToSupervisor] | None = None
        self._process: trio.Process | None = None
        self._life = trio.CancelScope()

    def post(self, message: Message, *, droppable: bool = False) -> bool:
        """Tell the worker; see `Channel.post`."""
        return self._channel is not None and self._channel.post(message, droppable=droppable)

    def dismiss(self) -> None:
        """Have it end in order, for another one to take its place."""
        self.dismissed = True
        self.post(Stop())

    def kill(self) -> None:
        """End the process now, if it has not ended."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            self._life.deadline = min(self._life.deadline, trio.current_time() + KILL_SECONDS)

    async def run(self) -> None:
        """Start the process, listen to it until it has ended, and see that nothing is left of it.

        Raises:
            OSError: it could not be started.
        """
        ours, theirs = socket.socketpair()
        self._channel = channel = Channel(ours, decode_to_supervisor)
        channel.post(self._start)
        try:
            with theirs:
                self._process = process = await self._spawn(theirs.fileno())
            self.pid = process.pid
            self.name = f"{self.number}-{self.pid}"
            try:
                with self._life:
                    await self._converse(process, channel)
            finally:
                await _end(process, channel)  # noqa: ASYNC102 - it shields itself, with a limit
                self.returncode = -signal.SIGKILL if process.returncode is None else process.returncode
        finally:
            self._channel = None
            channel.close()

    async def _spawn(self, descriptor: int) -> trio.Process:
        # A group of its own: what a terminal's keys send goes to the supervisor, which decides.
        return await trio.lowlevel.open_process(
            [sys.executable, *_flags(), *self._arguments, str(descriptor)],
            stdin=subprocess.DEVNULL,
            pass_fds=(descriptor, *self._start.listeners),
            process_group=0,
        )

    async def _converse(self, process: trio.Process, channel: Channel[ToSupervisor]) -> None:
        silent = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.write)
            nursery.start_soon(self._listen, channel, silent)
            await process.wait()
            with trio.move_on_after(LAST_WORDS_SECONDS):
                await silent.wait()
            nursery.cancel_scope.cancel()

    async def _listen(self, channel: Channel[ToSupervisor], silent: trio.Event) -> None:
        try:
            while (message := await channel.receive()) is not None:
                if isinstance(message, Unusable):
                    self.unusable = message
                elif isinstance(message, Ready | Committed):
                    self.serves = message.serves
                self._heard(self, message)
        except (FrameError, msgspec.DecodeError) as error:
            logger.error("worker %d cannot be understood and is ended: %s", self.number, error)
            self.kill()
        finally:
            silent.set()


async def _end(process: trio.Process, channel: Channel[ToSupervisor]) -> None:
    """See that the process has ended."""
    with trio.CancelScope(shield=True):
        if process.returncode is None:
            with trio.move_on_after(CLOSE_SECONDS):
                channel.post(Stop(at_once=True))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(channel.write)
                    await process.wait()
                    nursery.cancel_scope.cancel()
            process.kill()
        with trio.move_on_after(KILL_SECONDS) as waited:
            await process.wait()
        if waited.cancelled_caught:
            logger.error("worker process %d was killed and has not ended: nobody waits for it", process.pid)


def _flags() -> list[str]:
    """Python's own options: a worker looks for modules where this process does, and nowhere else.

    The working directory is among these places only where it is this process's first one, as under `-m`.
    """
    flags = [] if sys.path[:1] == [os.getcwd()] else ["-P"]  # noqa: PTH109 - as the interpreter wrote it
    if sys.flags.no_user_site:
        flags.append("-s")
    if sys.flags.ignore_environment:
        flags.append("-E")
    return flags


__all__ = ["Worker"]
