"""One run: a scenario in, what happened and what contradicts the invariants out."""

from __future__ import annotations

import logging
import random
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import trio
from msgspec import Struct
from simulation import kernel
from simulation.audit import Audit
from simulation.checks import check
from simulation.chronicle import Chronicle, Violation
from simulation.client import SimulatedClient
from simulation.complaints import Complaints
from simulation.evidence import Evidence
from simulation.guest import Guest
from simulation.network import Network
from simulation.reading import Response
from simulation.scenario import PROVIDERS, Client, Scenario
from simulation.server import Server, run_sync
from simulation.upstream import PORTS, Exchange, Upstreams

from trio_agent import boot
from trio_agent.server import writing
from trio_agent.statemachine import Turn
from trio_agent.store import rows

RUN_LIMIT = 3000.0
"""Virtual seconds; no scenario takes a tenth of it."""


class Extension(Protocol):
    """Something that goes along with a run: it has a word at boot, and looks at what is left at the end.

    The seventh invariant (replaying a recording gives the same bytes) comes in here: `agent_options` has the
    agent record into a folder, `after` replays what is there.
    """

    def agent_options(self, home: Path) -> Mapping[str, Any]:
        """Further arguments for `open_agent`; called once, the same ones serve every boot of the run."""

    def after(self, outcome: Outcome) -> Sequence[Violation]:
        """Called when the run is over and nothing of it is left running, outside of Trio."""


class Outcome(Struct):
    """What a run came to."""

    scenario: Scenario
    violations: Sequence[Violation]
    fingerprint: str
    timeline: str
    turns: int
    responses: Sequence[Response]
    exchanges: Sequence[Exchange]


def run_scenario(scenario: Scenario, *, extensions: Sequence[Extension] = ()) -> Outcome:
    """Run it, in this process, and check everything. The same scenario gives the same outcome, always."""
    with tempfile.TemporaryDirectory(prefix="simulation-", dir=_fast_folder()) as folder:
        return _run_in(Path(folder), scenario, extensions)


def _fast_folder() -> str | None:
    """A file system in memory, where there is one: a crash is simulated, so nothing need reach a disk."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _run_in(folder: Path, scenario: Scenario, extensions: Sequence[Extension]) -> Outcome:
    options: dict[str, Any] = {}
    for extension in extensions:
        options |= extension.agent_options(folder)
    play = _Play(scenario, folder, options)
    with _heard(play.chronicle), _restoring(scenario), _giving_way(scenario):
        try:
            kernel.run(scenario.seed, play.run)
        except kernel.EndlessError as error:
            play.chronicle.violations.append(Violation(0, f"the run goes round and round: {error}"))
            play.break_off()
        except Exception as error:  # noqa: BLE001 - a run that fails is a finding, and must be shrunk like one
            play.chronicle.violations.append(Violation(0, f"the run itself failed: {error!r}"))
    outcome = Outcome(
        scenario,
        play.chronicle.violations,
        play.chronicle.fingerprint(),
        play.chronicle.timeline(),
        play.turns,
        play.responses,
        play.exchanges,
    )
    for extension in extensions:
        outcome.violations = [*outcome.violations, *extension.after(outcome)]
    return outcome


class _Play:
    """Everyone in a run, and their entrances."""

    def __init__(self, scenario: Scenario, home: Path, options: Mapping[str, Any]) -> None:
        self._scenario = scenario
        self._network = Network()
        self.chronicle = Chronicle()
        self._server = Server(scenario, home, self._network, self.chronicle, options)
        self.responses: list[Response] = []
        self.exchanges: list[Exchange] = []
        self.turns = 0

    async def run(self) -> None:
        trio.socket.set_custom_socket_factory(_Factory(self._network))
        with kernel.replaced(
            (trio.to_thread, "run_sync", run_sync), (boot, "open_store", self._server.open_store)
        ):
            with trio.move_on_after(RUN_LIMIT) as limit:
                async with trio.open_nursery() as nursery:
                    await self._enter(nursery)
                    nursery.cancel_scope.cancel()
            if limit.cancelled_caught:
                self.chronicle.violate(1, f"the run did not end within {RUN_LIMIT:g} s")
                return
        self._check()

    async def _enter(self, nursery: trio.Nursery) -> None:
        scenario = self._scenario
        asks = {ask.name: ask for ask in scenario.asks}
        upstreams = Upstreams(asks, scenario.outages, self.chronicle, nursery)
        self.exchanges = upstreams.exchanges
        for name in PROVIDERS:
            self._network.add_upstream(
                PORTS[name], partial(upstreams.obstacle, name), partial(upstreams.accept, name)
            )
        async with trio.open_nursery() as serving:
            await serving.start(self._server.run)
            async with trio.open_nursery() as clients:
                for number, plan in enumerate(scenario.clients):
                    client = self._client(number, plan)
                    client.responses = self.responses
                    clients.start_soon(client.run)
            await self._server.healed()
            audit = Audit(self._network, self.chronicle, self._server.ledger, scenario.seed)
            await audit.run(self.responses)
            self._server.finish()

    def _client(self, number: int, plan: Client) -> SimulatedClient | Guest:
        if plan.embedded:
            return Guest(f"program {number}", plan, self._server, self.chronicle, self._asked, self._told)
        return SimulatedClient(
            f"client {number}", plan, self._network, self.chronicle, self._asked, self._told
        )

    def break_off(self) -> None:
        """Close what a run that was ended by force has left open."""
        self._network.close_all()

    def _asked(self, response: Response) -> None:
        response.mark = len(self._server.ledger.changes)

    def _told(self, response: Response) -> None:
        """A client was told of the end of its answer: the outcome must be on the disk by now."""
        if response.turn_id is None or response.turn_id in self._server.ledger.unsure:
            return
        recorded = self._server.outcome_of(response.turn_id)
        if recorded is None or recorded == "running":
            self.chronicle.violate(1, f"{response.name} was told before its outcome was written ({recorded})")

    def _check(self) -> None:
        connection = sqlite3.connect(self._server.database)
        try:
            turns = [
                rows.turn_of(each) for each in connection.execute(f"SELECT {rows.TURN_COLUMNS} FROM turns")
            ]
            calls = [
                rows.call_of(each)
                for each in connection.execute(f"SELECT {rows.CALL_COLUMNS} FROM calls ORDER BY rowid")
            ]
        finally:
            connection.close()
        self.turns = len(turns)
        open_sockets = self._network.open_halves()
        self._network.cut_all()
        by_turn: dict[str, list[Any]] = {}
        for call in calls:
            by_turn.setdefault(call.turn_id, []).append(call)
        check(
            Evidence(
                self._scenario,
                self.responses,
                self.exchanges,
                self._server.ledger,
                self._server.downtimes,
                {row.id: row for row in turns},
                by_turn,
                open_sockets,
                self.chronicle.violate,
            )
        )


class _Factory(trio.abc.SocketFactory):
    """What makes the sockets of the code under test: they lead to the run's upstreams."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def socket(self, family: int = 0, type: int = 0, proto: int = 0) -> Any:  # noqa: A002 - Trio's name
        return self._network.socket(family, type, proto)


@contextmanager
def _heard(chronicle: Chronicle) -> Iterator[None]:
    """Listen to the server's log: what it says of failures of its own is a violation."""
    logger = logging.getLogger("trio_agent")
    handler = Complaints(lambda message: chronicle.violate(0, f"the server complains: {message}"))
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


@contextmanager
def _giving_way(scenario: Scenario) -> Iterator[None]:
    """Let other tasks run between two writes to a client as often as the scenario says."""
    number = scenario.settings.writes_at_once
    with kernel.replaced((writing, "WRITES_AT_ONCE", writing.WRITES_AT_ONCE if number is None else number)):
        yield


@contextmanager
def _restoring(scenario: Scenario) -> Iterator[None]:
    """Replace turns by what their snapshots restore to, at moments that the seed chooses."""
    if not scenario.restores:
        yield
        return
    dice = random.Random(f"restores {scenario.seed}")
    receive = Turn.receive

    def receive_restored(turn: Turn, event: Any) -> Any:
        if dice.random() < scenario.restores:
            turn._memory = Turn.restore(turn.snapshot())._memory
        return receive(turn, event)

    with kernel.replaced((Turn, "receive", receive_restored)):
        yield
