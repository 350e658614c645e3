"""One ASGI call that serves a WebSocket: messages on their way to the application, and its idle time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio


class MessageRoom:
    """The bytes of WebSocket messages that one server holds, unfinished or not yet asked for.

    Args:
        most: bytes of all of them.
    """

    __slots__ = ("held", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0


QUEUED_BYTES: Final = 65_536
"""Messages held for an application that has not asked for them yet; more waits in the socket."""


class WebSocketCall:
    """The queue between a connection's reading task and its application; see `call.Call`.

    Args:
        park: how the reading task waits here; it still watches for the client's end.
        asks: called when the application asks for a message.
        room: the server's, for what is queued.
        send_message: the protocol's end of `send`; `None` says that the application has returned.
    """

    __slots__ = (
        "_arrived",
        "_asks",
        "_messages",
        "_over",
        "_park",
        "_queued",
        "_room",
        "_send_message",
        "_wake",
        "answered",
        "idle_since",
        "scope",
    )

    def __init__(
        self,
        park: Callable[[trio.Event], Awaitable[None]],
        asks: Callable[[], None],
        room: MessageRoom,
        send_message: Callable[[Any], Awaitable[None]],
    ) -> None:
        self.scope = trio.CancelScope()
        self.answered = False
        """Never: as long as this runs, the client's leaving cancels it."""
        self.idle_since: float | None = None
        """Since when the application waits for a message, in trio's time; `None` if it does not."""
        self._park = park
        self._asks = asks
        self._room = room
        self._send_message = send_message
        self._messages: list[tuple[Any, int]] = []
        self._queued = 0
        self._over = False
        self._arrived = trio.Event()
        self._wake = trio.Event()

    async def put(self, message: Any) -> None:
        """Take a message from the protocol; wait in the reading task while the application is behind."""
        if self._over:
            return
        size = len(message.get("text") or message.get("bytes") or "")
        others, self._queued = self._queued, self._queued + size
        self._room.held += size
        self._messages.append((message, size))
        self._arrived.set()
        while others and self._queued > QUEUED_BYTES and not self._over:
            self._wake = trio.Event()
            await self._park(self._wake)

    async def receive(self) -> Any:
        """ASGI `receive`. Waits for ever after the last message: the end of the client is a cancellation."""
        await trio.lowlevel.checkpoint()
        self.idle_since = trio.current_time()
        try:
            self._asks()
            while self._over or not self._messages:
                self._arrived = trio.Event()
                await self._arrived.wait()
        finally:
            self.idle_since = None
        message, size = self._messages.pop(0)
        self._queued -= size
        self._room.held -= size
        self._wake.set()
        return message

    async def send(self, message: Any) -> None:
        """ASGI `send`: returns when the kernel has taken the bytes."""
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._send_message(message)
        await trio.lowlevel.checkpoint_if_cancelled()

    async def end(self) -> None:
        """The application has returned: complete or break off what it left open."""
        await self._send_message(None)

    def finish(self) -> None:
        """Nothing will be received any more: let go of what is queued and of a reader that waits."""
        self._over = True
        self._room.held -= self._queued
        self._queued = 0
        self._messages.clear()
        self._wake.set()
