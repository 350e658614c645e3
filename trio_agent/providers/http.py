"""The one place where providers meet HTTP: a client for JSON in, server-sent events out.

One `UpstreamHttp` lives as long as its provider. It maps every way in which HTTP fails to an
`UpstreamError`, and takes secrets out of every message. It knows no vendor.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, contextmanager
from http.cookiejar import DefaultCookiePolicy
from types import TracebackType
from typing import Any, Final, Self

import httpcore2
import httpx
import msgspec
import trio
from msgspec import Struct

from trio_agent.providers.answer_decoder import WholeBody
from trio_agent.providers.contract import UpstreamError
from trio_agent.providers.http_transport import BODY, PoolTransport, ResponseBody
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
_LONGEST_HINT: Final = 300
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
        self._settings = settings
        self._wall_clock = wall_clock
        known = {*secrets, *(text.partition(" ")[2] for text in secrets if _AUTH_SCHEME.match(text))}
        self._secrets = sorted((text for text in known if len(text) > 3), key=len, reverse=True)
        self.origin: Final = self._base.netloc.decode("ascii", "replace")
        self._client = self._build_client()
        self._stack = AsyncExitStack()

    def _build_client(self) -> httpx.AsyncClient:
        settings = self._settings
        context: ssl.SSLContext | None = None
        if self._base.scheme == "https":
            context = httpcore2.default_ssl_context()
        try:
            client = httpx.AsyncClient(
                transport=PoolTransport(ssl_context=context, max_connections=settings.max_connections),
                headers={"User-Agent": "trio-agent", "Accept-Encoding": "identity", **settings.headers},
                # No read limit: a thinking model is silent for minutes. Whoever reads has limits of its own.
                timeout=httpx.Timeout(None, connect=settings.connect_timeout, pool=POOL_TIMEOUT),
                trust_env=False,
                follow_redirects=False,
            )
        except UnicodeEncodeError:
            raise ValueError("a header holds characters that HTTP cannot carry") from None
        # One client serves many callers, whom a vendor's cookie must not tie together.
        client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=()))
        return client

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._client)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(exc_type, exc_value, traceback)  # noqa: ASYNC102 - closing sockets does not wait

    def scrub(self, text: str) -> str:
        """`text` without secrets."""
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
            with self._mapped():
                request = self._client.stream(
                    "GET", self._url(path, params), headers={"Accept": "application/json"}
                )
                async with request as response, aclosing((await self._success(response)).batches()) as chunks:
                    return await self._read_json(chunks, bytearray())
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
        with self._mapped():
            request = self._client.stream("POST", self._url(path, params), content=body, headers=sent)
            async with request as response, aclosing((await self._success(response)).batches()) as chunks:
                head = await self._head(chunks)
                if head.lstrip().startswith((b"{", b"[")):
                    yield [WholeBody(None, await self._read_json(chunks, head), None)]
                    return
                if head.lstrip().startswith(b"<"):
                    raise self.error("malformed", "answered with a web page, not with events: check base_url")
                parser = SSEParser()
                events = parser.feed(bytes(head))
                if events:
                    yield events
                left = MAX_STREAM_BYTES
                async for chunk in chunks:
                    left -= len(chunk)
                    if left < 0:
                        raise self.error("malformed", f"streamed more than {MAX_STREAM_BYTES} bytes")
                    events = parser.feed(chunk)
                    if events:
                        yield events

    async def _head(self, chunks: AsyncGenerator[bytes, None]) -> bytearray:
        """The beginning of a body, up to its first visible byte."""
        head = bytearray()
        async for chunk in chunks:
            head += chunk
            if head.strip():
                break
            if len(head) > MAX_ERROR_BYTES:
                raise self.error("malformed", "answered with blanks only")
        return head

    async def _read_json(self, chunks: AsyncGenerator[bytes, None], body: bytearray) -> bytes:
        async for chunk in chunks:
            body += chunk
            if len(body) > MAX_JSON_BYTES:
                raise self.error("malformed", f"answered with more than {MAX_JSON_BYTES} bytes of JSON")
        details = read_error(_decode(body)) if b'"error"' in body else None
        if details is not None:
            raise self.reported(details)
        return bytes(body)

    def _url(self, path: str, params: Mapping[str, str] | None) -> httpx.URL:
        url = self._base.copy_with(path=self._base.path.rstrip("/") + path)
        return url.copy_merge_params(dict(params)) if params else url

    async def _success(self, response: httpx.Response) -> ResponseBody:
        """The body of a 2xx response that is readable as it is; everything else raises."""
        body: ResponseBody = response.extensions[BODY]
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

    async def _refusal(self, response: httpx.Response, body: ResponseBody) -> UpstreamError:
        raw = bytearray()
        with trio.move_on_after(ERROR_BODY_TIMEOUT):
            try:
                async with aclosing(body.batches()) as chunks:
                    async for chunk in chunks:
                        raw += chunk
                        if len(raw) >= MAX_ERROR_BYTES:
                            break
            except httpx.TransportError:
                pass  # the status says enough
        details = read_refusal(_decode(raw))
        error = failure_of_status(
            response.status_code,
            details,
            origin=self.origin,
            retry_after=retry_after_of(response.headers, self._wall_clock()),
            hint=_hint(response, raw),
        )
        return self._scrubbed(error)

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectTimeout:
            seconds = self._settings.connect_timeout
            raise self.error("refused", f"could not be reached within {seconds:g} seconds") from None
        except httpx.ConnectError as error:
            raise self.error("refused", f"could not be reached: {_reason(error)}") from None
        except httpx.PoolTimeout:
            raise self.error(
                "refused",
                f"was not called: all {self._settings.max_connections} connections were busy for "
                f"{POOL_TIMEOUT:g} seconds (raise max_connections)",
            ) from None
        except httpx.RemoteProtocolError as error:
            if _is_cut(str(error)):
                raise self.error(
                    "truncated", "closed the connection before its answer was complete"
                ) from None
            raise self.error("malformed", f"does not speak valid HTTP: {error}") from None
        except (httpx.NetworkError, httpx.TimeoutException) as error:
            raise self.error("truncated", f"broke the connection: {_reason(error)}") from None
        except (httpx.LocalProtocolError, httpx.UnsupportedProtocol):
            # No detail: it would be the header or URL at fault, secrets included.
            raise self.error("unexpected", "was not called: a header or the URL cannot be sent") from None
        except SSEError as error:
            raise self.error("malformed", f"sent an event stream that cannot be read: {error}") from None


def _decode(raw: bytes | bytearray) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _hint(response: httpx.Response, raw: bytearray) -> str:
    """What a body that is no known error object still tells a person."""
    if response.has_redirect_location:
        target = response.headers["location"].partition("?")[0]
        return f"a redirect to {target[:_LONGEST_HINT]} (set base_url to the final address)"
    if response.headers.get("content-type", "").partition(";")[0].strip().lower() in (
        "text/html",
        "application/json",
    ):
        return ""
    text = " ".join(raw[: 4 * _LONGEST_HINT].decode("utf-8", "replace").split())
    return text[:_LONGEST_HINT] if text.isprintable() and not text.startswith("<") else ""


def _is_cut(text: str) -> bool:
    """Whether h11's or the pool's words mean a connection that ended too early, rather than garbage on it."""
    return "disconnected" in text or "peer closed" in text or "ConnectionClosed" in text


def _reason(error: BaseException) -> str:
    """The innermost operating-system or TLS error's own words."""
    reason, seen = str(error), error
    for _ in range(8):
        inner = seen.__cause__ or seen.__context__
        if isinstance(seen, BaseExceptionGroup):
            inner = seen.exceptions[0]  # one of several addresses tried
        if inner is None:
            break
        seen = inner
        if isinstance(inner, ssl.SSLCertVerificationError):
            reason = f"certificate not accepted ({inner.verify_message})"
        elif isinstance(inner, OSError) and inner.strerror:
            reason = inner.strerror
    return reason or "connection failed"
