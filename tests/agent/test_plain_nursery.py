"""The nursery at the borders of the house: callers catch plain exceptions."""

from __future__ import annotations

import pytest
import trio

from trio_agent.errors import AgentError
from trio_agent.nursery import open_plain_nursery


async def fail() -> None:
    raise AgentError("upstream_error", "It failed.")


async def test_a_sole_failure_comes_as_itself() -> None:
    """No group of one reaches the caller."""
    with pytest.raises(AgentError):
        async with open_plain_nursery() as nursery:
            nursery.start_soon(fail)


async def test_two_failures_stay_a_group() -> None:
    """None of them is hidden."""
    with pytest.RaisesGroup(AgentError, AgentError):
        async with open_plain_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(fail)


async def test_a_failure_in_the_moment_of_a_cancellation_comes_as_itself() -> None:
    """A caller that catches it is cancelled at its next checkpoint, and no earlier."""

    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise AgentError("upstream_error", "It failed.")

    caught: list[AgentError] = []
    with trio.CancelScope() as scope:
        try:
            async with open_plain_nursery() as nursery:
                nursery.start_soon(fail_when_cancelled)
                nursery.start_soon(trio.sleep_forever)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        except AgentError as error:
            caught.append(error)
            await trio.lowlevel.checkpoint()
    assert caught
    assert scope.cancelled_caught


async def test_a_cancellation_alone_passes() -> None:
    """It is what ends the scope it belongs to."""
    with trio.CancelScope() as scope:
        async with open_plain_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()
    assert scope.cancelled_caught
