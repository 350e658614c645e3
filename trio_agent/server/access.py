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
from trio_agent.server.cors import is_preflight, preflight, welcome


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
        if origin is None or _host_of(origin) == headers.get("host", ""):
            return False
        if origin not in allowed:
            raise AgentError(
                "origin_not_allowed",
                f"Pages of {origin[:200]!r} may not call this server. Add the origin to server.cors_origins.",
            )
        return True

    @app.before_request
    async def check_origin() -> Response | None:
        is_welcome = check(request.headers)
        if not (is_welcome and is_preflight(request.method, request.headers)):
            return None
        methods = app.methods_of(request.path)
        if request.headers["access-control-request-method"] not in methods:
            return None  # the path itself answers: there is no such thing, or not with this method
        return preflight(request.headers, methods)

    @app.before_websocket
    async def check_origin_of_websocket() -> None:
        check(websocket.headers)  # no browser asks before it opens one: CORS does not know WebSockets

    @app.after_request
    async def allow_origin(response: Response) -> Response:
        origin = request.headers.get("origin")
        if allowed:
            # Also where none is named, so that no cache gives one page what another one may read.
            welcome(response.headers, origin if origin in allowed else None)
        return response

    return check


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
