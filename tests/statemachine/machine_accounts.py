"""The model calls of a turn as its effects tell them: which follows which, what each cost, and the sums."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from trio_agent.statemachine import TurnSpec
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import Usage
from trio_agent.statemachine.money import cost_of
from trio_agent.statemachine.recovery import RETRIED, TOO_LONG

ORDER = ("provider", "estimated", "unknown")
MICROSECOND = 1e-6
"""Moments that are nearer than this are one."""


class Accounts:
    """Every call of the turn, over all of its responses.

    `rows` are the calls that ended, each with whether it counts as billed. `serving` is the candidate that
    the next call is expected from.
    """

    def __init__(self, spec: TurnSpec) -> None:
        self.rows: list[tuple[fx.RecordCall, bool]] = []
        self.last_number = 0
        self.serving = 0
        self.begin_response(spec)

    def begin_response(self, spec: TurnSpec) -> None:
        self.spec = spec
        self.first_row = len(self.rows)
        self.call: fx.StartCall | None = None
        self.answered = False
        self.reported: Usage | None = None
        self.reported_cost: Decimal | None = None
        if spec.limits.cost_usd is not None and spec.candidates[self.serving].price is None:
            self.serving = next(
                (index for index, each in enumerate(spec.candidates) if each.price is not None), self.serving
            )

    @property
    def known_cost_usd(self) -> Decimal:
        return sum((row.cost_usd or Decimal(0) for row, _ in self.rows), Decimal(0))

    @property
    def out_of_budget(self) -> bool:
        limit = self.spec.limits.cost_usd
        if limit is None:
            return False
        return self.spec.candidates[self.serving].price is None or self.known_cost_usd >= limit

    @property
    def out_of_calls(self) -> bool:
        return self.last_number >= self.spec.limits.model_calls

    # --- one call ---------------------------------------------------------------------------------------

    def starts(self, start: fx.StartCall) -> None:
        """A call has the next number, or is the last one's next attempt, or its next candidate."""
        assert self.call is None, "two calls at once"
        if start.number == self.last_number:
            row, _ = self.rows[-1]
            assert row.failure is not None, "a call was repeated that had not failed"
            assert len(self.rows) > self.first_row, "a call of an earlier response was repeated"
            again = (start.candidate, start.attempt) == (row.candidate, row.attempt + 1)
            assert again or (start.candidate > row.candidate and start.attempt == 0)
        else:
            assert (start.number, start.attempt) == (self.last_number + 1, 0)
            assert start.candidate == self.serving, "a model was left that had not failed"
            assert not self.out_of_calls
        self.last_number, self.serving = start.number, start.candidate
        assert not self.out_of_budget
        assert start.number <= self.spec.limits.model_calls
        assert start.attempt <= self.spec.candidates[start.candidate].max_retries
        self.call, self.answered = start, False
        self.reported, self.reported_cost = None, None

    def reports(self, event: ev.UsageReported) -> None:
        self.reported = event.usage
        self.reported_cost = self.reported_cost if event.cost_usd is None else event.cost_usd

    def ends(self, row: fx.RecordCall, event: ev.Event) -> None:
        """The row of the running call says who it was and what the provider last reported, nothing else."""
        call = self.call
        assert call is not None, "a row for no call"
        assert (row.number, row.candidate, row.attempt) == (call.number, call.candidate, call.attempt)
        finished = isinstance(event, ev.CallFinished)
        assert (row.failure is not None) == isinstance(event, ev.CallFailed | ev.StallTimerFired)
        if isinstance(event, ev.CallFailed):
            assert row.failure == event.failure
        if isinstance(event, ev.CallFinished):
            assert (row.response_id, row.model) == (event.response_id, event.model)
            named = {"stop", "tool_calls"}
            assert row.finish_reason in (named if event.finish_reason in named else {event.finish_reason})
        else:
            assert (row.finish_reason, row.response_id, row.model) == (None, None, None)
        whole = finished or (isinstance(event, ev.Cancel) and event.drained)
        self._figures(row, whole=whole)
        refused = row.failure is not None and not self.answered
        self.rows.append((row, not refused))
        self.call = None

    def _figures(self, row: fx.RecordCall, *, whole: bool) -> None:
        price = self.spec.candidates[row.candidate].price
        if self.reported is None:
            assert (row.usage, row.usage_source, row.cost_usd) == (Usage(), "unknown", None)
            return
        assert row.usage == self.reported
        assert row.usage_source == ("provider" if whole else "estimated")
        priced = None if price is None else cost_of(self.reported, price)
        assert row.cost_usd == (priced if self.reported_cost is None else self.reported_cost)

    # --- what follows a failure --------------------------------------------------------------------------

    def retries_rightly(self, retried: bool, window_left: float) -> None:
        """The same candidate is tried again when it may be, before the window ends, and not otherwise.

        The jitter of a quarter either way leaves a few cases open.
        """
        row, _ = self.rows[-1]
        failure = row.failure
        assert failure is not None
        asked = failure.retry_after
        if row.attempt >= self.spec.candidates[row.candidate].max_retries or self.out_of_budget:
            assert not retried
        elif failure.kind in RETRIED:
            pause = 0.25 * 2**row.attempt
            if max(0.75 * pause, asked or 0.0) >= window_left:
                assert not retried, "there was no time left"
            elif max(1.25 * pause, asked or 0.0) < window_left - MICROSECOND:
                assert retried, "there was time for another try"
        elif failure.kind == "rate_limited" and asked is not None:
            time_left = window_left - max(0.0, asked)
            assert retried == (time_left > 0.0) or 0.0 < time_left < MICROSECOND
        else:
            assert not retried, f"{failure.kind} is nothing to try again"

    def falls_back_rightly(self) -> None:
        """The next candidate that the limits allow takes over; where sizes matter, any later one may."""
        failures = [(row, row.failure) for row, _ in self.rows[self.first_row :] if row.failure is not None]
        row, failure = failures[-1]
        if self.call is not None:
            assert failure.kind != "rejected" or failure.code == TOO_LONG, (
                "it would be rejected elsewhere too"
            )
        if self.out_of_budget or any(each.code == TOO_LONG for _, each in failures):
            return
        priced = self.spec.limits.cost_usd is not None
        later = [
            index
            for index, candidate in enumerate(self.spec.candidates)
            if index > row.candidate and not (priced and candidate.price is None)
        ]
        expected = later[0] if later and failure.kind != "rejected" else None
        assert (None if self.call is None else self.call.candidate) == expected

    def stopped_at_limit(self, closing: fx.CloseTurn) -> None:
        """A limit stops a turn that has reached it, and no other; before any call, the turn is rejected."""
        match closing.reason:
            case "max_model_calls":
                assert self.out_of_calls, "the turn had calls left"
            case "budget_exceeded":
                assert self.out_of_budget, "the turn had money left"
            case _:
                assert closing.outcome != "rejected"
                return
        assert closing.outcome == ("failed" if self.last_number else "rejected")
        assert closing.problem is not None
        assert (closing.problem.code, closing.problem.retryable) == (closing.reason, False)

    # --- sums ---------------------------------------------------------------------------------------------

    def whole_turn(self, figures: Any) -> None:
        self._sums(figures, self.rows)

    def this_response(self, figures: Any) -> None:
        self._sums(figures, self.rows[self.first_row :])

    def _sums(self, figures: Any, rows: list[tuple[fx.RecordCall, bool]]) -> None:
        """Usage and cost are the sums over the calls; unknown as soon as one that counts is."""
        usage = Usage()
        for row, _ in rows:
            usage += row.usage
        billed = [row for row, counts in rows if counts]
        costs = [row.cost_usd for row in billed]
        known = bool(costs) and None not in costs
        assert figures.usage == usage
        assert figures.cost_usd == (sum(filter(None, costs), Decimal(0)) if known else None)
        worst = max((row.usage_source for row in billed), key=ORDER.index, default="unknown")
        assert figures.usage_source == worst
