"""What browsers are told of the pages that may call this server (Fetch standard, CORS).

Keys come as headers that a page sets itself. So no answer ever allows credentials of the browser's own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from quart import Response
from werkzeug.datastructures import Headers

EXPOSED_HEADERS: Final = ", ".join(
    (
        "X-Turn-Id",
        "X-Request-Id",
        "X-Ignored",
        "X-Truncated",
        "X-Usage-Source",
        "X-Should-Retry",
        "Retry-After",
        "Idempotent-Replayed",
        "Allow",
    )
)
"""What pages of the allowed origins may read of an answer, beside what every page may."""
PREFLIGHT_SECONDS: Final = 600
"""How long a browser may remember the answer to a preflight request."""
MOST_HEADERS: Final = 64
"""Request headers that one preflight request is allowed; those after them are not."""
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")

Pairs = list[tuple[str, str]]


def is_preflight(method: str, headers: Headers) -> bool:
    """Whether a browser asks what a page of another origin may send."""
    return method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers


def preflight(headers: Headers, methods: Sequence[str]) -> Response:
    """The answer to a preflight request for a path that takes `methods`."""
    names = headers.get("access-control-request-headers", "").split(",", MOST_HEADERS)[:MOST_HEADERS]
    wanted = [name.strip().lower() for name in names]
    response = Response(b"", 204)
    del response.headers["content-type"]
    said = response.headers
    said["access-control-allow-methods"] = ", ".join(methods)
    said["access-control-allow-headers"] = ", ".join(name for name in wanted if _TOKEN.fullmatch(name))
    said["access-control-max-age"] = f"{PREFLIGHT_SECONDS}"
    said["vary"] = "Access-Control-Request-Method, Access-Control-Request-Headers"
    if headers.get("access-control-request-private-network") == "true":
        # A public page that calls a server in a private network; its origin is one that the operator named.
        said["access-control-allow-private-network"] = "true"
    return response


def welcome(headers: Headers, origin: str | None) -> None:
    """Say in the headers of an answer that pages of `origin` may read it; `None`: they may not."""
    if origin is not None:
        headers["access-control-allow-origin"] = origin
        headers["access-control-expose-headers"] = EXPOSED_HEADERS
    others = headers.get("vary")
    headers["vary"] = f"Origin, {others}" if others else "Origin"


__all__ = ["EXPOSED_HEADERS", "MOST_HEADERS", "is_preflight", "preflight", "welcome"]
