"""Sending an answer through ASGI: headers, JSON bodies, and errors in OpenAI's envelope."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias

import msgspec

from trio_agent.errors import AgentError

Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

_encode = msgspec.json.Encoder(decimal_format="string").encode
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
JSON: Headers = [(b"content-type", b"application/json")]
_LONGEST_MESSAGE = 2000  # characters; more would be a client's own text, given back
_MOST_IGNORED = 20


def error_members(error: AgentError) -> dict[str, Any]:
    """What stands under `error` in OpenAI's envelope."""
    kind = _TYPES.get(error.status) or ("invalid_request_error" if error.status < 500 else "server_error")
    return {
        "message": error.message
        if len(error.message) <= _LONGEST_MESSAGE
        else error.message[:_LONGEST_MESSAGE] + "…",
        "type": kind,
        "param": error.param,
        "code": error.shown_code,
        **error.extra,
    }


def error_body(error: AgentError) -> bytes:
    return _encode({"error": error_members(error)})


def error_headers(error: AgentError) -> Headers:
    """What the headers say about repeating the request."""
    headers: Headers = []
    if not error.retryable:
        headers.append((b"x-should-retry", b"false"))
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    return headers


def turn_headers(turn_id: str, ignored: Iterable[str]) -> Headers:
    """`X-Turn-Id`, and `X-Ignored` for what of the request was left out.

    Args:
        ignored: names without commas or control characters; the first twenty are listed, the rest counted.
    """
    headers: Headers = [(b"x-turn-id", turn_id.encode())]
    names = list(ignored)
    if names:
        shown = names[:_MOST_IGNORED]
        if len(names) > len(shown):
            shown.append(f"and {len(names) - len(shown)} more")
        headers.append((b"x-ignored", ", ".join(shown).encode("ascii", "replace")))
    return headers


async def send_json(send: Send, status: int, body: bytes, headers: Headers) -> None:
    """One whole JSON answer."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*JSON, (b"content-length", b"%d" % len(body)), *headers],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_error(send: Send, error: AgentError, headers: Headers) -> None:
    """An error as the HTTP response."""
    await send_json(send, error.status, error_body(error), [*error_headers(error), *headers])
