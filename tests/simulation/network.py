"""The network of a run: pairs of connected sockets inside the process, real ones to the code under test.

A pair of `AF_UNIX` stream sockets delivers at once and in order, has bounded buffers, half-closing, an end
of file and a reset (closing with unread bytes), and descriptors that can be polled and read. So the
server's connections and the providers' transport run unchanged, down to `os.read`.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from trio import _socket as trio_socket

BUFFER_BYTES = 16_384
"""Asked for each direction; the kernel doubles it and counts its own overhead. Small, so that a peer that
does not read is noticed soon."""


def _pair() -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair()
    for each in pair:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    return pair


class Network:
    """Who can be connected to. `halves` are the sockets that were handed to the code under test."""

    def __init__(self) -> None:
        self.halves: list[trio.socket.SocketType] = []
        self._made: list[socket.socket] = []
        self._listener: Listener | None = None
        self._upstreams: dict[int, Callable[[trio.socket.SocketType], None]] = {}
        self._obstacles: dict[int, Callable[[], Awaitable[None]]] = {}

    def _pair(self) -> tuple[socket.socket, socket.socket]:
        pair = _pair()
        self._made += pair
        return pair

    def close_all(self) -> None:
        """Leave nothing open, whoever had it: for a run that was broken off."""
        self.cut_all()
        for each in self._made:
            each.close()

    def add_upstream(
        self,
        port: int,
        obstacle: Callable[[], Awaitable[None]],
        accept: Callable[[trio.socket.SocketType], None],
    ) -> None:
        """Let `port` be connected to. `obstacle` is awaited first, and may raise OSError or take its time."""
        self._obstacles[port] = obstacle
        self._upstreams[port] = accept

    def listen(self) -> Listener:
        """What the server accepts from; one at a time."""
        self._listener = Listener(self)
        return self._listener

    def closed(self, listener: Listener) -> None:
        if self._listener is listener:
            self._listener = None

    def listener_gone(self) -> None:
        """The process that listened has ended, whether or not it closed what it had."""
        if self._listener is not None:
            self._listener.close()

    def connect(self) -> trio.socket.SocketType:
        """A client's end of a new connection to the server.

        Raises:
            ConnectionRefusedError: nobody listens.
        """
        if self._listener is None:
            raise ConnectionRefusedError
        ours, theirs = self._pair()
        self._listener.offer(self._handed(theirs))
        return trio.socket.from_stdlib_socket(ours)

    def _handed(self, half: socket.socket) -> trio.socket.SocketType:
        wrapped = trio.socket.from_stdlib_socket(half)
        self.halves.append(wrapped)
        return wrapped

    def socket(self, family: int, kind: int, proto: int) -> trio.socket.SocketType:
        """Trio's socket factory: a socket that is connected to one of the upstreams by `connect`."""
        del family, kind, proto
        ours, theirs = self._pair()
        made = _Outgoing(ours, theirs, self)
        self.halves.append(made)
        return made

    async def reach(self, port: int, half: socket.socket) -> None:
        """Connect `half` to an upstream. Raises OSError."""
        if port not in self._upstreams:
            raise ConnectionRefusedError
        await self._obstacles[port]()
        self._upstreams[port](trio.socket.from_stdlib_socket(half))

    def open_halves(self) -> int:
        """How many sockets the code under test has not closed."""
        return sum(half.fileno() >= 0 for half in self.halves)

    def cut_all(self) -> None:
        """What the system does when a process dies: all its sockets are closed."""
        for half in self.halves:
            half.close()


class _Outgoing(trio_socket._SocketType):  # type: ignore[misc]  # Trio seals the class; a factory needs a kin of it
    """The product's end of a connection to an upstream."""

    def __init__(self, ours: socket.socket, theirs: socket.socket, network: Network) -> None:
        super().__init__(ours)
        self._theirs: socket.socket | None = theirs
        self._network = network

    async def connect(self, address: Any) -> None:
        theirs, self._theirs = self._theirs, None
        assert theirs is not None
        try:
            await self._network.reach(address[1], theirs)
        except BaseException:
            theirs.close()
            raise

    def close(self) -> None:
        if self._theirs is not None:
            self._theirs.close()
            self._theirs = None
        super().close()


class _Named:
    """The part of a listening socket that the server looks at."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", 9099)

    def close(self) -> None:
        self._listener.close()


class Listener:
    """What `trio.SocketListener` is to the server."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._offered: deque[trio.socket.SocketType] = deque()
        self._wake = trio.Event()
        self._closed = False
        self.socket = _Named(self)

    def offer(self, half: trio.socket.SocketType) -> None:
        self._offered.append(half)
        self._wake.set()

    async def accept(self) -> trio.SocketStream:
        """Raises trio.ClosedResourceError once it is closed; what was not accepted by then is dropped."""
        while not self._offered:
            if self._closed:
                raise trio.ClosedResourceError
            self._wake = trio.Event()
            await self._wake.wait()
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise trio.ClosedResourceError
        return trio.SocketStream(self._offered.popleft())

    def close(self) -> None:
        self._closed = True
        self._network.closed(self)
        while self._offered:
            self._offered.popleft().close()
        self._wake.set()
