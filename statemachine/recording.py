"""The row of one model call that ended, and its share in the turn's sums."""

from __future__ import annotations

from . import effects as fx
from . import events as ev
from .failure import Failure
from .memory import Memory
from .spec import TurnSpec
from .tally import figures_of


def record_call(
    spec: TurnSpec,
    memory: Memory,
    *,
    finish_reason: ev.FinishReason | None = None,
    finished: ev.CallFinished | None = None,
    failure: Failure | None = None,
    drained: bool = False,
) -> fx.RecordCall:
    """Add the running call's figures to the response and to the turn; returns the call's row.

    A call that was cancelled (neither `finished` nor `failure`) may be billed although nothing came of it,
    so its figures are unknown, unless it was read to its end first (`drained`).
    """
    figures = figures_of(
        memory.reported,
        memory.reported_cost_usd,
        memory.serving(spec).price,
        finished=finished is not None or drained,
        answered=not memory.silent or failure is None,
    )
    memory.response.add(figures)
    memory.total.add(figures)
    return fx.RecordCall(
        memory.call,
        memory.candidate,
        memory.attempt,
        figures.usage,
        figures.source,
        figures.cost_usd,
        finish_reason,
        failure,
        finished.response_id if finished else None,
        finished.model if finished else None,
    )
