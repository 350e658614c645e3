"""The stop sequence that ended an answer, from the provider to whoever shows it."""

from __future__ import annotations

import pytest
from support.rig import make_agent, respond
from support.scripted import Scripted, text

from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev

CASES = [("stop", "END", "END"), ("stop", None, None), ("length", "END", None)]


@pytest.mark.parametrize(("reason", "named", "shown"), CASES)
async def test_the_end_names_the_stop_sequence(
    reason: ev.FinishReason, named: str | None, shown: str | None
) -> None:
    """Where the provider names it, and only where it is what ended the answer."""
    provider = Scripted([text("Hi"), [ev.CallFinished(reason, stop_sequence=named)]])
    (end,) = (await respond(make_agent(provider))).of(fx.Finish)
    assert (end.finish_reason, end.stop_sequence) == (reason, shown)
