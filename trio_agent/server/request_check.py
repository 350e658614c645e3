"""Requests that h11 lets pass and this server does not, and those that ask for a WebSocket. Pure."""

from __future__ import annotations

from base64 import b64decode
from typing import Final
from urllib.parse import urlsplit

import h11


def refusal(request: h11.Request, max_header_bytes: int) -> int:
    """The HTTP status that a request line and header block deserve, or 0 if they may pass.

    h11 has checked the grammar. What is left: other versions (the HTTP/2 preface parses as 2.0),
    CONNECT, targets that are no path (RFC 9112, 3.2), two framings at once and a transfer coding in
    HTTP/1.0 (RFC 9112, 6.1: request smuggling), and a header block that came in one piece and so
    passed h11's limit, which is on incomplete blocks only.
    """
    names = {name for name, _ in request.headers}
    size = len(request.method + request.target) + sum(
        len(name + value) + 4 for name, value in request.headers
    )
    if not request.http_version.startswith(b"1."):
        return 505
    if request.method.upper() == b"CONNECT":
        return 501
    if size > max_header_bytes:
        return 431
    if b"transfer-encoding" in names and (b"content-length" in names or request.http_version == b"1.0"):
        return 400
    return 0 if _is_path(request.method, request.target) else 400


def _is_path(method: bytes, target: bytes) -> bool:
    if target.startswith(b"/"):
        return True
    if target == b"*":
        return method.upper() == b"OPTIONS"
    try:
        return urlsplit(target.decode("ascii")).scheme in {"http", "https"}
    except ValueError:
        return False


def asks_for_websocket(request: h11.Request) -> bool:
    """Whether this is an upgrade to WebSocket. In HTTP/1.0 there are none (RFC 9110, 7.8)."""
    return (
        request.method == b"GET"
        and request.http_version == b"1.1"
        and b"upgrade" in _tokens(request, b"connection")
        and b"websocket" in _tokens(request, b"upgrade")
    )


def is_good_handshake(request: h11.Request) -> bool:
    """Whether an upgrade to WebSocket is as RFC 6455, 4.2.1 wants it: the version, one key, and no body."""
    values = {name: [value for other, value in request.headers if other == name] for name in _HANDSHAKE}
    return (
        values[b"sec-websocket-version"] == [b"13"]
        and [len(_decoded(key)) for key in values[b"sec-websocket-key"]] == [16]
        and values[b"content-length"] in ([], [b"0"])
        and not values[b"transfer-encoding"]
    )


_HANDSHAKE: Final = (b"sec-websocket-version", b"sec-websocket-key", b"content-length", b"transfer-encoding")


def _tokens(request: h11.Request, field: bytes) -> set[bytes]:
    lists = [value.lower().split(b",") for name, value in request.headers if name == field]
    return {token.strip() for tokens in lists for token in tokens}


def _decoded(key: bytes) -> bytes:
    try:
        return b64decode(key, validate=True)
    except ValueError:
        return b""
