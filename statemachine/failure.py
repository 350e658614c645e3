"""How a model call can fail, and the problem that a turn shows for it."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from msgspec import Struct

FailureKind: TypeAlias = Literal[
    "refused",  # no connection: refused, DNS, TLS, connect timeout
    "unauthorized",  # 401, 403: the operator's credentials, not the caller's
    "rejected",  # 400, 413, 422: the request itself is at fault
    "rate_limited",  # 429
    "unavailable",  # 408, 5xx, 529
    "unexpected",  # any other status
    "truncated",  # the stream ended or was cut before it said that it was complete
    "malformed",  # what came is not the format it claims to be
    "stalled",  # silence beyond the limit
    "crashed",  # the provider plug-in raised something that it should not
]


class Failure(Struct, frozen=True, kw_only=True):
    """Why one model call failed.

    `message` is fit for a client's eyes: no secrets, no traceback. `status` and `code` are the
    upstream's own. `retry_after` is in seconds.
    """

    kind: FailureKind
    message: str
    status: int | None = None
    code: str | None = None
    retry_after: float | None = None


class Problem(Struct, frozen=True, kw_only=True):
    """What a turn tells its client when it fails.

    `code` is a code of the server's one error table, from which the HTTP status follows.
    `upstream_code` is shown instead where the upstream rejected the caller's request by name.
    `retry_after` is in seconds. `retryable` says whether repeating the request could help.
    """

    code: str
    message: str
    provider: str | None = None
    upstream_status: int | None = None
    upstream_code: str | None = None
    retry_after: float | None = None
    retryable: bool = True
    details: dict[str, Any] | None = None
