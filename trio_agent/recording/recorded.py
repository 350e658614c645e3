"""Having every request recorded, for as long as an agent lives."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from trio_agent.config.problems import ConfigError, ConfigProblem
from trio_agent.nursery import open_plain_nursery
from trio_agent.recording.header import Premises
from trio_agent.recording.recorder import Record, Recorder
from trio_agent.turn.context import TurnContext
from trio_agent.world import World


@asynccontextmanager
async def recorded(
    record: Record | str | os.PathLike[str] | None,
) -> AsyncIterator[Callable[[Premises], Callable[[World], TurnContext]]]:
    """The contexts of requests under a configuration: recorded ones while the block runs, if that is wanted.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    if record is None:
        yield lambda _: TurnContext
        return
    recorder = _recorder(record if isinstance(record, Record) else Record(record))
    async with open_plain_nursery() as nursery:
        nursery.start_soon(recorder.run)
        try:
            yield recorder.contexts
        finally:
            await recorder.close()  # noqa: ASYNC102 - it shields itself, with a limit
            nursery.cancel_scope.cancel()


def _recorder(record: Record) -> Recorder:
    try:
        return Recorder(record)
    except OSError as error:
        problem = ConfigProblem(
            "recording_unusable",
            "--record",
            f"{os.fspath(record.folder)} cannot be written to: {error.strerror}",
            expected="a folder that this user may write to",
            remedy="name another folder, or do without --record",
        )
        raise ConfigError([problem]) from None
