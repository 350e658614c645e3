"""What the server itself answers: error bodies, and the headers that every response carries.

Errors are JSON on every path, also where the request was too broken to reach a route. The shape of
the body is the caller's: one `RenderError` function serves the routes and the protocol alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Final, TypeAlias

import msgspec

from trio_agent.errors import STATUS

Headers: TypeAlias = list[tuple[bytes, bytes]]

RenderError: TypeAlias = Callable[[int, str, str, str], tuple[bytes, Headers]]
"""`render_error(status, code, message, request_path) -> (body, headers)`.

`code` is a key of `trio_agent.errors.STATUS`. `request_path` is empty where no request line could be
read. The headers name the content type; length and connection headers are the server's.
"""

SECURITY_HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""For answers of an API that no browser page is made of. An answer that sets one itself keeps its own."""

_CODES: Final = {
    400: "invalid_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "body_too_large",
    431: "headers_too_large",
    501: "not_implemented",
    503: "too_many_connections",
    505: "http_version_not_supported",
}

_MESSAGES: Final = {
    400: "The request is not well-formed HTTP/1.1.",
    404: "There is nothing at this path.",
    405: "This path does not take this method.",
    408: "The request did not arrive in time: send its headers and body without long pauses.",
    413: "The request body is larger than this server accepts.",
    431: "The request headers are larger than this server accepts.",
    500: "The server failed to answer. Its log says why.",
    501: "This server does not offer this method or transfer coding.",
    503: "The server holds as many connections as it may. Try again shortly.",
    505: "This server speaks HTTP/1.1 only.",
}


def error_code(status: int) -> str:
    """The code of `trio_agent.errors.STATUS` that an HTTP status made by the server stands for."""
    return _CODES.get(status, "invalid_request" if status < 500 else "internal_error")


def error_message(status: int) -> str:
    """One sentence for a status that the server makes itself. It never repeats what the client sent."""
    try:
        return _MESSAGES.get(status) or f"{HTTPStatus(status).phrase}."
    except ValueError:
        return "The request failed."


def plain_error(status: int, code: str, message: str, request_path: str) -> tuple[bytes, Headers]:
    """A `RenderError` for servers that bring none: OpenAI's envelope, which most clients can read."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return msgspec.json.encode(body), [(b"content-type", b"application/json")]


def render(render_error: RenderError, status: int, request_path: str = "") -> tuple[bytes, Headers]:
    """The answer for a status that the server makes itself."""
    return render_error(status, error_code(status), error_message(status), request_path)


def with_security_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """`headers`, and those of `SECURITY_HEADERS` that are not among them."""
    complete = list(headers)
    present = {name.lower() for name, _ in complete}
    complete.extend(header for header in SECURITY_HEADERS if header[0] not in present)
    return complete


def raw_response(status: int, body: bytes, headers: Headers) -> bytes:
    """A whole HTTP/1.1 response that closes the connection, for a connection that gets no parser."""
    lines = [
        *with_security_headers(headers),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    head = b"".join(b"%s: %s\r\n" % line for line in lines)
    return b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (status, HTTPStatus(status).phrase.encode(), head, body)


assert set(_CODES.values()) <= set(STATUS)  # noqa: S101 - a code that clients see is a code of the table
