"""Another configuration for all workers, or for none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from trio_agent.config.problems import ConfigError, ConfigProblem
from trio_agent.server.options import ServeOptions
from trio_agent.server.workers.agreement import COMMIT_SECONDS, PREPARE_SECONDS, Agreement
from trio_agent.server.workers.messages import (
    Commit,
    Committed,
    Discard,
    Message,
    Prepare,
    Prepared,
    Serves,
    Start,
)
from trio_agent.server.workers.worker import Worker

BAD = ConfigProblem("config_unknown_key", "providrs", "there is no such key")
WORSE = ConfigProblem("provider_unusable", "providers.lab", "it does not answer")


class Told(Worker):
    """A worker that notes what it is told, and answers as the test says."""

    def __init__(self, number: int, problems: tuple[ConfigProblem, ...] = (), *, silent: str = "") -> None:
        start = Start(number=number, count=3, options=ServeOptions(), config=b"", version=1)
        super().__init__(start, (), lambda worker, message: None)
        self.told: list[Message] = []
        self._problems = problems
        self._silent = silent
        self.agreement: Agreement | None = None

    def post(self, message: Message, *, droppable: bool = False) -> bool:
        self.told.append(message)
        answer: Prepared | Committed | None = None
        if isinstance(message, Prepare) and self._silent != "prepare":
            answer = Prepared(message.id, self._problems)
        elif isinstance(message, Commit) and self._silent != "commit":
            answer = Committed(message.id, Serves(1, {}, 0.0), f"by {self.number}")
        if answer is not None and self.agreement is not None:
            self.agreement.heard(self, answer)
        return True

    @property
    def kinds(self) -> list[str]:
        return [type(message).__name__ for message in self.told]


def agreement_of(*workers: Told) -> Agreement:
    agreement = Agreement(lambda: list(workers))
    for worker in workers:
        worker.agreement = agreement
    return agreement


async def test_all_prepare_before_one_commits() -> None:
    """One of them notes it for the audit log."""
    workers = [Told(1), Told(2), Told(3)]
    agreement = agreement_of(*workers)
    await agreement.prepare(b"{}")
    assert [worker.kinds for worker in workers] == [["Prepare"]] * 3
    done = await agreement.commit()
    assert done is not None
    assert done.said == "by 1"
    assert [worker.kinds for worker in workers] == [["Prepare", "Commit"]] * 3
    assert [message.note for worker in workers for message in worker.told if isinstance(message, Commit)] == [
        True,
        False,
        False,
    ]
    assert all(agreement.has_committed(worker) for worker in workers)


async def test_one_that_cannot_keeps_all_from_it() -> None:
    """Every problem is told once, whichever worker has it; the first worker writes them down."""
    workers = [Told(1, (BAD,)), Told(2), Told(3, (BAD, WORSE))]
    agreement = agreement_of(*workers)
    with pytest.raises(ConfigError) as caught:
        await agreement.prepare(b"{}")
    assert caught.value.problems == [BAD, WORSE]
    agreement.discard(tuple(caught.value.problems))
    assert [worker.kinds for worker in workers] == [["Prepare", "Discard"]] * 3
    notes = [message.note for worker in workers for message in worker.told if isinstance(message, Discard)]
    assert notes == [(BAD, WORSE), (), ()]


async def test_one_that_says_nothing_keeps_all_from_it(autojump_clock: MockClock) -> None:
    """After a time: it may hang."""
    agreement = agreement_of(Told(1), Told(2, silent="prepare"))
    with pytest.raises(ConfigError) as caught:
        await agreement.prepare(b"{}")
    assert [problem.code for problem in caught.value.problems] == ["worker_unusable"]
    assert trio.current_time() == PREPARE_SECONDS


async def test_one_that_dies_is_agreed_on_without(autojump_clock: MockClock) -> None:
    """The one that takes its place begins with what is in force then."""
    one, two = Told(1), Told(2, silent="prepare")
    agreement = agreement_of(one, two)
    await while_it_waits(partial(agreement.prepare, b"{}"), partial(agreement.went, two))
    assert await agreement.commit() is not None
    assert two.kinds == ["Prepare"]
    assert not agreement.has_committed(two)


async def while_it_waits(what: Callable[[], Awaitable[object]], then: Callable[[], None]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(what)
        await trio.sleep(1)
        then()


async def test_without_anybody_there_is_no_agreement() -> None:
    """All workers have died in that moment: nothing is known of the configuration."""
    with pytest.raises(ConfigError):
        await agreement_of().prepare(b"{}")


async def test_one_that_hangs_when_it_counts_is_replaced(autojump_clock: MockClock) -> None:
    """It has agreed, so the others go on. Its turns end in order; the next one begins with the new."""
    one, two = Told(1), Told(2, silent="commit")
    agreement = agreement_of(one, two)
    await agreement.prepare(b"{}")
    done = await agreement.commit()
    assert done is not None
    assert trio.current_time() == COMMIT_SECONDS
    assert two.kinds == ["Prepare", "Commit", "Stop"]
    assert (one.dismissed, two.dismissed) == (False, True)


async def test_what_was_said_to_an_earlier_question_counts_for_nothing() -> None:
    """A worker that answers late does not agree to what it has not seen."""
    one = Told(1, silent="prepare")
    agreement = agreement_of(one)
    with trio.move_on_after(0):
        await agreement.prepare(b"1")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agreement.prepare, b"2")
            await trio.testing.wait_all_tasks_blocked()
            agreement.heard(one, Prepared(1))
            await trio.testing.wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1
            scope.cancel()
