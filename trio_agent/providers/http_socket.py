"""A socket to an upstream, plain or under TLS, that can also be asked what is here without waiting.

Not Trio's streams: what they have read and not handed out cannot be seen, so nobody could say whether a
TLS connection is clean when it is to serve again; and a read costs them twice as much.
"""

from __future__ import annotations

import math
import os
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Final

import httpx
import trio

READ_BYTES: Final = 65_536
WRITE_BYTES: Final = 65_536
"""What is encrypted at a time, so that a large request is not in memory a second time."""


class Link:
    """An open connection. Reading and writing raise OSError or Trio's resource errors.

    One task at a time may use it. Nothing here outlives `close`: the descriptor is asked of the socket, and
    used, within one step, so a number that the system has given to another socket is never read from.
    """

    __slots__ = ("_socket", "_stream")

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._socket = stream.socket

    def close(self) -> None:
        """Close at once, without a word."""
        self._socket.close()

    async def send_all(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def receive(self) -> bytes:
        """What comes next, at least a byte; empty at the end."""
        while True:
            if self._socket.fileno() < 0:
                raise trio.ClosedResourceError
            # Waiting first: a stream's next bytes are hardly ever here before they are asked for.
            await trio.lowlevel.wait_readable(self._socket)
            data = self._arrived()
            if data is not None:
                return data

    def receive_now(self) -> bytes | None:
        """What is here; empty at the end, `None` when there is nothing yet."""
        return self._arrived()

    def _arrived(self) -> bytes | None:
        try:
            return os.read(self._socket.fileno(), READ_BYTES)
        except BlockingIOError:
            return None

    def silent(self) -> bool:
        """Whether nothing has come and the other side is still there. What had come is lost."""
        try:
            return self.receive_now() is None
        except OSError:
            return False


class TLSLink(Link):
    """The same under TLS.

    The end of the connection counts as the end of the content, whether or not TLS said goodbye: many servers
    do not, and every body but the one that ends with its connection knows its own end.
    """

    __slots__ = ("_ended", "_failure", "_incoming", "_outgoing", "_ssl", "_torn")

    def __init__(self, stream: trio.SocketStream, context: ssl.SSLContext, host: str) -> None:
        super().__init__(stream)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._ended = False
        self._torn = False
        self._failure: ssl.SSLError | None = None

    async def do_handshake(self) -> None:
        """Agree on keys, and verify the certificate and the host's name as the context says."""
        while True:
            done = False
            try:
                self._ssl.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                with suppress(OSError):  # the alert that tells the other side why, if it can be sent
                    os.write(self._socket.fileno(), self._outgoing.read())
                raise
            if self._outgoing.pending:
                await self._flush()
            if done:
                return
            self._take(await super().receive())

    async def _flush(self) -> None:
        self._torn = True  # until all of it is out: half a record garbles what follows
        await self._stream.send_all(self._outgoing.read())
        self._torn = False

    async def send_all(self, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(view), WRITE_BYTES):
            piece = view[start : start + WRITE_BYTES]
            while piece:
                piece = piece[self._ssl.write(piece) :]
            await self._flush()

    async def receive(self) -> bytes:
        while True:
            data = self._decrypted()
            if data is not None:
                return data
            if self._outgoing.pending:
                await self._flush()  # TLS answers by itself, to a change of keys
            self._take(await super().receive())

    def receive_now(self) -> bytes | None:
        data = self._decrypted()
        if data is None:
            arrived = self._arrived()
            if arrived is not None:
                self._take(arrived)
                data = self._decrypted()
        return data

    def silent(self) -> bool:
        return not self._torn and super().silent()

    def _take(self, data: bytes) -> None:
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _decrypted(self) -> bytes | None:
        """All content that is here, joined; empty at the end, `None` when there is none yet."""
        if self._failure is not None:
            raise self._failure
        parts: list[bytes] = []
        while not self._ended:
            try:
                piece = self._ssl.read(READ_BYTES)
            except ssl.SSLWantReadError:
                break
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                piece = b""
            except ssl.SSLError as error:
                if not parts:
                    raise
                self._failure = error  # what came before it is delivered first
                break
            if piece:
                parts.append(piece)
            else:
                self._ended = True
        if parts:
            return b"".join(parts)
        return b"" if self._ended else None


def default_context() -> ssl.SSLContext:
    """A context that trusts what the system trusts, or `SSL_CERT_FILE` and `SSL_CERT_DIR` where they are set.

    Where the system has no certificates (a bare container), it trusts Mozilla's list, which comes with httpx.
    """
    found = ssl.get_default_verify_paths()
    if not found.cafile and not _has_entries(found.capath):
        context = httpx.create_ssl_context(trust_env=False)
    else:
        context = ssl.create_default_context()
    # HTTP/1.1 only: one lost HTTP/2 connection would end many streams.
    context.set_alpn_protocols(["http/1.1"])
    return context


def _has_entries(folder: str | None) -> bool:
    try:
        return folder is not None and any(Path(folder).iterdir())
    except OSError:
        return False


async def open_link(host: str, port: int, *, context: ssl.SSLContext | None, seconds: float | None) -> Link:
    """Connect, to whichever of the host's addresses answers first, with TLS where a context is given.

    Args:
        host: a name in ASCII, or an address without brackets.
        seconds: for all of it; `None` for no limit.

    Raises:
        httpx.ConnectError: no connection; its cause says why.
        httpx.ConnectTimeout: none in time.
    """
    limit = math.inf if seconds is None else seconds
    with trio.move_on_after(limit):
        try:
            stream = await trio.open_tcp_stream(host, port)
            if context is None:
                return Link(stream)
            return await _secured(stream, context, host)
        # A name can be unfit for DNS (UnicodeError) or for a certificate (ValueError).
        except (OSError, ValueError, trio.BrokenResourceError) as error:
            raise httpx.ConnectError(str(error)) from error
    raise httpx.ConnectTimeout(f"no connection within {limit:g} s")


async def _secured(stream: trio.SocketStream, context: ssl.SSLContext, host: str) -> TLSLink:
    try:
        link = TLSLink(stream, context, host)
        await link.do_handshake()
    except BaseException:
        stream.socket.close()
        raise
    return link
