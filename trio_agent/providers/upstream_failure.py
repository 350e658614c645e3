"""From what an upstream says about a failure to an `UpstreamError`. Pure: no I/O, no clock.

Three envelopes are known: OpenAI's `{"error": {message, type, param, code}}` (also as a string, and
wrapped in a list by Gemini), Anthropic's `{"type": "error", "error": {type, message}}`, and FastAPI's
`{"detail": "…" | [{"loc": […], "msg": "…"}]}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any, Final

import msgspec
from msgspec import Struct

from trio_agent.providers.contract import UpstreamError
from trio_agent.statemachine.failure import FailureKind

CONTEXT_LENGTH: Final = "context_length_exceeded"
"""The code that every vendor's "prompt too long" becomes; routing goes on to larger windows by it."""

LONGEST_WAIT: Final = 86_400.0
"""Seconds; a longer `Retry-After` is cut to this. Clients sleep as long as they are told."""

_LONGEST_MESSAGE: Final = 2000
_LONGEST_CODE: Final = 100

_TOO_LONG: Final = re.compile(
    r"maximum context length|context length exceeded|exceeds? the (?:model'?s? |available )?context"
    r"|context (?:window|size|limit)\b.{0,40}exceed|exceed.{0,60}context (?:window|size|limit|length)"
    r"|prompt is too long|maximum prompt length|input token count.{0,40}exceeds|too many input tokens"
    r"|input is too long|input length and `?max_tokens`? exceed|reduce the length of the (?:messages|prompt)"
    r"|`?inputs`? tokens \+ `?max_new_tokens`?",
    re.IGNORECASE | re.DOTALL,
)
_TOO_LONG_CODES: Final = frozenset(
    {CONTEXT_LENGTH, "context_window_exceeded", "exceed_context_size_error", "model_context_window_exceeded"}
)
_BAD_KEY: Final = re.compile(r"(?:incorrect|invalid) api key|api key not valid", re.IGNORECASE)
_BAD_KEY_CODES: Final = frozenset({"invalid_api_key", "api_key_invalid", "authentication_error"})

# The operator's account is empty or closed. Vendors say so with 429, but no pause mends it; Anthropic says so
# with 400, in words only, but it is not the caller's fault.
_NO_FUNDS_CODES: Final = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "account_deactivated"}
)
_NO_FUNDS: Final = re.compile(r"credit balance is too low", re.IGNORECASE)

_KIND_BY_WORD: Final[tuple[tuple[re.Pattern[str], FailureKind], ...]] = (
    (re.compile(r"auth|permission|api_key|forbidden"), "unauthorized"),
    (re.compile(r"rate_?limit|too_many_requests|resource_exhausted|quota|slow_down"), "rate_limited"),
    (
        re.compile(
            r"overload|unavailable|server_error|api_error|internal|timeout|bad_gateway|provider_error"
        ),
        "unavailable",
    ),
    (
        re.compile(
            r"context|invalid|bad_?request|unprocessable|too_large|policy|rejected|unsupported|image|residency"
        ),
        "rejected",
    ),
)
_BARE_NUMBER: Final = re.compile(r"\d{3}")


class ErrorDetails(Struct, frozen=True, kw_only=True):
    """What an error body says. `status` is one that the body itself names; `retry_after` is in seconds."""

    message: str | None = None
    code: str | None = None
    type: str | None = None
    status: int | None = None
    retry_after: float | None = None


def read_error(body: Any) -> ErrorDetails | None:
    """The error in a decoded body, or `None` where there is none. Shapes that surprise are no error here."""
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict):
        return None
    error = body.get("error")
    if isinstance(error, str) and error:
        return ErrorDetails(message=_text(body.get("message")) or error, code=_word(body.get("code")))
    if isinstance(error, dict) and error:
        return _error_object(error)
    if body.get("object") == "error":  # vLLM before 0.10, Mistral
        return _error_object(body)
    if "detail" in body:
        return ErrorDetails(message=_detail(body["detail"]))
    return None


def read_refusal(body: Any) -> ErrorDetails | None:
    """The same for the body of a response that is no success, where a bare `message` tells enough."""
    details = read_error(body)
    if details is None and isinstance(body, dict) and isinstance(body.get("message"), str):
        details = _error_object(body)
    return details


def _error_object(error: Mapping[str, Any]) -> ErrorDetails:
    code, kind = error.get("code"), error.get("type") or error.get("status")
    status = None
    if isinstance(code, int) or (isinstance(code, str) and _BARE_NUMBER.fullmatch(code)):
        status, code = (int(code) if 400 <= int(code) < 600 else None), None
    metadata = error.get("metadata")
    message = _text(error.get("message")) or _detail(error.get("detail"))
    if isinstance(metadata, dict) and isinstance(metadata.get("raw"), str):
        # OpenRouter says "Provider returned error" and keeps the provider's own words here.
        message = f"{message}: {metadata['raw']}" if message else metadata["raw"]
    reason, delay = _google_details(error.get("details"))
    return ErrorDetails(
        message=message,
        code=reason or _word(code),
        type=_word(kind),
        status=status,
        retry_after=delay,
    )


def _google_details(details: Any) -> tuple[str | None, float | None]:
    """`ErrorInfo.reason` and `RetryInfo.retryDelay` of Google's error model."""
    reason, delay = None, None
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict):
            reason = reason or _word(detail.get("reason"))
            text = detail.get("retryDelay")
            if isinstance(text, str) and text.endswith("s"):
                delay = _seconds(text[:-1])
    return reason, delay


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value.strip() or None
    return None if value is None else msgspec.json.encode(value).decode()


def _word(value: Any) -> str | None:
    return value[:_LONGEST_CODE] if isinstance(value, str) and value else None


def _detail(detail: Any) -> str | None:
    if not isinstance(detail, list):
        return _text(detail)
    lines = []
    for item in detail:
        if isinstance(item, dict) and isinstance(item.get("msg"), str):
            steps = item.get("loc")
            place = ".".join(str(step) for step in steps) if isinstance(steps, list) else ""
            lines.append(f"{place}: {item['msg']}" if place else item["msg"])
    return "; ".join(lines) or _text(detail)


def failure_of_status(
    status: int,
    details: ErrorDetails | None,
    *,
    origin: str,
    retry_after: float | None = None,
    hint: str = "",
) -> UpstreamError:
    """The failure for a response that is not a success.

    Args:
        status: the HTTP status.
        details: what the body says, if it was understood.
        origin: the upstream's address, for the message.
        retry_after: seconds, from the response's headers.
        hint: what else is known, such as the start of a plain-text body.
    """
    details = details or ErrorDetails()
    kind = _kind_of_status(status)
    code = details.code or details.type
    message = details.message or hint
    if kind == "rejected":
        if _is_bad_key(details) or _is_out_of_funds(details):
            kind = "unauthorized"
        elif _is_too_long(details):
            code = CONTEXT_LENGTH
    elif kind == "rate_limited" and _is_out_of_funds(details):
        kind = "unauthorized"
    text = f"{origin} answered HTTP {status}" + (f": {message}" if message else "")
    return UpstreamError(
        kind,
        text[:_LONGEST_MESSAGE],
        status=status,
        code=code,
        retry_after=details.retry_after if retry_after is None else retry_after,
    )


def failure_in_stream(details: ErrorDetails, *, origin: str) -> UpstreamError:
    """The failure that an upstream reports after it had answered with a success."""
    code = details.code or details.type
    message = details.message or "no reason given"
    if _is_too_long(details):
        kind: FailureKind = "rejected"
        code = CONTEXT_LENGTH
    elif _is_bad_key(details) or _is_out_of_funds(details):
        kind = "unauthorized"
    elif details.status is not None and details.status >= 400:
        kind = _kind_of_status(details.status)
    else:
        kind = _kind_of_words(details)
    return UpstreamError(
        kind,
        f"{origin} reported an error: {message}"[:_LONGEST_MESSAGE],
        status=details.status,
        code=code,
        retry_after=details.retry_after,
    )


def _kind_of_status(status: int) -> FailureKind:
    if status in (401, 403):
        return "unauthorized"
    if status in (400, 413, 422):
        return "rejected"
    if status == 429:
        return "rate_limited"
    if status == 408 or status >= 500:
        return "unavailable"
    return "unexpected"


def _kind_of_words(details: ErrorDetails) -> FailureKind:
    for word in filter(None, (details.code, details.type)):
        for pattern, kind in _KIND_BY_WORD:
            if pattern.search(word.lower()):
                return kind
    return "unavailable"


def _is_too_long(details: ErrorDetails) -> bool:
    if {details.code, details.type} & _TOO_LONG_CODES:
        return True
    return details.message is not None and _TOO_LONG.search(details.message) is not None


def _is_bad_key(details: ErrorDetails) -> bool:
    words = {(details.code or "").lower(), (details.type or "").lower()}
    return bool(words & _BAD_KEY_CODES) or (
        details.message is not None and _BAD_KEY.search(details.message) is not None
    )


def _is_out_of_funds(details: ErrorDetails) -> bool:
    if {details.code, details.type} & _NO_FUNDS_CODES:
        return True
    return details.message is not None and _NO_FUNDS.search(details.message) is not None


def retry_after_of(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `Retry-After` (RFC 9110, 10.2.3: seconds or a date).

    Args:
        headers: looked up in lower case.
        now: seconds since the epoch, for a date where the response has no `Date` of its own.
    """
    milliseconds = _seconds(headers.get("retry-after-ms"), 1000)
    if milliseconds is not None:
        return milliseconds
    text = headers.get("retry-after")
    seconds = _seconds(text)
    if seconds is not None or text is None:
        return seconds
    until = _epoch(text)
    if until is None:
        return None
    sent = _epoch(headers.get("date"))
    return min(max(0.0, until - (now if sent is None else sent)), LONGEST_WAIT)


def _seconds(text: str | None, per_second: int = 1) -> float | None:
    try:
        value = float(text) if text is not None else -1.0
    except ValueError:
        return None
    return min(value / per_second, LONGEST_WAIT) if isfinite(value) and value >= 0 else None


def _epoch(text: str | None) -> float | None:
    try:
        moment = parsedate_to_datetime(text) if text else None
        if moment is None:
            return None
        # The old forms of an HTTP date name no zone and mean GMT (RFC 9110, 5.6.7).
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
