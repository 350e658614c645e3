"""What a failed HTTP exchange means: for the turn, a kind of failure; for a person, words."""

from __future__ import annotations

import ssl
from typing import Final

import httpx

from trio_agent.config.mask import bare_url
from trio_agent.providers.http_connection import CutShort
from trio_agent.statemachine.failure import FailureKind

_LONGEST_HINT: Final = 300


def failure_of_transport(
    error: httpx.TransportError, *, connect_s: float, pool_s: float, size: int
) -> tuple[FailureKind, str]:
    """The kind of failure, and what follows the upstream's name in a sentence.

    Args:
        connect_s, pool_s: the limits on connecting and on waiting for a connection, in seconds.
        size: how many connections there may be.
    """
    if isinstance(error, httpx.ConnectTimeout):
        return "refused", f"could not be reached within {connect_s:g} seconds"
    if isinstance(error, httpx.ConnectError):
        return "refused", f"could not be reached: {reason_of(error)}"
    if isinstance(error, httpx.PoolTimeout):
        return "refused", (
            f"was not called: all {size} connections were busy for {pool_s:g} seconds (raise max_connections)"
        )
    if isinstance(error, CutShort):
        return "truncated", "closed the connection before its answer was complete"
    if isinstance(error, httpx.RemoteProtocolError):
        return "malformed", f"does not speak valid HTTP: {error}"
    if isinstance(error, httpx.NetworkError | httpx.TimeoutException):
        return "truncated", f"broke the connection: {reason_of(error)}"
    # No detail: it would be the header or URL at fault, secrets included.
    return "unexpected", "was not called: a header or the URL cannot be sent"


def hint(response: httpx.Response, raw: bytearray) -> str:
    """What a body that is no known error object still tells a person."""
    if response.has_redirect_location:
        target = bare_location(response.headers["location"])
        return f"a redirect to {target[:_LONGEST_HINT]} (set base_url to the final address)"
    if response.headers.get("content-type", "").partition(";")[0].strip().lower() in (
        "text/html",
        "application/json",
    ):
        return ""
    text = " ".join(raw[: 4 * _LONGEST_HINT].decode("utf-8", "replace").split())
    return text[:_LONGEST_HINT] if text.isprintable() and not text.startswith("<") else ""


def bare_location(location: str) -> str:
    """Where a redirect leads, without user, password, query and fragment: any of them may hold a key."""
    return bare_url(location.partition("?")[0].partition("#")[0])


def reason_of(error: BaseException) -> str:
    """The innermost operating-system or TLS error's own words."""
    reason, seen = str(error), error
    for _ in range(8):
        inner = seen.__cause__ or seen.__context__
        if isinstance(seen, BaseExceptionGroup):
            inner = seen.exceptions[0]  # one of several addresses tried
        if inner is None:
            break
        seen = inner
        if isinstance(inner, ssl.SSLCertVerificationError):
            reason = f"certificate not accepted ({inner.verify_message})"
        elif isinstance(inner, OSError) and inner.strerror:
            reason = inner.strerror
    return reason or "connection failed"
