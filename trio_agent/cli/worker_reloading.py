"""A worker's part in a reload: it prepares, and commits or lets go when it is told to."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import Final, TypeAlias

import trio

from trio_agent.agent import Agent
from trio_agent.cli.reloading import audit_refused, audit_reloaded
from trio_agent.cli.telling import unforeseen
from trio_agent.config.load import parse_draft
from trio_agent.config.problems import ConfigError, ConfigProblem
from trio_agent.generations import Generation
from trio_agent.server.workers.channel import Channel
from trio_agent.server.workers.messages import (
    Commit,
    Committed,
    Discard,
    Prepare,
    Prepared,
    Serves,
    ToWorker,
)

logger = logging.getLogger("trio_agent.workers")

Step: TypeAlias = Prepare | Commit | Discard
MOST_STEPS: Final = 16
"""Steps that wait until the one before is done. The supervisor takes one that is not answered for refused."""


class WorkerReloads:
    """Reloads of one worker, step by step.

    Args:
        channel: to the supervisor, which says what is to be done.
    """

    def __init__(self, channel: Channel[ToWorker]) -> None:
        self._channel = channel
        self._coming, self._steps = trio.open_memory_channel[Step](MOST_STEPS)
        self._preparing = trio.CancelScope()
        self._prepared: tuple[int, Generation] | None = None

    def heard(self, step: Step) -> None:
        """The supervisor says what to do next. What is let go of is not prepared to its end."""
        if isinstance(step, Discard):
            self._preparing.cancel()
        with suppress(trio.WouldBlock):
            self._coming.send_nowait(step)

    async def run(self, agent: Agent) -> None:
        """Do what is said, until cancelled. What is prepared then is the agent's to close."""
        async for step in self._steps:
            try:
                match step:
                    case Prepare():
                        await self._prepare(agent, step)
                    case Commit():
                        await self._commit(agent, step)
                    case Discard():
                        await self._discard(agent, step)
            except Exception:
                # The turns of this worker go on. A step that is not answered counts as refused.
                logger.exception("a step of a reload failed")

    async def _prepare(self, agent: Agent, step: Prepare) -> None:
        problems: tuple[ConfigProblem, ...] = ()
        with trio.CancelScope() as self._preparing:
            try:
                self._prepared = step.id, await agent.prepare(parse_draft(step.config, os.environ))
            except ConfigError as error:
                problems = tuple(error.problems)
            except Exception as error:
                logger.exception("the configuration could not be prepared")
                problems = tuple(unforeseen(error).problems)
        self._channel.post(Prepared(step.id, problems))

    async def _commit(self, agent: Agent, step: Commit) -> None:
        if self._prepared is None or self._prepared[0] != step.id:
            return
        (_, generation), self._prepared = self._prepared, None
        try:
            done = agent.commit(generation)
        except ConfigError as error:
            self._channel.post(Committed(step.id, serves(agent), problems=tuple(error.problems)))
            await agent.discard(generation)
            return
        self._channel.post(Committed(step.id, serves(agent), str(done)))
        if step.note:
            await audit_reloaded(agent, done)

    async def _discard(self, agent: Agent, step: Discard) -> None:
        if self._prepared is not None:
            (_, generation), self._prepared = self._prepared, None
            await agent.discard(generation)
        if step.note:
            await audit_refused(agent, step.note)


def serves(agent: Agent) -> Serves:
    """What a worker tells its supervisor of itself."""
    server = agent.config.server
    return Serves(
        models=len(agent.models()),
        providers=agent.model_counts(),
        stop_seconds=server.shutdown_delay + server.shutdown_grace,
    )


__all__ = ["WorkerReloads", "serves"]
