"""Listening to a model call's HTTP exchange, or answering in the upstream's place.

Whoever runs a model call may set `AROUND` for it. Each request that is made meanwhile then goes through the
transport that this makes of the provider's own: a `TappedTransport`, which tells a listener everything, or a
`ScriptedTransport`, which asks somebody else for the answer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextvars import ContextVar
from typing import Final, Protocol

import httpx

from trio_agent.providers.http_connection import CutShort
from trio_agent.providers.http_failure import reason_of
from trio_agent.providers.http_transport import BODY


class Around(Protocol):
    """What a model call's HTTP is surrounded by."""

    def transport(self, inner: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
        """The transport for one request, made of the provider's own."""

    def now(self) -> float:
        """Wall time, in seconds since the epoch."""


AROUND: ContextVar[Around | None] = ContextVar("trio_agent_http_around", default=None)

FAILURES: Final[dict[str, type[httpx.TransportError]]] = {
    "connect_timeout": httpx.ConnectTimeout,
    "connect_error": httpx.ConnectError,
    "pool_timeout": httpx.PoolTimeout,
    "cut_short": CutShort,
    "protocol_error": httpx.RemoteProtocolError,
    "read_error": httpx.ReadError,
    "write_error": httpx.WriteError,
    "local_error": httpx.LocalProtocolError,
}
"""The ways in which an exchange breaks, by name."""
_NAMES: Final = {kind: name for name, kind in FAILURES.items()}


class ReadableBody(Protocol):
    """A response's body as `UpstreamHttp` reads it."""

    def receive(self) -> Awaitable[bytes]:
        """All content that the next wake-up brings; empty at the end. Not to be called once closed."""

    async def aclose(self) -> None: ...


class HttpTap(Protocol):
    """Hears one exchange. Nothing here may wait or raise."""

    def asked(self, method: str, url: str, body: bytes) -> None:
        """A request goes out. Its headers, which carry keys, are not told."""

    def answered(self, status: int, headers: list[tuple[str, str]]) -> None:
        """The head of the response is here."""

    def arrived(self, content: bytes) -> None:
        """Content of the body; empty at its end."""

    def broke(self, failure: str, message: str) -> None:
        """The exchange failed, by its name in `FAILURES`."""

    def closed(self) -> None:
        """The response was closed before its end."""


class HttpScript(Protocol):
    """Answers one exchange. A failure is raised as `broken` makes it."""

    async def head(self) -> tuple[int, list[tuple[str, str]]]:
        """The status and headers, when they come."""

    async def content(self) -> bytes:
        """The next content of the body; empty at its end."""


def broken(failure: str, message: str) -> httpx.TransportError:
    """The exception for a failure by its name. Raises KeyError for a name that is none."""
    return FAILURES[failure](message)


class TappedTransport(httpx.AsyncBaseTransport):
    """The same exchange, with a listener."""

    def __init__(self, inner: httpx.AsyncBaseTransport, tap: HttpTap) -> None:
        self._inner = inner
        self._tap = tap

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        tap = self._tap
        tap.asked(request.method, str(request.url), request.content)
        sending = self._inner.handle_async_request(request)
        del request  # a large one should not be kept for as long as the answer takes
        try:
            response = await sending
        except httpx.TransportError as error:
            tap.broke(_name_of(error), reason_of(error))
            raise
        except BaseException:
            tap.closed()
            raise
        tap.answered(response.status_code, list(response.headers.multi_items()))
        response.stream = response.extensions[BODY] = _TappedBody(response.extensions[BODY], tap)
        return response


class _TappedBody(httpx.AsyncByteStream):
    def __init__(self, inner: ReadableBody, tap: HttpTap) -> None:
        self._inner = inner
        self._tap = tap
        self._over = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.batches()

    async def batches(self) -> AsyncGenerator[bytes, None]:
        while content := await self.receive():
            yield content

    async def receive(self) -> bytes:
        if self._over:
            return b""
        try:
            content = await self._inner.receive()
        except httpx.TransportError as error:
            self._over = True
            self._tap.broke(_name_of(error), reason_of(error))
            raise
        self._over = not content
        self._tap.arrived(content)
        return content

    async def aclose(self) -> None:
        if not self._over:
            self._over = True
            self._tap.closed()
        await self._inner.aclose()


class ScriptedTransport(httpx.AsyncBaseTransport):
    """No network: a script answers."""

    def __init__(self, script: HttpScript) -> None:
        self._script = script

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        status, headers = await self._script.head()
        body = _ScriptedBody(self._script)
        # As text, httpx takes only ASCII.
        encoded = [(name.encode(), value.encode()) for name, value in headers]
        return httpx.Response(status, headers=encoded, stream=body, extensions={BODY: body})


class _ScriptedBody(httpx.AsyncByteStream):
    def __init__(self, script: HttpScript) -> None:
        self._script = script

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.batches()

    async def batches(self) -> AsyncGenerator[bytes, None]:
        while content := await self.receive():
            yield content

    def receive(self) -> Awaitable[bytes]:
        return self._script.content()

    async def aclose(self) -> None:
        """Nothing is open."""


def _name_of(error: httpx.TransportError) -> str:
    for kind in type(error).__mro__:
        if kind in _NAMES:
            return _NAMES[kind]
    return "read_error" if isinstance(error, httpx.NetworkError | httpx.TimeoutException) else "local_error"
