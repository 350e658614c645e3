"""The one error type that clients see, and the one table from code to HTTP status.

Every failure that reaches a client, an operator's terminal or an outcome row has a `code` from
`STATUS`. Codes are contract: they do not change. Messages may improve. Faces render an `AgentError`
in their own envelope and decide nothing else about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from trio_agent.statemachine.failure import Problem

STATUS: Final[Mapping[str, int]] = {
    "invalid_request": 400,
    "unknown_model": 400,
    "unsupported_parameter": 400,
    "unsupported_content_type": 400,
    "invalid_content_part": 400,
    "invalid_image_url": 400,
    "invalid_tool_results": 400,
    "unknown_role": 400,
    "request_too_deep": 400,
    "too_many_parts": 400,
    "history_too_large": 400,
    "upstream_rejected": 400,
    "websocket_connection_limit_reached": 400,
    "invalid_api_key": 401,
    "budget_exceeded": 402,
    "key_required": 403,
    "origin_not_allowed": 403,
    "host_not_allowed": 403,
    "not_found": 404,
    "previous_response_not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "turn_cancelled": 409,
    "idempotency_conflict": 409,
    "session_busy": 409,
    "body_too_large": 413,
    "tools_not_supported_by_backend": 422,
    "images_not_supported_by_backend": 422,
    "max_model_calls": 422,
    "compaction_failed": 422,
    "rate_limited": 429,
    "headers_too_large": 431,
    "internal_error": 500,
    "not_implemented": 501,
    "upstream_error": 502,
    "upstream_stalled": 502,
    "all_candidates_failed": 503,
    "server_shutdown": 503,
    "store_unavailable": 503,
    "too_many_connections": 503,
    "server_busy": 503,
    "turn_timeout": 504,
    "http_version_not_supported": 505,
}
"""HTTP status by error code; every code that a client can meet is here."""

STORE_RETRY_SECONDS: Final = 5.0
"""When a request may come again that a store did not serve."""
SHUTDOWN_RETRY_SECONDS: Final = 5.0
"""When a request may come again that a server did not take any more: another one may be there by then."""

# A repeat of the same request cannot mend these; said so with `x-should-retry: false`.
FINAL_CODES: Final[frozenset[str]] = frozenset(
    {code for code, status in STATUS.items() if 400 <= status < 429} - {"request_timeout", "session_busy"}
    | {"headers_too_large", "not_implemented", "http_version_not_supported"}
)


class AgentError(Exception):
    """A failure with a name.

    Args:
        code: a key of `STATUS`.
        message: what was wrong, where, and what to do about it. Never a secret, never a traceback.
        param: the place in the request that is at fault, such as `messages[3].content[1]`.
        retry_after: seconds after which a repeat makes sense; becomes the header `Retry-After`.
        retryable: whether a repeat can help; `None` means what the code says.
        shown_code: the code that the client sees instead of `code`, where an upstream named one.
        extra: further members of the error body (`provider`, `upstream_status`).
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        retryable: bool | None = None,
        shown_code: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = STATUS[code]
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.retryable = code not in FINAL_CODES if retryable is None else retryable
        self.shown_code = shown_code or code
        self.extra = dict(extra or {})
        self.turn_id: str | None = None
        """The record of the refusal, where one was written; becomes the header `X-Turn-Id`."""

    def again(self) -> AgentError:
        """The same error, for somebody else to raise."""
        error = AgentError(
            self.code,
            self.message,
            param=self.param,
            retry_after=self.retry_after,
            retryable=self.retryable,
            shown_code=self.shown_code,
            extra=self.extra,
        )
        error.turn_id = self.turn_id
        return error


def store_unavailable(error: Exception) -> AgentError:
    """What a client is told of a store that fails."""
    return AgentError("store_unavailable", str(error), retry_after=STORE_RETRY_SECONDS)


def shutting_down() -> AgentError:
    """What a client is told that comes too late."""
    return AgentError("server_shutdown", "The server is shutting down.", retry_after=SHUTDOWN_RETRY_SECONDS)


def error_of(problem: Problem) -> AgentError:
    """The error that a turn's problem is shown as."""
    extra: dict[str, Any] = {}
    if problem.provider is not None:
        extra["provider"] = problem.provider
    if problem.upstream_status is not None:
        extra["upstream_status"] = problem.upstream_status
    shown = problem.upstream_code
    if problem.code == "upstream_rejected" and shown is None:
        shown = "invalid_request"
    return AgentError(
        problem.code,
        problem.message,
        retry_after=problem.retry_after,
        retryable=problem.retryable,
        shown_code=shown,
        extra=extra | (problem.details or {}),
    )
