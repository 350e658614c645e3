"""One replay: the loop that feeds the file's lines to who waits for them, and moves the clock between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from typing import cast

import msgspec
import trio

from trio_agent.agent import Agent
from trio_agent.boot import House
from trio_agent.config.schema import Config
from trio_agent.errors import AgentError
from trio_agent.nursery import open_plain_nursery
from trio_agent.recording import format as lines
from trio_agent.recording.format import AnyInput, Header, Recording, StoreFailed
from trio_agent.replay.client import Client, Gate
from trio_agent.replay.clock import move_to, next_deadline
from trio_agent.replay.compare import has_outputs
from trio_agent.replay.house import Known, open_house
from trio_agent.replay.inbox import Key
from trio_agent.replay.oddities import Oddities, named
from trio_agent.replay.order import Order
from trio_agent.replay.punctuality import Punctuality
from trio_agent.replay.result import ReplayError
from trio_agent.replay.script import Cue, Script, providers_by_events
from trio_agent.replay.stage import Stage, echo_of
from trio_agent.replay.store import ReplayStore
from trio_agent.replay.successor import Successor
from trio_agent.replay.timers import PlayedTimers
from trio_agent.replay.tools import PlayedTools
from trio_agent.server.app import Application, create_app
from trio_agent.statemachine.conversation import ToolResult
from trio_agent.statemachine.events import CancelReason, Timer
from trio_agent.turn.context import Queued
from trio_agent.world import SeededWorld


class Playing:
    """Plays one recording, from its first line to its last.

    What is due at the same moment comes in this order: Trio's own deadlines, the file's lines, timers. So
    nothing is left to the scheduler. `oddities` are what came of no line, or never ended.

    Raises:
        ReplayError: the recording cannot be played.
    """

    def __init__(self, recording: Recording, name: str, known: Known, *, run_tools: bool) -> None:
        header = recording.header
        self._recording = recording
        self._name = name
        self._known = known
        self._run_tools = run_tools
        self._script = Script(recording, name)
        self._by_events = providers_by_events(recording)
        self.stage = self._make_stage(header)
        self._order = Order(self._script, self.stage, whole=has_outputs(recording.entries))
        self._world = SeededWorld(name, self.stage.wall)
        self._failures = self._script.store_failures
        self._store = ReplayStore(
            self.stage.wall, self._store_failure, self._store_failed, self.stage.written, self._order.answered
        )
        if header.timers == "recorded":
            self.stage.interrupted = self._order.interrupted
            self.stage.claimed = self._claimed
            self.stage.turn_ends = self._order.turn_ends
            if has_outputs(recording.entries):
                self.stage.too_early = self._order.too_early
        self._punctuality = Punctuality(recording.entries) if header.timers == "recorded" else None
        self._gate = Gate()
        self._clients: list[Client] = []
        self._requests = 0
        self._first_request = 0
        """The number of the request that began the responses which run now."""
        self._ending: CancelReason = "client_disconnected"
        self._met: set[int] = set()
        self._tools: PlayedTools
        self._house: House
        self._agent: Agent
        self._app: Application
        self.oddities = Oddities(recording, self.stage)

    def _make_stage(self, header: Header) -> Stage:
        return Stage(header.start, by_file=header.timers == "recorded")

    async def play(self) -> None:
        """Feed the whole file, until everything has ended or nothing can happen any more."""
        restarting = True
        while restarting:
            async with self._open_server() as nursery:
                try:
                    restarting = await self._run_server(nursery)
                    self.stage.closed = not restarting
                finally:
                    # A call that is read on for its bill would outlive a clock that nobody moves any more.
                    self._agent.end_as("cancelled")
                nursery.cancel_scope.cancel()
        for cue in self._failures:
            if cue.number not in self._met:
                self.oddities.strand(cue, "the store was not asked for that")

    @asynccontextmanager
    async def _open_server(self) -> AsyncIterator[trio.Nursery]:
        async with (
            open_house(
                self._recording.header,
                name=self._name,
                by_events=self._by_events,
                known=self._known,
                inbox=self.stage.inbox,
                tools=self._make_tools,
                store=self._store,
                world=self._world,
            ) as house,
            open_plain_nursery() as nursery,
        ):
            self._house = house
            self._agent = Agent(house, contexts=lambda _: self.stage.context, nursery=nursery)
            # How long a request waited is in its line; nobody waits again.
            self._agent.slots.resize(house.setup.config.server.max_concurrent_turns, 0, 0.0)
            self._app = create_app(self._agent)
            self._ending = "client_disconnected"
            yield nursery

    def _make_tools(self, config: Config) -> PlayedTools:
        self._tools = PlayedTools.of(
            self._recording.header,
            config,
            self.stage.inbox,
            name=self._name,
            differs=self._tool_differs if self._run_tools else None,
        )
        return self._tools

    async def _run_server(self, nursery: trio.Nursery) -> bool:
        """Feed lines until the end, or until the server is to be started again: then True."""
        while True:
            await trio.testing.wait_all_tasks_blocked()
            if await self._leave_file():
                return False
            if self.stage.let_write() or (not self._order.line_is_first() and self.stage.let_call()):
                continue
            cue = self._script.next
            if cue is None and all(client.over for client in self._clients):
                return False
            now = trio.current_time()
            line_at = inf if cue is None else max(self.stage.begun + cue.line.t, now)
            timer_at, timer, timers = self._next_timer()
            deadline = next_deadline()
            if cue is not None and deadline < inf and self._comes_by_itself(cue, deadline):
                line_at = inf
            elif cue is not None and isinstance(cue.line, lines.Hold) and self.stage.writes:
                line_at = now  # it stands where the write begins that is not taken
            soon = min(line_at, timer_at, deadline)
            if soon == inf:
                if not self._cut_off():
                    self.oddities.note_waiting()
                    return False
                continue
            if soon > now:
                move_to(soon)
            elif cue is None or line_at > now:
                timers.fire(timer)
            else:
                self._script.advance()
                if isinstance(cue.line, lines.ToolReturned):
                    await self._tools.run_out()
                self._check_timers(cue)
                self.stage.feed(cue.line, cue.number)
                if isinstance(cue.line, lines.Restart):
                    self._check_restart(cue)
                    return True
                self._feed(cue, nursery)

    def _comes_by_itself(self, cue: Cue, deadline: float) -> bool:
        """Whether a line says what happens when a turn that still runs comes to it, perhaps at `deadline`."""
        return (
            isinstance(cue.line, StoreFailed)
            and self._recording.header.timers == "recorded"
            and all(self.stage.begun + each.line.t >= deadline for each in self._script.coming[1:2])
            and not all(client.over for client in self._clients)
        )

    async def _leave_file(self) -> bool:
        """Whether the file's part is over before its end; nothing of it happens any more."""
        return False

    def _next_timer(self) -> tuple[float, Timer, PlayedTimers]:
        """The timer that the clock fires next. In a file that fires its timers itself, none ever is due."""
        first: tuple[float, Timer, PlayedTimers] = inf, Timer.TURN, PlayedTimers(by_file=True)
        if self._recording.header.timers == "clock":
            for timers in self.stage.timers:
                at, timer = timers.next
                if at < first[0]:
                    first = max(at, trio.current_time()), timer, timers
        return first

    # --- lines ----------------------------------------------------------------------------------------

    def _feed(self, cue: Cue, nursery: trio.Nursery) -> None:
        line = cue.line
        match line:
            case lines.Request() | lines.Embedded():
                self._ask(line, nursery)
            case (
                lines.Head(call=call)
                | lines.Data(call=call)
                | lines.End(call=call)
                | lines.Broke(call=call)
                | lines.Events(call=call)
                | lines.CallEnded(call=call)
            ):
                self._give(("call", call), cue)
            case lines.ToolReturned(result=result):
                self._give(("tool", str(result.get("tool_call_id"))), cue)
            case lines.HostReturned(result=result):
                self._give(("host", str(result.get("tool_call_id"))), cue)
            case lines.TimerFired(timer=timer):
                if not any(timers.fire(Timer(timer)) for timers in reversed(self.stage.timers)):
                    self.oddities.strand(cue, f"the timer {timer} is not set")
            case lines.Disconnect(reason=reason):
                self._disconnect(cue, cast("CancelReason", reason))
            case lines.Stop(reason=reason):
                if self._agent.active_turns == 0:
                    self.oddities.strand(cue, "no turn runs")
                if reason == "shutdown":
                    self._agent.drain()  # a server that ends lets nobody in first
                nursery.start_soon(self._agent.stop_turns, cast("CancelReason", reason))
            case lines.Found():
                self._store.put(line)
            case lines.Fault():
                if not any(timers.fail() for timers in reversed(self.stage.timers)):
                    self.oddities.strand(cue, "no turn runs")
            case lines.Forked(model=model):
                self._fork(cue, model)
            case _:
                self._set_server(line)

    def _set_server(self, line: AnyInput) -> None:
        match line:
            case lines.Hold():
                self._gate.hold()
            case lines.Release():
                self._gate.release()
            case lines.Drain():
                self._agent.drain()
            case _:
                # A failure of the store is told here, ahead of the time when it happens.
                pass

    def _ask(self, line: lines.Request | lines.Embedded, nursery: trio.Nursery) -> None:
        self._requests += 1
        if all(client.answered for client in self._clients):
            self._first_request = self._requests
            self.stage.renumber()
            self._store.renumber()
        self.stage.queued = Queued(line.waited, line.full, line.retry_after)
        self.stage.seed = line.seed or f"request {self._requests}"
        self.stage.kept = {}
        while (cue := self._script.next) is not None and isinstance(cue.line, lines.Found):
            # What this very request finds is there before it looks.
            self._script.advance()
            self.stage.feed(cue.line, cue.number)
            self._store.put(cue.line)
            self.stage.kept |= cue.line.kept
        client = Client(self.stage, self._gate)
        self._clients = [*(each for each in self._clients if not each.over), client]
        if isinstance(line, lines.Request):
            nursery.start_soon(client.run_http, self._app, line)
        else:
            nursery.start_soon(client.run_embedded, self._agent, line)

    def _give(self, key: Key, cue: Cue) -> None:
        if self.stage.inbox.give(key, cue.line):
            return
        if not (isinstance(cue.line, lines.End) and self.stage.has_finished(cue.line.call)):
            self.oddities.strand(cue, f"nobody waits for {named(key)}")

    def _disconnect(self, cue: Cue, reason: CancelReason) -> None:
        running = [client for client in self._clients if not client.answered]
        if not running:
            self.oddities.strand(cue, "every request is answered")
            return
        if reason != self._ending:
            self._ending = reason
            self._agent.end_as(reason)
        running[-1].scope.cancel()

    def _store_failure(self, op: str, nth: int) -> StoreFailed | None:
        """The line that says that the store fails now, among those of the responses that run."""
        for cue in self._failures:
            line = cue.line
            if (
                isinstance(line, StoreFailed)
                and (line.op, line.nth) == (op, nth)
                and self._first_request <= max(1, cue.requests) <= self._requests
            ):
                return line
        return None

    def _store_failed(self, failure: StoreFailed) -> None:
        """The store is about to fail, or was given up: its line stands here, if it has not stood before."""
        cue = next(cue for cue in self._failures if cue.line is failure)
        self._met.add(cue.number)
        if cue is self._script.next:
            self._script.pass_over(cue)
            self.stage.feed(cue.line, cue.number)

    def _fork(self, cue: Cue, model: str) -> None:
        try:
            self.stage.successor = Successor(self._house, model)
        except AgentError as error:
            raise ReplayError(f"{self._name}:{cue.number}: {error.message}") from None

    def _check_timers(self, cue: Cue) -> None:
        if self._punctuality is not None:
            now, begun = self.stage.now(), self.stage.begun
            for message in self._punctuality.check(cue.line, now, self.stage.timers, begun):
                self.oddities.note(cue.number, message)

    def _check_restart(self, cue: Cue) -> None:
        if any(not client.answered for client in self._clients):
            raise ReplayError(
                f"{self._name}:{cue.number}: a turn runs at this restart; "
                "end it with `stop` or `disconnect` before"
            )

    def _claimed(self, echo: object) -> int | None:
        """Take the file's next line, if it says what just happened without it.

        A timer that waits for a client who takes nothing is given up at the turn's own deadline.
        """
        cue = self._script.next
        if cue is None or echo_of(cue.line) != echo:
            return None
        self._script.advance()
        return cue.number

    def _cut_off(self) -> bool:
        """Let go of a client that takes nothing more; False if there is none."""
        ended = self._agent.active_turns == 0 or self.stage.state in ("done", "error", "host_tool_wait")
        if not (self.stage.held and ended):
            return False
        self.stage.held = False
        for client in self._clients:
            client.scope.cancel()
        return True

    def _tool_differs(self, line: lines.ToolReturned, result: ToolResult) -> None:
        was = msgspec.json.encode(line.result).decode()
        now = msgspec.json.encode(result).decode()
        numbers = {id(cue.line): cue.number for cue in self._script.cues}
        self.oddities.note(numbers[id(line)], f"the tool gives another result now:\n  - {was}\n  + {now}")
