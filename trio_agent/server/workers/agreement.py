"""Another configuration for all workers, or for none: each prepares it, and only then all put it in force."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from typing import Final

from trio_agent.config.problems import ConfigError, ConfigProblem

from .collecting import Collecting
from .messages import Commit, Committed, Discard, Prepare, Prepared
from .worker import Worker

logger = logging.getLogger("trio_agent.workers")

PREPARE_SECONDS: Final = 120.0
"""How long the workers may take to prepare; longer than the boot of any provider."""
COMMIT_SECONDS: Final = 10.0
"""How long a worker may take to put in force what it has prepared, before another one takes its place."""


class Agreement:
    """Made by the supervisor, which has one of them under way at a time.

    Args:
        workers: those that serve.
    """

    def __init__(self, workers: Callable[[], list[Worker]]) -> None:
        self._workers = workers
        self._ids = itertools.count(1)
        self._id = 0
        self._preparing = Collecting[Prepared](())
        self._committing = Collecting[Committed](())

    async def prepare(self, config: bytes) -> None:
        """Have all workers prepare a configuration. `commit` or `discard` it then, however this ends.

        Raises:
            ConfigError: with every problem that one of them found, each once.
        """
        self._id = next(self._ids)
        asked = self._workers()
        self._preparing = Collecting(asked)
        for worker in asked:
            worker.post(Prepare(self._id, config))
        await self._preparing.wait(PREPARE_SECONDS)
        problems = [each for answer in self._preparing.answers.values() for each in answer.problems]
        problems += [_silent(worker) for worker in self._preparing.missing]
        if problems:
            raise ConfigError(list(dict.fromkeys(problems)))
        if not self._preparing.answers:
            raise ConfigError([_NOBODY])

    def discard(self, note: tuple[ConfigProblem, ...] = ()) -> None:
        """Have all workers let go of what they prepared; the first one writes down why."""
        for place, worker in enumerate(self._workers()):
            worker.post(Discard(self._id, () if place else note))

    async def commit(self) -> Committed | None:
        """Have all workers put in force what they prepared; what the first one says to that.

        One that cannot is ended: the one that takes its place begins with the new configuration.
        """
        asked = [worker for worker in self._workers() if worker in self._preparing.answers]
        self._committing = Collecting(asked)
        for place, worker in enumerate(asked):
            worker.post(Commit(self._id, note=place == 0))
        await self._committing.wait(COMMIT_SECONDS)
        for worker in self._committing.missing:
            logger.error(
                "worker %d did not take the new configuration in time and is replaced", worker.number
            )
            worker.dismiss()
        done = {each: said for each, said in self._committing.answers.items() if not said.problems}
        return next(iter(done.values()), None)

    def has_committed(self, worker: Worker) -> bool:
        """Whether a worker has put in force what was agreed on last."""
        answer = self._committing.answers.get(worker)
        return answer is not None and not answer.problems

    # --- what workers say -----------------------------------------------------------------------------

    def heard(self, worker: Worker, message: Prepared | Committed) -> None:
        """A worker has prepared, or committed."""
        if message.id != self._id:
            return
        if isinstance(message, Prepared):
            self._preparing.add(worker, message)
        else:
            self._committing.add(worker, message)

    def went(self, worker: Worker) -> None:
        """A worker has ended: the others agree without it."""
        self._preparing.went(worker)
        self._committing.went(worker)


def _silent(worker: Worker) -> ConfigProblem:
    return ConfigProblem(
        "worker_unusable",
        "--workers",
        f"worker {worker.number} (process {worker.pid}) has not prepared the configuration in "
        f"{PREPARE_SECONDS:g} s",
        remedy="try again; if it hangs, kill it, and another one takes its place",
    )


_NOBODY: Final = ConfigProblem(
    "worker_unusable", "--workers", "no worker was there to prepare the configuration", remedy="try again"
)

__all__ = ["Agreement"]
