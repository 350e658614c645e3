"""Who may come in at all, before any key is looked at: by the host that was addressed, and by origin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from quart import Response, request, websocket
from werkzeug.datastructures import Headers

from trio_agent.config.binding import is_loopback
from trio_agent.errors import AgentError
from trio_agent.server.asgi import TurnApp

EXPOSED_HEADERS = "X-Turn-Id, X-Ignored, X-Truncated, Retry-After, Idempotent-Replayed"
"""What pages of the allowed origins may read of an answer, beside what every page may."""


def guard_access(app: TurnApp, *, keyless: bool, origins: Sequence[str]) -> Callable[[Headers], bool]:
    """Refuse foreign hosts and origins, and tell browsers of the origins that are welcome (CORS).

    Args:
        keyless: whether the server asks for no key; it then answers only what is addressed to this machine.
        origins: the pages that may call, as browsers write them.

    Returns:
        The check of a request's headers by itself. Raises AgentError for a stranger.
    """
    allowed = frozenset(origins)

    def check(headers: Headers) -> bool:
        """Raise AgentError for a stranger; says whether another origin, that is welcome, calls."""
        if keyless:
            check_host(headers.get("host", ""))
        origin = headers.get("origin")
        if origin is None or _host_of(origin) == headers.get("host"):
            return False
        if origin not in allowed:
            raise AgentError(
                "origin_not_allowed",
                f"Pages of {origin[:200]!r} may not call this server. Add the origin to server.cors_origins.",
            )
        return True

    @app.before_request
    async def check_origin() -> Response | None:
        return _preflight() if check(request.headers) and request.method == "OPTIONS" else None

    @app.before_websocket
    async def check_origin_of_websocket() -> None:
        check(websocket.headers)  # no browser asks before it opens one: CORS does not know WebSockets

    @app.after_request
    async def allow_origin(response: Response) -> Response:
        origin = request.headers.get("origin")
        if origin in allowed:
            response.headers["access-control-allow-origin"] = origin
            response.headers["access-control-expose-headers"] = EXPOSED_HEADERS
            response.headers.add("vary", "Origin")
        return response

    return check


def _preflight() -> Response:
    """The answer to a browser that asks before it sends (Fetch standard, CORS preflight)."""
    response = Response(b"", 204)
    response.headers["access-control-allow-methods"] = "GET, POST, DELETE, OPTIONS"
    response.headers["access-control-allow-headers"] = request.headers.get(
        "access-control-request-headers", ""
    )
    response.headers["access-control-max-age"] = "600"
    return response


def _host_of(origin: str) -> str | None:
    """Host and port of an origin; None where it has none that could be the server's own."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None


def check_host(host: str) -> None:
    """Refuse a name that is not this machine's: it may be a web page's, pointed here by its owner's DNS."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    name = name.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return
    try:
        if is_loopback(str(ip_address(name))):
            return
    except ValueError:
        pass
    raise AgentError(
        "host_not_allowed",
        "A server without a key answers only requests to localhost. Use 127.0.0.1, or start it with a key.",
    )
