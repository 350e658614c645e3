"""The server of a run: the whole of it, booted over one store, ended in every way, and booted again."""

from __future__ import annotations

import contextvars
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, closing, suppress
from math import inf
from pathlib import Path
from typing import Any

import trio
from msgspec import Struct
from simulation.chronicle import Chronicle
from simulation.disk import Disk, Threads
from simulation.kernel import SeededWorld
from simulation.ledger import Ledger, ObservedStore
from simulation.network import Network
from simulation.scenario import Act, ActKind, Reload, Scenario
from simulation.tools import perform
from simulation.upstream import PORTS

from trio_agent.agent import Agent
from trio_agent.config.load import parse_draft
from trio_agent.config.problems import ConfigError
from trio_agent.nursery import open_plain_nursery
from trio_agent.opening import open_agent
from trio_agent.server.app import serve_on
from trio_agent.store.sqlite import open_store

PRICES = {"input": "0.000001", "output": "0.00001"}
"""USD per token, of every model."""

_threads: contextvars.ContextVar[Threads] = contextvars.ContextVar("threads")


async def run_sync(*args: Any, **keywords: Any) -> Any:
    """Stands for `trio.to_thread.run_sync`, in whichever process calls it."""
    return await _threads.get().run_sync(*args, **keywords)


async def probe(k: str, s: float, how: str, p: int = 0) -> Any:
    """A tool of the server's. The model says how long it takes, and how it ends."""
    return await perform(k, s, how, p, f"done {k}")


MODULES = {"alpha": "chat-completions", "beta": "openai", "gamma": "anthropic"}


def configuration(scenario: Scenario) -> dict[str, Any]:
    """What `host_config.json` would say."""
    s = scenario.settings
    providers: dict[str, Any] = {}
    for name, port in PORTS.items():
        config: dict[str, Any] = {
            "base_url": f"http://127.0.0.1:{port}/v1",
            "api_key": f"sk-simulated-{name}",
            "models": [{"id": "one", "price": PRICES}],
            "connect_timeout": s.connect,
            "first_byte_timeout": s.first_byte,
            "idle_timeout": s.idle,
            "max_retries": s.retries,
            "max_connections": s.connections,
        }
        if name in s.drains:
            config |= {"on_disconnect": "drain", "drain_timeout": 6.0}
        if name == "beta":
            config["wire"] = "responses"
        providers[name] = {"module": MODULES[name], "config": config}
    return {
        "providers": providers,
        "routing": {"roles": {"fast": ["alpha/one", "gamma/one", "beta/one"]}},
        "agent": {"max_model_calls": s.model_calls, "tool_timeout": s.tool, "max_cost_usd": s.cost},
        "server": {
            "preflight_timeout": s.preflight,
            "keepalive_interval": s.keepalive,
            "turn_timeout": s.turn,
            "host_tool_ttl": s.ttl,
            "shutdown_grace": s.grace,
            "write_timeout": s.write,
            "max_concurrent_turns": s.concurrent,
            "max_queued_turns": s.queued,
            "queue_timeout": s.queue,
            "in_stream_errors": s.errors,
        },
    }


class Downtime(Struct, frozen=True):
    """When the server was going down, or was down: from the first sign of it to the next boot."""

    kind: ActKind
    began: float
    up: float


class _Life:
    """One process of the server, from boot to its end."""

    def __init__(self, agent: Agent, shutdown: trio.Event, scope: trio.CancelScope, threads: Threads) -> None:
        self.agent = agent
        self.shutdown = shutdown
        self.scope = scope
        self.threads = threads
        self.tasks_at_rest = 0
        self.over = trio.Event()


class Server:
    """The server over all its lives.

    Args:
        home: an empty folder; the database is in it, and outlives each process.
        options: more arguments for `open_agent`.
    """

    def __init__(
        self,
        scenario: Scenario,
        home: Path,
        network: Network,
        chronicle: Chronicle,
        options: Mapping[str, Any],
    ) -> None:
        self._scenario = scenario
        self._home = home
        self._network = network
        self._chronicle = chronicle
        self._options = options
        self._world = SeededWorld(scenario.seed)
        self._disk = Disk(scenario.disk)
        self._life: _Life | None = None
        self._peek: sqlite3.Connection | None = None
        self._finishing = trio.Event()
        self.ledger = Ledger(chronicle)
        self.downtimes: list[Downtime] = []

    @property
    def database(self) -> Path:
        return self._home / "store.sqlite3"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """All lives, one after the other; returns after `finish`, when the last one has ended."""
        acts = sorted(self._scenario.acts, key=lambda act: act.at)
        async with trio.open_nursery() as nursery:
            await self._boot(nursery)
            for reload in self._scenario.reloads:
                nursery.start_soon(self._reload, reload)
            task_status.started()
            for act in acts:
                # Also when all clients have gone: their calls may be read on.
                await trio.sleep(max(0.0, act.at - trio.current_time()))
                for _ in range(act.passes):
                    await trio.lowlevel.checkpoint()
                began = trio.current_time()
                await self._end(act)
                await trio.sleep(act.down)
                await self._boot(nursery)
                self.downtimes.append(Downtime(act.kind, began, trio.current_time()))
            await self._finishing.wait()
            await self._come_to_rest()
            await self._end(Act("shutdown", trio.current_time()))

    async def healed(self) -> None:
        """Wait until the disk is well, for good."""
        await trio.sleep(max(0.0, self._disk.healed_at - trio.current_time()))

    def finish(self) -> None:
        """No more clients come: look at what is left, and shut down."""
        self._finishing.set()

    def outcome_of(self, turn_id: str) -> str | None:
        """What the database says of a turn right now; `None` where it has no row."""
        select = "SELECT outcome FROM turns WHERE id = ?"
        if self._peek is not None:
            found = self._peek.execute(select, (turn_id,)).fetchone()
        else:
            with closing(sqlite3.connect(self.database)) as connection:
                found = connection.execute(select, (turn_id,)).fetchone()
        return None if found is None else str(found[0])

    # --- a life ---------------------------------------------------------------------------------------

    async def _boot(self, nursery: trio.Nursery) -> None:
        # A server does not come up on a disk that does not answer; it would be started until it does.
        await trio.sleep(max(0.0, self._disk.healed_at - trio.current_time()) if self._life else 0.0)
        self._life = await nursery.start(self._live)
        self._life.tasks_at_rest = self._tasks()
        self._chronicle.note("server", "is up")

    async def _live(self, *, task_status: trio.TaskStatus[_Life]) -> None:
        async with trio.open_nursery() as threads_nursery:
            threads = Threads(self._disk, threads_nursery)
            _threads.set(threads)
            life: _Life | None = None
            with trio.CancelScope() as scope:
                async with self._agent() as agent:
                    shutdown = trio.Event()
                    life = _Life(agent, shutdown, scope, threads)
                    async with open_plain_nursery() as nursery:
                        await nursery.start(self._serve, agent, shutdown, nursery.cancel_scope)
                        threads_nursery.start_soon(self._make_ill, agent.store.inner)
                        self._nursery = nursery
                        task_status.started(life)
            threads_nursery.cancel_scope.cancel()
        if life is not None:
            life.over.set()

    async def _serve(
        self,
        agent: Agent,
        shutdown: trio.Event,
        process: trio.CancelScope,
        *,
        task_status: trio.TaskStatus[Any],
    ) -> None:
        listener: Any = self._network.listen()
        await serve_on(agent, [listener], api_key=None, shutdown=shutdown, task_status=task_status)
        process.cancel()  # with the server ends the program that it is part of

    async def host(self, program: Callable[[Agent], Awaitable[None]]) -> bool:
        """Run something within the server's process, until either ends; says whether there was a process."""
        life = self._life
        if life is None or life.shutdown.is_set() or life.scope.cancel_called or life.over.is_set():
            await trio.lowlevel.checkpoint()
            return False
        over = trio.Event()

        async def run() -> None:
            _threads.set(life.threads)
            try:
                await program(life.agent)
            finally:
                over.set()

        self._nursery.start_soon(run)
        await over.wait()
        return True

    @asynccontextmanager
    async def _agent(self) -> AsyncIterator[Any]:
        config = configuration(self._scenario)
        async with open_agent(
            config, home=self._home, env={}, world=self._world, tools=[probe], **self._options
        ) as agent:
            self._peek = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)
            try:
                yield agent
            finally:
                self._peek.close()
                self._peek = None

    @asynccontextmanager
    async def open_store(self, path: Path, **keywords: Any) -> AsyncIterator[ObservedStore]:
        """Stands for the store's `open_store` in the boot of an agent."""
        async with open_store(path, **keywords) as store:
            yield ObservedStore(store, self.ledger)

    async def _make_ill(self, store: Any) -> None:
        """Switch the refusals of the disk on and off, for as long as the process lives."""
        writer, readers = store._writer._connection, store._readers._free
        self._disk.apply(writer, readers)
        for moment in self._disk.changes():
            if moment > trio.current_time():
                await trio.sleep(moment - trio.current_time())
                with suppress(sqlite3.ProgrammingError):  # the store is closed already
                    self._disk.apply(writer, readers)

    async def _reload(self, reload: Reload) -> None:
        """Read the configuration again, if there is a process then."""
        await trio.sleep(reload.at)
        for _ in range(reload.passes):
            await trio.lowlevel.checkpoint()
        wanted = configuration(self._scenario) | ({"agnt": {}} if reload.bad else {})

        async def read_again(agent: Agent) -> None:
            try:
                await agent.reload(parse_draft(wanted, {}))
            except ConfigError:
                self._chronicle.note("server", "refuses a configuration")
            else:
                self._chronicle.note("server", "is under another configuration")

        await self.host(read_again)

    # --- the end of a life ----------------------------------------------------------------------------

    async def _end(self, act: Act) -> None:
        life = self._life
        assert life is not None
        self._chronicle.note("server", act.kind)
        began = trio.current_time()
        if act.kind == "crash":
            self._crash(life)
        elif act.kind == "kill":
            life.agent.end_as("shutdown")
            life.scope.cancel()
        else:
            life.shutdown.set()
        with trio.move_on_after(120):
            await life.over.wait()
        self._network.listener_gone()
        took = trio.current_time() - began
        self._chronicle.note("server", f"is down after {took:.3f} s")
        # A disk that does not answer has limits of its own.
        limit = {"crash": inf, "kill": 1.0, "shutdown": self._scenario.settings.grace + 2.0}[act.kind]
        if took > limit and (began > self._disk.healed_at or not self._scenario.disk):
            self._chronicle.violate(
                2, f"the server took {took:.3f} s to end ({act.kind}); {limit:g} are allowed"
            )
        if not life.over.is_set():
            raise NeverEndsError("the server did not end")
        self.ledger.process_ended(crashed=act.kind == "crash")

    def _crash(self, life: _Life) -> None:
        """What a killed process leaves: sockets closed by the system, locks dropped, nothing written."""
        life.threads.die()
        store = life.agent.store.inner
        store._instance.leave = _no_farewell
        self._network.cut_all()
        life.scope.cancel()

    # --- at rest --------------------------------------------------------------------------------------

    async def _come_to_rest(self) -> None:
        """All clients have gone: what is left of their turns?"""
        await trio.sleep(max(0.0, self._disk.healed_at - trio.current_time()) + 26.0)
        life = self._life
        assert life is not None
        if life.agent.active_turns:
            self._chronicle.violate(2, f"{life.agent.active_turns} turns run on without a client")
        if life.agent.slots.figures.running or life.agent.slots.waiting:
            self._chronicle.violate(2, f"slots are held by nobody: {life.agent.slots.figures}")
        tasks = self._tasks()
        if tasks > life.tasks_at_rest:
            self._chronicle.violate(2, f"{tasks - life.tasks_at_rest} tasks are left of turns that ended")

    def _tasks(self) -> int:
        return _count(self._nursery)


class NeverEndsError(Exception):
    """A part of the run did not end in any time that is allowed."""


def _no_farewell(connection: sqlite3.Connection, now: float) -> None:
    del connection, now
    raise sqlite3.OperationalError("the process has died")


def _count(nursery: trio.Nursery) -> int:
    return sum(1 + sum(_count(inner) for inner in task.child_nurseries) for task in nursery.child_tasks)
