"""One chat request on a plain socket, read when the test says so."""

from __future__ import annotations

import json
import socket

from support.serving import Served, script

STALL = script({"text": "a"}, {"stall": True})


class Caller:
    """One request on a socket of its own, read when the test says so."""

    def __init__(self, server: Served, text: str, *, stream: bool = True, model: str = "demo") -> None:
        body = json.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": text}]})
        self.socket = server.open.enter_context(socket.socket())
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(15)
        self.socket.connect(("127.0.0.1", server.port))
        self.socket.sendall(
            f"POST /v1/chat/completions HTTP/1.0\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n"
            f"authorization: Bearer {server.key}\r\n\r\n{body}".encode()
        )
        self.received = b""

    def close(self) -> None:
        self.socket.close()

    def until(self, text: bytes) -> None:
        while text not in self.received:
            data = self.socket.recv(65536)
            assert data, self.received
            self.received += data

    def rest(self) -> str:
        """Everything to the end of the connection, without the head."""
        while data := self.socket.recv(65536):
            self.received += data
        self.close()
        return self.received.partition(b"\r\n\r\n")[2].decode()

    @property
    def status(self) -> int:
        return int(self.received.split(b" ", 2)[1])
