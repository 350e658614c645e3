"""Just enough of HTTP/1.1 for the two ends of a run: strict, and no code of the product's."""

from __future__ import annotations


class BadHttp(Exception):  # noqa: N818 - what the peer sent, not what went wrong here
    """What came is no HTTP/1.1 message as the product may send it."""


class Message:
    """A message that is being received: `feed` returns the content that each piece of the wire brings.

    `whole` says that the message has ended as its framing says; `rest` is what came after it.
    """

    def __init__(self, *, response: bool) -> None:
        self._response = response
        self._buffer = b""
        self._left: int | None = None
        self._chunked = False
        self.started = False
        self.whole = False
        self.first_line = ""
        self.headers: dict[str, str] = {}

    @property
    def rest(self) -> bytes:
        return self._buffer if self.whole else b""

    @property
    def status(self) -> int:
        return int(self.first_line.split(" ", 2)[1])

    def feed(self, data: bytes) -> bytes:
        self._buffer += data
        if not self.started:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return b""
            self._start(head.decode("latin-1"))
            self._buffer = rest
        return self._chunks() if self._chunked else self._plain()

    def _start(self, head: str) -> None:
        self.started = True
        self.first_line, *lines = head.split("\r\n")
        for line in lines:
            name, found, value = line.partition(":")
            if not found:
                raise BadHttp(f"a header line without a colon: {line!r}")
            if name.lower() in self.headers and name.lower() in ("content-length", "x-turn-id"):
                raise BadHttp(f"{name} came twice")
            self.headers[name.lower()] = value.strip()
        self._chunked = self.headers.get("transfer-encoding") == "chunked"
        length = self.headers.get("content-length")
        if self._chunked and length is not None:
            raise BadHttp("a body with two framings")
        if not self._chunked:
            if length is None and self._response:
                raise BadHttp("a response without a framing")
            self._left = int(length or 0)

    def _plain(self) -> bytes:
        assert self._left is not None
        content, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
        self._left -= len(content)
        self.whole = self._left == 0
        return content

    def _chunks(self) -> bytes:
        out: list[bytes] = []
        while not self.whole:
            line, found, rest = self._buffer.partition(b"\r\n")
            if not found:
                break
            size = int(line, 16)
            if len(rest) < size + 2:
                break
            if rest[size : size + 2] != b"\r\n":
                raise BadHttp("a chunk that does not end where it says")
            out.append(rest[:size])
            self._buffer = rest[size + 2 :]
            self.whole = size == 0
        return b"".join(out)
