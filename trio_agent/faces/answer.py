"""Sending an answer through ASGI: headers, JSON bodies, and errors in the envelope of the caller's format."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from trio_agent.errors import AgentError
from trio_agent.statemachine import effects as fx
from trio_agent.wire.sse import frame

Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]
RenderBody: TypeAlias = Callable[[AgentError], bytes]
InStreamErrors: TypeAlias = Literal["event", "content", "both"]

_encode = msgspec.json.Encoder(decimal_format="string").encode
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
# https://platform.claude.com/docs/en/api/errors; what has no type there gets that of its kind.
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
ANTHROPIC_PATH = "/v1/messages"
STREAM_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # Buffering proxies would hold the stream back.
    (b"x-accel-buffering", b"no"),
]
JSON: Headers = [(b"content-type", b"application/json")]
_LONGEST_MESSAGE = 2000  # characters; more would be a client's own text, given back
_MOST_IGNORED = 20


def error_members(error: AgentError) -> dict[str, Any]:
    """What stands under `error` in OpenAI's envelope."""
    kind = _TYPES.get(error.status) or ("invalid_request_error" if error.status < 500 else "server_error")
    return {"message": shown_message(error), "type": kind, **error_details(error)}


def anthropic_error_members(error: AgentError) -> dict[str, Any]:
    """What stands under `error` in Anthropic's envelope; `code` and what follows it are ours."""
    kind = "invalid_request_error" if error.status < 500 else "api_error"
    return {
        "type": _ANTHROPIC_TYPES.get(error.status, kind),
        "message": shown_message(error),
        **error_details(error),
    }


def shown_message(error: AgentError) -> str:
    """The error's words, cut where they would be a client's own text."""
    text = error.message
    return text if len(text) <= _LONGEST_MESSAGE else text[:_LONGEST_MESSAGE] + "…"


def error_details(error: AgentError) -> dict[str, Any]:
    """The members that an error has in every envelope."""
    return {"param": error.param, "code": error.shown_code, **error.extra}


def error_body(error: AgentError) -> bytes:
    """An error in OpenAI's envelope."""
    return _encode({"error": error_members(error)})


def anthropic_error_body(error: AgentError) -> bytes:
    """An error in Anthropic's envelope, as a body and as the data of `event: error`."""
    return _encode({"type": "error", "error": anthropic_error_members(error)})


def body_renderer(path: str, headers: Mapping[str, str] | None = None) -> RenderBody:
    """The envelope that a caller expects: Anthropic's on its own paths, and from its own clients.

    Args:
        headers: the request's, names in lower case, where they are known.
    """
    if path == ANTHROPIC_PATH or path.startswith(f"{ANTHROPIC_PATH}/"):
        return anthropic_error_body
    lists_models = path == "/v1/models" or path.startswith("/v1/models/")
    return anthropic_error_body if lists_models and "anthropic-version" in (headers or {}) else error_body


def progress_event(output: fx.SendToolProgress) -> bytes:
    """What clients that ask for it see of a server-side tool at work."""
    members = {"tool_call_id": output.tool_call_id, "name": output.name, "status": output.status}
    return frame(_encode(members), event="trio_agent.tool.progress")


def error_headers(error: AgentError) -> Headers:
    """What the headers say about repeating the request."""
    headers: Headers = []
    if not error.retryable:
        headers.append((b"x-should-retry", b"false"))
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    return headers


def turn_headers(turn_id: str, ignored: Iterable[str], *, truncated: int = 0) -> Headers:
    """`X-Turn-Id`, `X-Ignored` for what of the request was left out, `X-Truncated` for how many messages.

    Args:
        ignored: names without commas or control characters; the first twenty are listed, the rest counted.
    """
    headers = [(b"x-turn-id", turn_id.encode()), *ignored_header(ignored)]
    return [*headers, (b"x-truncated", b"%d" % truncated)] if truncated else headers


def ignored_header(ignored: Iterable[str]) -> Headers:
    """`X-Ignored`, where there is something to say."""
    names = list(ignored)
    if not names:
        return []
    shown = names[:_MOST_IGNORED]
    if len(names) > len(shown):
        shown.append(f"and {len(names) - len(shown)} more")
    return [(b"x-ignored", ", ".join(shown).encode("ascii", "replace"))]


class NotedSend:
    """A `send` that remembers whether an answer has begun; after that there is no other status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.began = False

    async def __call__(self, message: dict[str, Any]) -> None:
        self.began = True
        await self._send(message)


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


async def send_error(
    send: Send, error: AgentError, headers: Headers, render: RenderBody = error_body
) -> None:
    """An error as the HTTP response, in the envelope that `render` makes."""
    await send_json(send, error.status, render(error), [*error_headers(error), *headers])
