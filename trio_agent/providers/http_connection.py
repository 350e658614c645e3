"""One HTTP/1.1 connection to an upstream: a request out, a response in, and whether it can serve again.

h11 writes the request and reads the response's head, with all its checks. The body is read by
`http_body.py`, straight from the socket: a chunk of a stream costs one wake-up and little more.
"""

from __future__ import annotations

from typing import Final

import h11
import httpx
import trio

from trio_agent.providers.http_body import BodyReader, ChunkedBody, LengthBody, UntilCloseBody
from trio_agent.providers.http_socket import Link

MAX_HEAD_BYTES: Final = 100_000
"""Of a response's head, with interim responses before it."""

_FAILURES: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class CutShort(httpx.RemoteProtocolError):
    """The other side closed the connection before its answer was complete."""


class Connection:
    """An open connection. Everything that fails raises one of httpx's transport errors.

    Args:
        link: the socket; this object closes it.
        origin: what it is connected to.
    """

    __slots__ = ("_body", "_early", "_last", "_link", "idle_since", "origin")

    def __init__(self, link: Link, origin: object) -> None:
        self.origin = origin
        self.idle_since = 0.0
        self._link = link
        self._body: BodyReader | None = None
        self._last = False
        self._early = b""  # of the body, read with the head

    def close(self) -> None:
        """Close at once, without a word."""
        self._link.close()

    def silent(self) -> bool:
        """Whether nothing has come. For an idle connection anything, or its end, means that it is over."""
        return self._link.silent()

    async def send(self, request: httpx.Request) -> h11.Response:
        """Send a request, and read the head of its response. The request is let go of in between.

        Raises:
            httpx.LocalProtocolError: it cannot be sent; nothing was.
            httpx.NetworkError: the connection failed.
            CutShort: it was closed.
            httpx.RemoteProtocolError: what came is no response.
        """
        protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        method = request.method
        unsent: Exception | None = None
        try:
            await self._link.send_all(_encoded(protocol, request))
        except _FAILURES as error:
            unsent = error  # it may have answered before it hung up
        del request  # while a model thinks, its prompt need not be here as well
        response = await self._receive_head(protocol, unsent)
        self._body = _body_of(method, response)
        self._last = unsent is not None or _is_last(response)
        self._early = bytes(protocol.trailing_data[0])
        return response

    async def _receive_head(self, protocol: h11.Connection, unsent: Exception | None) -> h11.Response:
        received = 0
        while True:
            try:
                event = protocol.next_event()
            except h11.RemoteProtocolError as error:
                raise httpx.RemoteProtocolError(str(error)) from error
            if isinstance(event, h11.Response):
                return event
            if event is not h11.NEED_DATA:
                continue  # an interim response (RFC 9110, 15.2)
            if received > MAX_HEAD_BYTES:
                raise httpx.RemoteProtocolError("the head of the response is too long")
            data = await self._receive()
            if not data:
                if unsent is not None:
                    raise httpx.WriteError(str(unsent)) from unsent
                raise CutShort("closed before a whole response head")
            received += len(data)
            protocol.receive_data(data)

    async def receive_body(self) -> bytes:
        """Content as it comes, all that one read brought; empty at the end of the body.

        Raises:
            httpx.ReadError: the connection failed.
            CutShort: it was closed before the body was complete.
            httpx.RemoteProtocolError: the body's framing is broken; what came before it was returned.
        """
        body = self._body
        if body is None:
            return b""
        while not body.complete:
            if body.broken is not None:
                raise httpx.RemoteProtocolError(body.broken)
            if self._early:
                data, self._early = self._early, b""
            else:
                try:  # as `_receive` does, without its frame
                    data = await self._link.receive()
                except _FAILURES as error:
                    raise httpx.ReadError(str(error)) from error
            if not data:
                if body.end():
                    return b""
                raise CutShort("closed before the end of the body")
            content = body.feed(data)
            if content:
                return content
        return b""

    def reusable(self) -> bool:
        """Whether the response is whole and another request may follow. Reads its end if that is here."""
        body = self._body
        if body is None or self._last:
            return False
        try:
            self._read_rest(body)
        except OSError:
            return False
        return body.complete and not (body.rest or self._early)

    def _read_rest(self, body: BodyReader) -> None:
        if self._early and not body.complete:
            body.feed(self._early)
            self._early = b""
        if not body.complete and body.broken is None:
            data = self._link.receive_now()
            if data:
                body.feed(data)

    async def _receive(self) -> bytes:
        try:
            return await self._link.receive()
        except _FAILURES as error:
            raise httpx.ReadError(str(error)) from error


def _encoded(protocol: h11.Connection, request: httpx.Request) -> bytes:
    try:
        head = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
        data = [protocol.send(head)]
        if request.content:
            data.append(protocol.send(h11.Data(data=request.content)))
        data.append(protocol.send(h11.EndOfMessage()))
    except h11.LocalProtocolError as error:
        raise httpx.LocalProtocolError(str(error)) from error
    return b"".join(part or b"" for part in data)


def _body_of(method: str, response: h11.Response) -> BodyReader:
    """How the body ends (RFC 9112, 6.3). h11 has checked the two headers, and lets no other coding pass."""
    if method == "HEAD" or response.status_code in (204, 304):
        return LengthBody(0)
    length: int | None = None
    for name, value in response.headers:
        if name == b"transfer-encoding":
            return ChunkedBody()
        if name == b"content-length":
            length = int(value)
    return UntilCloseBody() if length is None else LengthBody(length)


def _is_last(response: h11.Response) -> bool:
    """Whether the connection must not be used again, by what the head says (RFC 9112, 9.3 and 6.3)."""
    if response.http_version < b"1.1":
        return True
    names = [name for name, _ in response.headers]
    if b"transfer-encoding" in names and b"content-length" in names:
        return True  # framed in two ways: whoever stands in between may see another end than we do
    tokens = [value for name, value in response.headers if name == b"connection"]
    return b"close" in {token.strip().lower() for token in b",".join(tokens).split(b",")}
