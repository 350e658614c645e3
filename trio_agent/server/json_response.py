"""An ordinary answer in JSON, as the framework sends it."""

from __future__ import annotations

from collections.abc import Iterable

from quart import Response


def json_response(body: bytes, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()) -> Response:
    """A whole document, with these headers beside its own."""
    response = Response(body, status, content_type="application/json")
    for name, value in headers:
        response.headers[name.decode()] = value.decode()
    return response


__all__ = ["json_response"]
