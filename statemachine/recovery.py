"""What to do about a model call that failed, and what to tell the client when nothing is left to do.

Pure functions of the failure, the candidates and the time that is left.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from msgspec import Struct

from .failure import Failure, FailureKind, Problem
from .spec import Candidate

BACKOFF_SECONDS = 0.25
# What a client is told to wait after a 429 whose upstream names no time. Untold, an SDK comes back in half
# a second.
RATE_LIMITED_SECONDS = 5.0
TOO_LONG = "context_length_exceeded"
RETRIED: frozenset[FailureKind] = frozenset({"refused", "truncated", "unavailable"})
# A repeat of the request would meet the same operator's mistake or the same bug.
LASTING: frozenset[FailureKind] = frozenset({"unauthorized", "unexpected", "crashed", "rejected"})


class CandidateFailure(Struct, frozen=True):
    """The failure that ended a candidate's chance. `context_window` is the candidate's, in tokens."""

    provider: str
    model: str
    failure: Failure
    context_window: int | None = None


def retry_delay(
    failure: Failure, *, attempt: int, max_retries: int, window_left: float, seed: int
) -> float | None:
    """Seconds to wait before the same candidate is tried again, or `None` when it must not be.

    Refused and cut connections, 408, 5xx and 529 are tried again with a doubling back-off; a 429 only when
    its `Retry-After` says when. The wait must be shorter than `window_left`, in seconds, for no retry
    starts after the window. Moments that are less than a microsecond apart are one, as in a
    recording: so a replay, which counts from another zero, decides the same where both end at once.
    """
    if attempt >= max_retries:
        return None
    if failure.kind == "rate_limited":
        if failure.retry_after is None:
            return None
        delay = max(0.0, failure.retry_after)
    elif failure.kind in RETRIED:
        jitter = random.Random(f"{seed}:{attempt}").uniform(0.75, 1.25)  # noqa: S311 - spreads load, hides nothing
        delay = BACKOFF_SECONDS * 2**attempt * jitter
        if failure.retry_after is not None:
            delay = max(delay, failure.retry_after)
    else:
        return None
    return delay if round(window_left - delay, 6) > 0 else None


def next_candidate(
    failures: Sequence[CandidateFailure], candidates: Sequence[Candidate], current: int, *, priced: bool
) -> int | None:
    """The candidate to turn to after the last failure, or `None` when another one could not help.

    A request that an upstream rejected will be rejected elsewhere too; only one that was too long for a
    model's context window goes on, to the next candidate whose window is larger or unknown. `priced` says
    that a cost limit is set: a candidate without a known price cannot keep it.
    """
    failure = failures[-1].failure
    if failure.kind == "rejected" and failure.code != TOO_LONG:
        return None
    too_small = max(
        (each.context_window or 0 for each in failures if each.failure.code == TOO_LONG), default=0
    )
    for index in range(current + 1, len(candidates)):
        candidate = candidates[index]
        if priced and candidate.price is None:
            continue
        if candidate.context_window is None or candidate.context_window > too_small:
            return index
    return None


def problem_of(failures: Sequence[CandidateFailure], *, routed: bool) -> Problem:
    """What the client is told after the last failure."""
    last = failures[-1]
    if not routed or last.failure.kind == "rejected":
        return problem_of_one(last)
    if all(each.failure.kind == "rate_limited" for each in failures):
        waits = [each.failure.retry_after for each in failures if each.failure.retry_after is not None]
        return Problem(
            code="rate_limited",
            message="All candidates are rate-limited: " + _listed(failures),
            retry_after=min(waits, default=RATE_LIMITED_SECONDS),
        )
    return Problem(
        code="all_candidates_failed",
        message="All candidates failed: " + _listed(failures),
        provider=last.provider,
        upstream_status=last.failure.status,
        retryable=any(each.failure.kind not in LASTING for each in failures),
        details={"candidates": [_summary(each) for each in failures]},
    )


def problem_of_one(failed: CandidateFailure) -> Problem:
    """What the client is told when no other candidate could have helped."""
    failure = failed.failure
    if failure.kind == "rejected":
        return Problem(
            code="upstream_rejected",
            message=failure.message,
            provider=failed.provider,
            upstream_status=failure.status,
            upstream_code=failure.code,
            retryable=False,
        )
    codes = {"rate_limited": "rate_limited", "stalled": "upstream_stalled"}
    retry_after = failure.retry_after
    if retry_after is None and failure.kind == "rate_limited":
        retry_after = RATE_LIMITED_SECONDS
    return Problem(
        code=codes.get(failure.kind, "upstream_error"),
        message=f"Provider {failed.provider!r} failed ({failure.kind}): {failure.message}",
        provider=failed.provider,
        upstream_status=failure.status,
        retry_after=retry_after,
        retryable=failure.kind not in LASTING,
    )


def reason_of(failure: Failure) -> str:
    """The outcome reason that a failure stands for."""
    match failure.kind:
        case "stalled" | "truncated" | "rate_limited":
            return failure.kind
        case "rejected":
            return "upstream_rejected"
        case _:
            return "upstream_error"


def _listed(failures: Sequence[CandidateFailure]) -> str:
    return "; ".join(f"{each.provider}/{each.model}: {each.failure.message}" for each in failures)


def _summary(failed: CandidateFailure) -> dict[str, object]:
    return {
        "provider": failed.provider,
        "model": failed.model,
        "kind": failed.failure.kind,
        "upstream_status": failed.failure.status,
    }
