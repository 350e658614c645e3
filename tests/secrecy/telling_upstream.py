"""An upstream that tells on whoever calls it: it says the credentials of a request in every way it can."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import quote

MODELS = ("good", "refuses", "breaks", "errs", "garbles", "cuts", "redirects", "huge")
FAILING = MODELS[1:]


def disguises(secret: str) -> list[str]:
    """A secret as it may stand in a text: itself, quoted for a URL, in base64, as hexadecimal digits."""
    raw = secret.encode()
    return [
        secret,
        quote(secret, safe=""),
        base64.b64encode(raw).decode(),
        base64.urlsafe_b64encode(raw).decode(),
        raw.hex(),
    ]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _told(self) -> str:
        """All that came with the request and may be secret, whole and taken apart."""
        values = [value for name, value in self.headers.items() if name.lower() not in ("host", "accept")]
        for value in list(values):
            kind, _, rest = value.partition(" ")
            if kind.lower() == "basic":
                _, _, password = base64.b64decode(rest).decode().partition(":")
                values += [rest, password, quote(password, safe="")]
            elif rest:
                values.append(rest)
        return " | ".join(form for value in values for form in [value, *disguises(value)])

    def do_GET(self) -> None:
        self._json(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in MODELS]})

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/v1/traces":
            cast("TellingUpstream", self.server).traces.append(content)
            self._json(200, b"")
            return
        body = json.loads(content)
        model, told = body["model"], self._told()
        match model:
            case "refuses":
                error = {"error": {"message": f"Incorrect API key: {told}", "code": told[:90], "type": told}}
                self._json(
                    401, error, {"www-authenticate": f'Bearer realm="{told[:60]}"', "x-request-id": told}
                )
            case "breaks":
                self._json(500, f"Traceback: key was {told}".encode())
            case "redirects":
                self._json(302, b"", {"location": f"http://127.0.0.1:1/?key={quote(told)}"})
            case "huge":
                self._json(400, {"error": {"message": "x" * 200 + told * 50, "code": "invalid"}})
            case "errs":
                self._stream([self._delta("Hello"), {"error": {"message": f"bad key {told}", "code": told}}])
            case "garbles":
                self._stream([self._delta("Hello"), f"{{broken {told}".encode()])
            case "cuts":
                self._stream([self._delta("Hello")], whole=False)
            case _:
                self._good(body)

    def _good(self, body: dict[str, Any]) -> None:
        asked = any(message["role"] == "tool" for message in body["messages"])
        if body.get("tools") and not asked:
            function = {"name": body["tools"][0]["function"]["name"], "arguments": "{}"}
            call = {"index": 0, "id": "call_1", "type": "function", "function": function}
            delta = {"role": "assistant", "tool_calls": [call]}
            ending = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
            self._stream([{"choices": [{"index": 0, "delta": delta}]}, ending])
            return
        finish = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
                  "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}  # fmt: skip
        self._stream([self._delta("All is well"), finish])

    @staticmethod
    def _delta(text: str) -> dict[str, Any]:
        return {"id": "c1", "choices": [{"index": 0, "delta": {"role": "assistant", "content": text}}]}

    def _stream(self, events: list[Any], *, whole: bool = True) -> None:
        datas = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in events]
        datas += [b"[DONE]"] if whole else []
        content = b"".join(b"data: " + data + b"\n\n" for data in datas)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(content) + (0 if whole else 100)))
        self.end_headers()
        self.wfile.write(content)
        if not whole:
            self.close_connection = True

    def _json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        for name, each in (headers or {}).items():
            self.send_header(name, each[:4000])
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class TellingUpstream(ThreadingHTTPServer):
    """The server. It is a collector of traces as well: `traces` are the bodies that came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port = int(self.server_address[1])
        self.traces: list[bytes] = []


@contextmanager
def telling_upstream() -> Iterator[TellingUpstream]:
    """The server, while the block runs."""
    server = TellingUpstream()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
