"""What follows a failed call: back-off, next candidate, and what the client is told."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from machine_values import PRICE, A, B, C, failed, failure, make_spec

from trio_agent.errors import STATUS
from trio_agent.statemachine import Candidate, Turn
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.failure import FailureKind
from trio_agent.statemachine.recovery import (
    CandidateFailure,
    next_candidate,
    problem_of,
    problem_of_one,
    reason_of,
    retry_delay,
)

RETRIED = ("refused", "truncated", "unavailable")


def delay(kind: str, *, attempt: int = 0, left: float = 5.0, seed: int = 0, **more: object) -> float | None:
    return retry_delay(failure(kind, **more), attempt=attempt, max_retries=2, window_left=left, seed=seed)


@pytest.mark.parametrize(("attempt", "base"), [(0, 0.25), (1, 0.5)])
def test_back_off_doubles_with_jitter_around_it(attempt: int, base: float) -> None:
    """Many turns that fail together do not come back together."""
    delays = [delay("refused", attempt=attempt, seed=seed) for seed in range(50)]
    assert all(each is not None and base * 0.75 <= each <= base * 1.25 for each in delays)
    assert len(set(delays)) > 40


@pytest.mark.parametrize("kind", get_args(FailureKind))
def test_only_what_a_repeat_can_mend_is_repeated(kind: str) -> None:
    """Refused and cut connections, 408, 5xx and 529; a 429 only when it says when."""
    assert (delay(kind) is not None) == (kind in RETRIED)
    assert (delay(kind, retry_after=1.0) is not None) == (kind in (*RETRIED, "rate_limited"))


@pytest.mark.parametrize(
    ("retry_after", "left", "expected"),
    [
        (5.0, 5.01, 5.0),
        (5.0, 5.0, None),
        (0.0, 5.0, 0.0),
        (0.0, 0.0, None),
        (0.0, -1.0, None),
        (-3.0, 5.0, 0.0),
    ],
)
def test_a_rate_limit_is_waited_for_when_it_fits(
    retry_after: float, left: float, expected: float | None
) -> None:
    """Its own time, not longer and not shorter, and only inside of the window: its end is outside."""
    assert delay("rate_limited", retry_after=retry_after, left=left) == expected


@pytest.mark.parametrize("began", [0.0, 14.999, 44.5, 59.499, 1e6 + 1 / 3])
@pytest.mark.parametrize(("failed_after", "expected"), [(1.499, 0.5), (1.5, None), (1.501, None)])
def test_a_wait_that_ends_with_the_window_decides_the_same_from_any_zero(
    began: float, failed_after: float, expected: float | None
) -> None:
    """A recording counts from another zero than its turn did; the same moments differ by a rounding."""
    left = (began + 2.0) - round(began + failed_after, 6)
    assert delay("rate_limited", retry_after=0.5, left=left) == expected


def test_an_unavailable_upstream_is_not_asked_before_the_time_it_named() -> None:
    """A 503 with `Retry-After` waits for the longer of that and the back-off."""
    assert delay("unavailable", retry_after=2.0) == 2.0
    assert delay("unavailable", retry_after=0.0) == delay("unavailable")
    assert delay("unavailable", retry_after=6.0) is None


def test_retries_end() -> None:
    """A candidate is tried again at most `max_retries` times."""
    assert delay("refused", attempt=1) is not None
    assert delay("refused", attempt=2) is None


WINDOWS = (100, 50, 100, None, 200)
TOO_LONG = {"status": 400, "code": "context_length_exceeded"}


@pytest.mark.parametrize(
    ("failures", "priced", "expected"),
    [
        ([(0, "crashed", {})], False, 1),
        ([(4, "crashed", {})], False, None),
        ([(0, "rejected", {"status": 400})], False, None),
        ([(0, "rejected", TOO_LONG)], False, 3),
        ([(0, "rejected", TOO_LONG), (3, "rejected", TOO_LONG)], False, 4),
        ([(1, "rejected", TOO_LONG)], False, 2),
        ([(4, "rejected", TOO_LONG)], False, None),
        ([(0, "rejected", TOO_LONG), (3, "crashed", {})], False, 4),
        ([(0, "crashed", {})], True, 4),
    ],
)
def test_the_next_candidate_is_one_that_may_help(
    failures: list[tuple[int, str, dict[str, object]]], priced: bool, expected: int | None
) -> None:
    """A prompt that was too long wants a larger window; a cost limit wants a known price."""
    candidates = [
        msgspec.structs.replace(A, context_window=window, price=PRICE if index in (0, 4) else None)
        for index, window in enumerate(WINDOWS)
    ]
    past = [
        CandidateFailure("a", "m", failure(kind, **more), WINDOWS[index]) for index, kind, more in failures
    ]
    assert next_candidate(past, candidates, failures[-1][0], priced=priced) == expected


@pytest.mark.parametrize("kind", get_args(FailureKind))
def test_every_failure_has_a_code_with_a_status(kind: str) -> None:
    """Whatever fails, routed or not, the client gets a code of the one error table."""
    one = CandidateFailure("a", "m", failure(kind, status=418))
    for told in (problem_of_one(one), problem_of([one], routed=True), problem_of([one], routed=False)):
        assert told.code in STATUS
        assert told.message
    assert reason_of(one.failure)


def test_one_named_model_is_never_a_503() -> None:
    """The caller named a model, so the answer is about that model."""
    for kind in get_args(FailureKind):
        told = problem_of([CandidateFailure("a", "m", failure(kind))], routed=False)
        assert STATUS[told.code] in (400, 429, 502)


@pytest.mark.parametrize(
    ("waits", "expected"),
    [([2.0], 2.0), ([None], 5.0), ([None, None], 5.0), ([None, 9.0], 9.0), ([7.0, 3.0], 3.0)],
)
def test_a_rate_limit_always_says_when_to_come_back(waits: list[float | None], expected: float) -> None:
    """The smallest time that an upstream names, or five seconds where none does, for a model or a role."""
    failures = [CandidateFailure("a", "m", failure("rate_limited", retry_after=each)) for each in waits]
    told = problem_of(failures, routed=True)
    assert (told.code, told.retry_after) == ("rate_limited", expected)
    if len(failures) == 1:
        assert problem_of(failures, routed=False).retry_after == expected
        assert problem_of_one(failures[0]).retry_after == expected


@pytest.mark.parametrize("kind", get_args(FailureKind))
def test_only_a_rate_limit_gets_a_time_that_no_upstream_named(kind: str) -> None:
    """Any other failure says what its upstream said, and nothing where that said nothing."""
    told = problem_of_one(CandidateFailure("a", "m", failure(kind)))
    assert (told.retry_after is not None) == (kind == "rate_limited")


def test_the_candidates_that_failed_are_listed() -> None:
    """An operator sees each candidate and what became of it."""
    told = problem_of(
        [
            CandidateFailure("a", "m", failure("unauthorized", status=401)),
            CandidateFailure("b", "n", failure("unavailable", status=503)),
        ],
        routed=True,
    )
    assert told.code == "all_candidates_failed"
    assert told.retryable
    assert told.details == {
        "candidates": [
            {"provider": "a", "model": "m", "kind": "unauthorized", "upstream_status": 401},
            {"provider": "b", "model": "n", "kind": "unavailable", "upstream_status": 503},
        ]
    }


def test_what_no_repeat_can_mend_says_so() -> None:
    """Clients repeat whole turns; they are told when that is in vain."""
    lasting = {
        kind
        for kind in get_args(FailureKind)
        if not problem_of_one(CandidateFailure("a", "m", failure(kind))).retryable
    }
    assert lasting == {"unauthorized", "rejected", "unexpected", "crashed"}


def test_a_turn_that_is_handed_over_goes_on_with_the_other_model() -> None:
    """The call that was asked for is the new model's, with nobody behind it; earlier rows keep theirs."""
    turn = Turn(make_spec(A, B, C))
    turn.receive(ev.Begin(0.0))
    turn.receive(failed("unauthorized"))
    assert turn.candidate == B
    other = Candidate(provider="z", model="m")
    turn.hand_over(other)
    assert turn.spec.candidates == (A, other)
    assert turn.candidate == other
    assert Turn.restore(turn.snapshot()).spec == turn.spec
    effects = turn.receive(failed("unauthorized"))
    assert not any(isinstance(each, fx.StartCall) for each in effects)
