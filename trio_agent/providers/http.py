"""The one place where providers meet HTTP: a client for JSON in, server-sent events out.

One `UpstreamHttp` lives as long as its provider. It maps every way in which HTTP fails to an
`UpstreamError`, and takes secrets out of every message. It knows no vendor.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final, Self

import httpx
import msgspec
import trio
from msgspec import Struct

from trio_agent.config.secret_forms import forms_of
from trio_agent.providers.answer_decoder import WholeBody
from trio_agent.providers.contract import UpstreamError
from trio_agent.providers.http_failure import failure_of_transport, hint
from trio_agent.providers.http_socket import default_context
from trio_agent.providers.http_tap import AROUND, ReadableBody
from trio_agent.providers.http_transport import BODY, PoolTransport
from trio_agent.providers.upstream_failure import (
    ErrorDetails,
    failure_in_stream,
    failure_of_status,
    read_error,
    read_refusal,
    retry_after_of,
)
from trio_agent.statemachine.failure import FailureKind
from trio_agent.wire.sse import SSEError, SSEEvent, SSEParser

JSON_TIMEOUT: Final = 30.0
"""Seconds that a request for one JSON document may take as a whole."""
POOL_TIMEOUT: Final = 120.0
"""Seconds that a request waits for one of the pool's connections."""

MAX_JSON_BYTES: Final = 32 * 1024 * 1024
MAX_ERROR_BYTES: Final = 64 * 1024
MAX_STREAM_BYTES: Final = 256 * 1024 * 1024
"""Bound of one streamed answer: several times what the longest answers of today take on the wire."""
ERROR_BODY_TIMEOUT: Final = 5.0
_KEPT_URLS: Final = 16  # a provider has a handful of paths
_MASK: Final = "***"
_SHORTEST_PIECE: Final = 8
_AUTH_SCHEME: Final = re.compile(r"(?:bearer|basic|token|key|api-key) ", re.IGNORECASE)


class HttpSettings(Struct, frozen=True, kw_only=True):
    """Where the upstream is and how to reach it. `connect_timeout` is in seconds, TLS included."""

    base_url: str
    headers: dict[str, str] = {}
    connect_timeout: float = 10.0
    max_connections: int = 100


class UpstreamHttp:
    """A long-lived HTTP client for one upstream; an async context manager.

    Args:
        settings: the upstream's address, headers and limits.
        secrets: texts that must never be in a message (API keys, secret header values).
        wall_clock: seconds since the epoch; needed where `Retry-After` is a date.

    Raises:
        ValueError: `base_url` is no http(s) URL, or a header cannot be sent.
    """

    def __init__(
        self,
        settings: HttpSettings,
        *,
        secrets: tuple[str, ...] = (),
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        try:
            self._base = httpx.URL(settings.base_url)
        except httpx.InvalidURL as error:
            raise ValueError(f"not a URL: {error}") from None
        if self._base.scheme not in ("http", "https") or not self._base.host:
            raise ValueError("not an http:// or https:// URL with a host")
        if self._base.userinfo:
            raise ValueError("credentials do not belong into the URL, where logs show them: use `headers`")
        self._urls: dict[str, httpx.URL] = {}
        self._settings = settings
        self._wall_clock = wall_clock
        known = {*secrets, *(text.partition(" ")[2] for text in secrets if _AUTH_SCHEME.match(text))}
        written = {form for text in known if len(text) > 3 for form in forms_of(text)}
        self._secrets = sorted(written, key=len, reverse=True)
        self.origin: Final = self._base.netloc.decode("ascii", "replace")
        try:
            self._headers = httpx.Headers(
                {"User-Agent": "trio-agent", "Accept-Encoding": "identity", **settings.headers}
            )
        except UnicodeEncodeError:
            raise ValueError("a header holds characters that HTTP cannot carry") from None
        # No read limit: a thinking model is silent for minutes. Whoever reads has limits of its own.
        self._extensions = {"timeout": {"connect": settings.connect_timeout, "pool": POOL_TIMEOUT}}
        self._transport = PoolTransport(ssl_context=None, max_connections=settings.max_connections)

    async def __aenter__(self) -> Self:
        # Who answers in the upstream's place needs no TLS context.
        if self._base.scheme == "https" and AROUND.get() is None:
            # Making one takes tens of milliseconds, for which nobody else would run: a server that reads its
            # configuration again has streams open.
            self._transport.secure(await trio.to_thread.run_sync(default_context))
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._transport.aclose()  # noqa: ASYNC102 - closing sockets does not wait

    async def _open(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str],
        body: bytes | None = None,
    ) -> ReadableBody:
        """The body of the answer to a request, if it is a success; the caller closes it.

        No cookies, redirects or proxies, whatever the environment says.
        """
        around = AROUND.get()
        transport = self._transport if around is None else around.transport(self._transport)
        sending = transport.handle_async_request(self._request(method, path, params, headers, body))
        del body  # a large prompt need not wait here for as long as a model thinks
        response = await sending
        try:
            return await self._success(response)
        except BaseException:
            await response.aclose()  # noqa: ASYNC102, ASYNC120 - closing a socket does not wait
            raise

    def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str],
        body: bytes | None = None,
    ) -> httpx.Request:
        merged = self._headers.copy()
        merged.update(headers)
        url = self._url(path, params)
        return httpx.Request(method, url, headers=merged, content=body, extensions=self._extensions)

    def close_idle(self) -> None:
        """Close the connections that have been idle for too long; nobody else does while no request comes."""
        self._transport.close_idle()

    def scrub(self, text: str) -> str:
        """`text` without secrets, however they are written in it (`forms_of`)."""
        for secret in self._secrets:
            text = text.replace(secret, _MASK)
            # A text that was cut to a length may end within a secret.
            for length in range(min(len(secret), len(text)) - 1, _SHORTEST_PIECE - 1, -1):
                if text.endswith(secret[:length]):
                    text = text[:-length] + _MASK
                    break
        return text

    def error(self, kind: FailureKind, message: str, *, status: int | None = None) -> UpstreamError:
        """An `UpstreamError` that names the upstream and holds no secret."""
        return self._scrubbed(UpstreamError(kind, f"{self.origin} {message}", status=status))

    def reported(self, details: ErrorDetails) -> UpstreamError:
        """The `UpstreamError` for an error that the upstream reported inside a successful response."""
        return self._scrubbed(failure_in_stream(details, origin=self.origin))

    def _scrubbed(self, error: UpstreamError) -> UpstreamError:
        failure = error.failure
        return UpstreamError(
            failure.kind,
            self.scrub(failure.message),
            status=failure.status,
            code=None if failure.code is None else self.scrub(failure.code),
            retry_after=failure.retry_after,
        )

    async def get_json(self, path: str, *, params: Mapping[str, str] | None = None) -> bytes:
        """The body of `GET base_url + path`, at most 32 MiB, within 30 seconds.

        Raises:
            UpstreamError: the request failed, or an error came instead of what was asked for.
        """
        with trio.move_on_after(JSON_TIMEOUT):
            try:
                answer = await self._open("GET", path, params, {"Accept": "application/json"})
                async with aclosing(answer):
                    return await self._read_json(answer, bytearray())
            except httpx.TransportError as error:
                raise self._failure(error) from None
        raise self.error("stalled", f"did not answer GET {path} within {JSON_TIMEOUT:g} seconds")

    async def stream(
        self,
        path: str,
        body: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[list[SSEEvent], None]:
        """POST a JSON body and yield the events of the answer: a list for each wake-up that completed any.

        Comments yield nothing: only events are a sign of life. A JSON body instead of a stream is yielded
        as one `WholeBody`. The generator ends where the response ends; whether the answer was complete is
        for the caller to say. Consume it under `aclosing`: closing it early closes the connection.

        Raises:
            UpstreamError: the request failed, was refused, or its answer broke off.
        """
        sent = {"Content-Type": "application/json", "Accept": "text/event-stream", **(headers or {})}
        opening = self._open("POST", path, params, sent, body)
        del body, sent  # a stream may be open for minutes
        try:
            answer = await opening
            del opening
            async with aclosing(answer):
                head = await self._head(answer)
                if head.lstrip().startswith((b"{", b"[")):
                    yield [WholeBody(None, await self._read_json(answer, head), None)]
                    return
                if head.lstrip().startswith(b"<"):
                    raise self.error("malformed", "answered with a web page, not with events: check base_url")
                parser = SSEParser()
                events = parser.feed(bytes(head))
                del head
                if events:
                    yield events
                left = MAX_STREAM_BYTES
                while chunk := await answer.receive():
                    left -= len(chunk)
                    if left < 0:
                        raise self.error("malformed", f"streamed more than {MAX_STREAM_BYTES} bytes")
                    events = parser.feed(chunk)
                    if events:
                        yield events
        except httpx.TransportError as error:
            raise self._failure(error) from None
        except SSEError as error:
            raise self.error("malformed", f"sent an event stream that cannot be read: {error}") from None

    async def _head(self, answer: ReadableBody) -> bytearray:
        """The beginning of a body, up to its first visible byte."""
        head = bytearray()
        while chunk := await answer.receive():
            head += chunk
            if head.strip():
                break
            if len(head) > MAX_ERROR_BYTES:
                raise self.error("malformed", "answered with blanks only")
        return head

    async def _read_json(self, answer: ReadableBody, body: bytearray) -> bytes:
        while chunk := await answer.receive():
            body += chunk
            if len(body) > MAX_JSON_BYTES:
                raise self.error("malformed", f"answered with more than {MAX_JSON_BYTES} bytes of JSON")
        details = read_error(_decode(body)) if b'"error"' in body else None
        if details is not None:
            raise self.reported(details)
        return bytes(body)

    def _url(self, path: str, params: Mapping[str, str] | None) -> httpx.URL:
        url = self._urls.get(path)
        if url is None:
            url = self._base.copy_with(path=self._base.path.rstrip("/") + path)
            if len(self._urls) < _KEPT_URLS:
                self._urls[path] = url
        return url.copy_merge_params(dict(params)) if params else url

    async def _success(self, response: httpx.Response) -> ReadableBody:
        """The body of a 2xx response that is readable as it is; everything else raises."""
        body: ReadableBody = response.extensions[BODY]
        if not response.is_success:
            raise await self._refusal(response, body)
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise self.error(
                "malformed",
                f"sent content-encoding {encoding[:20]!r} though asked for none",
                status=response.status_code,
            )
        return body

    async def _refusal(self, response: httpx.Response, body: ReadableBody) -> UpstreamError:
        raw = bytearray()
        with trio.move_on_after(ERROR_BODY_TIMEOUT):
            try:
                while len(raw) < MAX_ERROR_BYTES and (chunk := await body.receive()):
                    raw += chunk
            except httpx.TransportError:
                pass  # the status says enough
        details = read_refusal(_decode(raw))
        error = failure_of_status(
            response.status_code,
            details,
            origin=self.origin,
            retry_after=retry_after_of(response.headers, self._now()),
            hint=hint(response, raw),
        )
        return self._scrubbed(error)

    def _now(self) -> float:
        around = AROUND.get()
        return self._wall_clock() if around is None else around.now()

    def _failure(self, error: httpx.TransportError) -> UpstreamError:
        kind, text = failure_of_transport(
            error,
            connect_s=self._settings.connect_timeout,
            pool_s=POOL_TIMEOUT,
            size=self._settings.max_connections,
        )
        return self.error(kind, text)


def _decode(raw: bytes | bytearray) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
