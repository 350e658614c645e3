"""Requests that h11 lets pass and this server does not, and what is taken out of those that pass. Pure."""

from __future__ import annotations

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


def without_websocket_extensions(request: h11.Request) -> h11.Request:
    """The request, offering no WebSocket extension.

    Compression is the only one, hypercorn always accepts it, and inflates without a limit.
    """
    headers = [(name, value) for name, value in request.headers if name != b"sec-websocket-extensions"]
    if len(headers) == len(request.headers):
        return request
    return h11.Request(
        method=request.method, target=request.target, headers=headers, http_version=request.http_version
    )
