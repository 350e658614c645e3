"""One ASGI call: what the application receives and sends for one request, and the scope that cancels it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

BODY_BYTES: Final = 262_144
"""Request body held for an application that has not asked for it yet; more waits in the socket."""


class Call:
    """The queue between a connection's reading task and its application.

    Args:
        park: how the reading task waits here; it still watches for the client's end.
        send_continue: tells the client to send its body; called when the application first asks for it.
        send_message: hypercorn's end of `send`; `None` says that the application has returned.
        chunk: a piece of the running response's body as it goes out; `None` where hypercorn has a say in it.
        write: hands bytes to the kernel.
    """

    __slots__ = (
        "_arrived",
        "_asked",
        "_body",
        "_body_ended",
        "_chunk",
        "_closed",
        "_over",
        "_park",
        "_room",
        "_send_continue",
        "_send_message",
        "_write",
        "answered",
        "scope",
    )

    def __init__(
        self,
        park: Callable[[trio.Event], Awaitable[None]],
        send_continue: Callable[[], Awaitable[None]],
        send_message: Callable[[Any], Awaitable[None]],
        chunk: Callable[[bytes], bytes | None],
        write: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self.scope = trio.CancelScope()
        self.answered = False
        """Whether the end of the response is on its way: the client's leaving then means nothing."""
        self._park = park
        self._send_continue = send_continue
        self._send_message = send_message
        self._chunk = chunk
        self._write = write
        self._asked = False
        self._closed = False
        self._over = False
        self._body = bytearray()
        self._body_ended = False
        self._arrived: trio.Event | None = None
        self._room: trio.Event | None = None

    async def put(self, message: Any) -> None:
        """Take a message from the protocol; wait in the reading task while the application is behind."""
        kind = message["type"]
        if kind == "http.request":
            # Always yields: a body in tiny chunks must not keep other connections waiting.
            await trio.lowlevel.checkpoint()
            await self._wait_while(lambda: len(self._body) >= BODY_BYTES)
            if not self._over:
                self._body += message["body"]
                self._body_ended = not message["more_body"]
        elif kind == "http.disconnect":
            self._closed = True
        if self._arrived is not None:
            self._arrived.set()

    async def _wait_while(self, full: Callable[[], bool]) -> None:
        while full() and not self._over:
            self._room = trio.Event()
            await self._park(self._room)

    async def receive(self) -> Any:
        """ASGI `receive`. Waits for ever after the last message: the end of the client is a cancellation."""
        if not self._asked:
            self._asked = True
            await self._send_continue()
        while True:
            message = self._next_message()
            if message is not None:
                if self._room is not None:
                    self._room.set()
                await trio.lowlevel.checkpoint()
                return message
            self._arrived = trio.Event()
            await self._arrived.wait()

    def _next_message(self) -> Any:
        if self._body or self._body_ended:
            # The whole of what is there in one message, however many chunks it came in.
            body, more = bytes(self._body), not self._body_ended
            self._body.clear()
            self._body_ended = False
            return {"type": "http.request", "body": body, "more_body": more}
        if self._closed:
            return {"type": "http.disconnect"}
        return None

    async def send(self, message: Any) -> None:
        """ASGI `send`: returns when the kernel has taken the bytes.

        A cancellation is raised before or after a message, never in the middle of its bytes.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        chunk: bytes | None = None
        if message["type"] == "http.response.body":
            if not message.get("more_body", False):
                # Before, not after: a client that has read the last byte may be gone before this returns.
                self.answered = True
            elif not self.answered and message.get("body"):
                chunk = self._chunk(message["body"])
        if chunk is None:
            await self._send_message(message)
        else:
            await self._write(chunk)
        await trio.lowlevel.checkpoint_if_cancelled()

    async def end(self) -> None:
        """The application has returned: complete or break off what it left open."""
        await self._send_message(None)

    def finish(self) -> None:
        """Nothing will be received any more: let go of what is queued and of a reader that waits."""
        self._over = True
        self._body.clear()
        if self._room is not None:
            self._room.set()
