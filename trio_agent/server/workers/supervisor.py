"""Keeps a number of workers running: starts them, starts them again, and ends them."""

from __future__ import annotations

import logging
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio
from msgspec.structs import replace

from trio_agent.config.problems import ConfigError, ConfigProblem
from trio_agent.nursery import open_plain_nursery

from .agreement import Agreement
from .messages import (
    Ask,
    Committed,
    Gone,
    Prepared,
    Ready,
    Reply,
    Serve,
    Serves,
    Start,
    Stop,
    ToSupervisor,
)
from .relay import Relay
from .worker import Worker

logger = logging.getLogger("trio_agent.workers")

FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 30.0
"""The pause before a worker is started again doubles, from the first to this, while it keeps ending."""
STEADY_SECONDS: Final = 60.0
"""A worker that lived so long does not count as one that keeps ending."""
STOP_MARGIN_SECONDS: Final = 4.0
"""What workers may take beside the grace period of their turns, before they are killed.

It is twice what an end takes unless the machine is overloaded: whoever is killed writes no outcomes."""
BOOT_SECONDS: Final = 1.0
"""How long workers may take to end that are still being started: Python does not listen while it imports."""
AT_ONCE_SECONDS: Final = 5.0
"""How long workers may take to write outcomes when they are told to end at once."""


class WorkerEnded(Exception):  # noqa: N818 - it is no error where it was asked for
    """A worker has ended. `problems` say why; without any, it ended without a word."""

    def __init__(self, worker: Worker) -> None:
        problems = () if worker.unusable is None else worker.unusable.problems
        why = "; ".join(problem.message for problem in problems) or _how(worker.returncode)
        super().__init__(f"worker {worker.number} (pid {worker.pid}) ended: {why}")
        self.problems = problems


def _how(returncode: int) -> str:
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"


class Supervisor:
    """Runs `start.count` workers until `stop` is called.

    Args:
        start: what workers are told; each is given its own number.
        arguments: of the Python interpreter, to run a worker.
        on_ready: called once with what they serve and their process ids, when the first workers are all
            there, and before they accept connections.
        on_changed: called with the process ids whenever a worker has died, and when another process has taken
            its place.
    """

    def __init__(
        self,
        start: Start,
        arguments: Sequence[str],
        *,
        on_ready: Callable[[Serves, list[int]], Awaitable[None]],
        on_changed: Callable[[list[int]], Awaitable[None]],
    ) -> None:
        self._start = start
        self._arguments = arguments
        self._on_ready = on_ready
        self._on_changed = on_changed
        self._workers: dict[int, Worker] = {}
        self._serving = trio.Event()
        self._stopping = trio.Event()
        self._limit = trio.CancelScope()
        self._agreement = Agreement(self._ready_ones)
        self._relay: Relay | None = None
        self._helpers: trio.Nursery | None = None
        self._failure: WorkerEnded | OSError | None = None
        self.failed: list[int] = []
        """The numbers of the workers that did not end in order: too late, or by a crash."""

    @property
    def serving(self) -> bool:
        """Whether the first workers have all been ready."""
        return self._serving.is_set()

    async def run(self) -> None:
        """Start the workers, and return when all of them have ended after `stop`.

        Raises:
            WorkerEnded: one of the first workers could not begin. The others have been ended.
            OSError: a first worker's process could not be started.
        """
        async with open_plain_nursery() as helpers:
            self._helpers = helpers
            self._relay = Relay(self._ready_ones, helpers)
            helpers.start_soon(self._enforce)
            async with trio.open_nursery() as nursery:
                for number in range(1, self._start.count + 1):
                    nursery.start_soon(self._keep, number, nursery.cancel_scope)
            helpers.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    def stop(self, *, at_once: bool = False) -> None:
        """End all workers: in order, and by force when that takes too long."""
        self._stopping.set()
        self._limit.deadline = min(self._limit.deadline, trio.current_time() + self._patience(at_once))
        for worker in self._workers.values():
            worker.post(Stop(at_once or not self.serving))

    def _patience(self, at_once: bool) -> float:
        if not self.serving:
            return BOOT_SECONDS
        if at_once:
            return AT_ONCE_SECONDS
        times = [worker.serves.stop_seconds for worker in self._workers.values() if worker.serves is not None]
        return max(times, default=0.0) + STOP_MARGIN_SECONDS

    async def until_serving(self) -> None:
        """Wait until the first workers have all been ready."""
        await self._serving.wait()

    async def reload(self, config: bytes) -> Committed | None:
        """Put another configuration in force in all workers, or in none. One call at a time.

        A worker that starts from now on begins with it.

        Returns:
            What changed, in the words of the first worker; None where none of them lived to say so.

        Raises:
            ConfigError: with every problem that was found; nothing has changed.
        """
        try:
            await self._agreement.prepare(config)
        except ConfigError as error:
            self._agreement.discard(tuple(error.problems))
            raise
        except trio.Cancelled:
            self._agreement.discard()
            raise
        version = self._start.version + 1
        self._start = replace(self._start, config=config, version=version)
        done = await self._agreement.commit()
        for worker in self._ready_ones():
            if self._agreement.has_committed(worker):
                worker.version = version
            elif worker.version != version and not worker.dismissed:
                worker.dismiss()
        return done

    def note_refused(self, problems: Sequence[ConfigProblem]) -> None:
        """Have a worker write down that a configuration was refused before any of them saw it."""
        self._agreement.discard(tuple(problems))

    async def _enforce(self) -> None:
        """Kill what is left when the time is over."""
        with self._limit:
            await trio.sleep_forever()
        for worker in self._workers.values():
            if worker.serves is not None:  # else it has not begun, and there is nothing to lose
                logger.error(
                    "worker %d (pid %d) did not end in time and is killed", worker.number, worker.pid
                )
                self.failed.append(worker.number)
            worker.kill()

    # --- one place among the workers ------------------------------------------------------------------

    async def _keep(self, number: int, all_of_them: trio.CancelScope) -> None:
        """See that there is a worker of this number."""
        pause = FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            worker = Worker(replace(self._start, number=number), self._arguments, self._heard)
            began = trio.current_time()
            failure = await self._live(worker)
            if self._stopping.is_set():
                self._look_at_end(worker, failure)
                return
            if not self.serving:
                self._failure = self._failure or failure
                all_of_them.cancel()
                return
            if worker.dismissed:
                continue
            if trio.current_time() - began >= STEADY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            logger.error("%s; another one starts in %g s", failure, pause)
            self._tell_change()
            with trio.move_on_after(pause):
                await self._stopping.wait()
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _look_at_end(self, worker: Worker, failure: WorkerEnded | OSError) -> None:
        """Tell of a worker that crashed when it was to end: its turns had no orderly end."""
        crashed = worker.serves is not None and worker.returncode != 0
        if crashed and worker.number not in self.failed:
            logger.error("%s, while its turns were to finish", failure)
            self.failed.append(worker.number)

    async def _live(self, worker: Worker) -> WorkerEnded | OSError:
        """The whole life of a worker, and what is to be said of its end."""
        self._workers[worker.number] = worker
        try:
            await worker.run()
        except OSError as error:
            return error
        finally:
            del self._workers[worker.number]
            if self._relay is not None:
                self._relay.went(worker)
            self._agreement.went(worker)
            for other in self._ready_ones() if worker.name else ():
                other.post(Gone(worker.name))
        return WorkerEnded(worker)

    # --- what workers say -----------------------------------------------------------------------------

    def _ready_ones(self) -> list[Worker]:
        return [worker for worker in self._workers.values() if worker.serves is not None]

    def _heard(self, worker: Worker, message: ToSupervisor) -> None:
        match message:
            case Ready():
                self._is_ready(worker, message.serves)
            case Prepared() | Committed():
                self._agreement.heard(worker, message)
            case Ask() if self._relay is not None:
                self._relay.asked(worker, message)
            case Reply() if self._relay is not None:
                self._relay.replied(worker, message)

    def _is_ready(self, worker: Worker, serves: Serves) -> None:
        if self._stopping.is_set() or self._helpers is None:
            return
        if worker.version != self._start.version:
            worker.dismiss()  # there was a reload since it was started
        elif self.serving:
            worker.post(Serve())
            logger.info("worker %d (pid %d) serves", worker.number, worker.pid)
            self._tell_change()
        elif len(self._ready_ones()) == self._start.count:
            self._helpers.start_soon(self._begin, serves)

    async def _begin(self, serves: Serves) -> None:
        await self._on_ready(serves, self._pids())
        self._serving.set()
        for worker in self._ready_ones():
            worker.post(Serve())

    def _tell_change(self) -> None:
        if self._helpers is not None:
            self._helpers.start_soon(self._tell_pids)

    async def _tell_pids(self) -> None:
        await self._on_changed(self._pids())  # those of this moment, however many changes are being told

    def _pids(self) -> list[int]:
        return [worker.pid for _, worker in sorted(self._workers.items()) if worker.pid]


__all__ = ["Supervisor", "WorkerEnded"]
