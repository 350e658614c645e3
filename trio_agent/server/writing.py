"""Handing bytes to a client, as fast as it takes them and no longer than it may take."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from typing import Final

import trio

from .failures import log
from .sockets import unacknowledged

WRITE_BYTES: Final = 65_536
"""What a client must take of a response, or of the rest of it, within each write timeout."""
WRITES_AT_ONCE: Final = 16
"""Writes in a row that the kernel takes at once, before other tasks may run. Whoever waits for something
between two chunks lets them run anyway, and a pass through the scheduler costs as much as the write."""
CANCELLED_WRITE_TIMEOUT: Final = 1.0
"""Seconds that a client has to take the bytes which a cancellation finds on their way; then it is reset."""


class Writer:
    """Writes to one client.

    Args:
        stream: the connection.
        timeout: seconds for the client to take each `WRITE_BYTES`.
        on_failure: ends the connection; called where bytes did not go out whole.
    """

    def __init__(self, stream: trio.SocketStream, timeout: float, on_failure: Callable[[], None]) -> None:
        self._stream = stream
        self._timeout = timeout
        self._on_failure = on_failure
        self._lock = trio.Lock()
        self._written_at_once = 0

    async def write(self, data: bytes) -> None:
        """Hand bytes to the kernel, whole, or end the connection.

        h11 counts these bytes as sent, so nothing could follow a part of them. A cancellation therefore waits
        for a client that is slow, but not long: a turn's deadline does not wait for one that does not read.
        """
        unsent = [self._now(data)]
        if not unsent[0]:
            self._written_at_once += 1
            if self._written_at_once >= WRITES_AT_ONCE:
                self._written_at_once = 0
                await trio.lowlevel.cancel_shielded_checkpoint()
            return
        whole = False
        try:
            try:
                whole = await self._slowly(unsent)
            except trio.Cancelled:
                with trio.move_on_after(CANCELLED_WRITE_TIMEOUT, shield=True):
                    whole = await self._slowly(unsent)
                raise
        except (OSError, trio.ClosedResourceError):
            pass
        finally:
            if not whole:
                self._on_failure()

    async def _slowly(self, unsent: list[memoryview]) -> bool:
        """Hand over what the kernel did not take at once; False if the client took too little for too long.

        What the client has taken is asked of the kernel. That it has room again would come late: it wants
        a third of its buffer free before it says so, and the buffer may have grown to some MiB.

        Args:
            unsent: one view; what is left in it if this is cancelled has not been handed over.
        """
        sock = self._stream.socket
        left, deadline = math.inf, 0.0
        async with self._lock:
            while unsent[0]:
                if sock.fileno() < 0:
                    raise trio.ClosedResourceError
                now, left_now = trio.current_time(), len(unsent[0]) + unacknowledged(sock)
                if left_now <= left - WRITE_BYTES:
                    left, deadline = left_now, now + self._timeout
                elif now >= deadline:
                    log.info("a client took no data for %g s and was cut off", self._timeout)
                    return False
                with trio.CancelScope(deadline=deadline):
                    await trio.lowlevel.wait_writable(sock)
                    with contextlib.suppress(BlockingIOError):
                        unsent[0] = unsent[0][os.write(sock.fileno(), unsent[0]) :]
        return True

    def _now(self, data: bytes) -> memoryview:
        """What the kernel takes at once, without the cost of a deadline; returns what is left."""
        view = memoryview(data)
        if self._lock.locked():
            return view
        try:
            return view[os.write(self._stream.socket.fileno(), view) :]
        except OSError:
            return view  # full, or broken: the next attempt tells

    async def send_eof(self) -> None:
        """End our side, behind what is being written."""
        async with self._lock:
            await self._stream.send_eof()
