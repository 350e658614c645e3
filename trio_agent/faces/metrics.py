"""`GET /metrics`: the figures of all processes that serve together, for Prometheus."""

from __future__ import annotations

from typing import Final

import trio

from trio_agent.agent import Agent
from trio_agent.observing.samples import QUESTION, Family, decoded, gauge, rendered, together
from trio_agent.store.contract import StoreError

STORE_SECONDS: Final = 2.0
"""What the store may take to say how many turns are parked, and its size: whoever asks has a limit too."""
_PARKED: Final = "Turns that wait for their caller's tools, in the store."
_UP: Final = "Whether the store answers."
_SIZE: Final = "Bytes of the database."


async def page(agent: Agent, accept: str) -> tuple[bytes, str]:
    """The page and its content type.

    Args:
        accept: the request's header; it may ask for OpenMetrics.
    """
    answers = await agent.peers.ask(QUESTION)
    families = together(agent.metrics.report(), decoded(answers))
    families += await _of_store(agent)
    return rendered(families, accept)


async def _of_store(agent: Agent) -> list[Family]:
    """Figures that are the same whichever process reads them. A store that is out of reach has but one."""
    with trio.move_on_after(STORE_SECONDS):
        try:
            parked = await agent.store.count_turns("parked")
            size = await agent.store.size()
        except StoreError:
            pass
        else:
            return [
                gauge("trio_agent_store_up", _UP, 1),
                gauge("trio_agent_store_size_bytes", _SIZE, size),
                gauge("trio_agent_turns_parked", _PARKED, parked),
            ]
    return [gauge("trio_agent_store_up", _UP, 0)]
