"""The end of an HTTP/1.1 response body, found without I/O (RFC 9112, sections 6.3 and 7.1).

A reader takes what one network read brought and gives back the content in it, joined. That is what makes
one wake-up one batch.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

MAX_LINE_BYTES: Final = 4096
"""A chunk's size line, extensions included, or one line of the trailers; without its CRLF."""
MAX_TRAILER_BYTES: Final = 65_536

# As h11 reads it: blanks behind the size are not in the RFC, but some servers send them.
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,20})(?:;[^\x00-\x08\x0a-\x1f\x7f]*|[ \t]*)")


class _BodyError(ValueError):
    """The framing cannot be read."""


class BodyReader(Protocol):
    """Reads one body.

    `complete` says that its end was found, `rest` is what came after the end. `broken` says why nothing
    can be read any more: it is set, not raised, so that content before it is delivered first.
    """

    complete: bool
    rest: bytes
    broken: str | None

    def feed(self, data: bytes) -> bytes:
        """The content in `data`. Not to be called again once the body is complete or broken."""
        ...

    def end(self) -> bool:
        """The connection has ended; says whether the body is whole."""
        ...


class LengthBody:
    """A body of `Content-Length` bytes, or none."""

    __slots__ = ("_left", "broken", "complete", "rest")

    def __init__(self, length: int) -> None:
        self._left = length
        self.complete = not length
        self.rest = b""
        self.broken: str | None = None

    def feed(self, data: bytes) -> bytes:
        content = data[: self._left]
        self._left -= len(content)
        if not self._left:
            self.complete = True
            self.rest = data[len(content) :]
        return content

    def end(self) -> bool:
        return self.complete


class UntilCloseBody:
    """A body that ends with its connection."""

    __slots__ = ("broken", "complete", "rest")

    def __init__(self) -> None:
        self.complete = False
        self.rest = b""
        self.broken: str | None = None

    def feed(self, data: bytes) -> bytes:
        return data

    def end(self) -> bool:
        self.complete = True
        return True


class ChunkedBody:
    """A body in chunks. Chunk extensions and trailers are read over."""

    __slots__ = ("_held", "_in_chunk", "_left", "_trailer", "broken", "complete", "rest")

    def __init__(self) -> None:
        self._held = b""  # the beginning of a line, or of the CRLF after a chunk
        self._left = 0  # of the running chunk
        self._in_chunk = False
        self._trailer: int | None = None  # bytes of trailers so far, once the last chunk was seen
        self.broken: str | None = None
        self.complete = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        if self._held:
            data = self._held + data
            self._held = b""
        content: list[bytes] = []
        try:
            self._take(data, content)
        except _BodyError as error:
            self.broken = str(error)
        return content[0] if len(content) == 1 else b"".join(content)

    def _take(self, data: bytes, content: list[bytes]) -> None:
        at, end = 0, len(data)
        while at < end and not self.complete:
            if self._left:
                piece = data[at : at + self._left]
                content.append(piece)
                at += len(piece)
                self._left -= len(piece)
            elif self._in_chunk:
                mark = data[at : at + 2]
                if mark == b"\r":
                    break
                if mark != b"\r\n":
                    raise _BodyError("a chunk does not end where its size says")
                at += 2
                self._in_chunk = False
            else:
                # Looked for no further than it may be, so that the way a body was split makes no difference.
                line_end = data.find(b"\r\n", at, at + MAX_LINE_BYTES + 2)
                if line_end < 0:
                    if end - at >= MAX_LINE_BYTES + 2:
                        raise _BodyError("a line between the chunks is too long")
                    break
                self._take_line(data[at:line_end])
                at = line_end + 2
        if self.complete:
            self.rest = data[at:]
        else:
            self._held = data[at:]

    def _take_line(self, line: bytes) -> None:
        if self._trailer is not None:
            self._trailer += len(line) + 2
            if self._trailer > MAX_TRAILER_BYTES:
                raise _BodyError("the trailers are too long")
            self.complete = not line
            return
        size = _SIZE.fullmatch(line)
        if size is None:
            raise _BodyError("a chunk does not begin with its size")
        self._left = int(size[1], 16)
        if self._left:
            self._in_chunk = True
        else:
            self._trailer = 0

    def end(self) -> bool:
        return self.complete
