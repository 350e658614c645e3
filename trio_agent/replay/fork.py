"""Forking a recorded turn: played up to a line, and then it goes on for real, with a model of today's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import trio
from msgspec import Struct

from trio_agent.boot import House, boot
from trio_agent.config.home import resolve_home
from trio_agent.config.load import Draft
from trio_agent.errors import AgentError
from trio_agent.nursery import open_plain_nursery
from trio_agent.providers.modules import installed_modules
from trio_agent.recording import format as lines
from trio_agent.recording.files import prepare
from trio_agent.recording.format import SUFFIX, Header, Recording, StoreFailed
from trio_agent.replay.client import Client
from trio_agent.replay.fork_border import Border, ForkError, border_at
from trio_agent.replay.fork_clock import ForkClock
from trio_agent.replay.fork_ending import Ending, ending_of
from trio_agent.replay.fork_record import forked_header, provider_id_for, write_fork
from trio_agent.replay.fork_stage import ForkStage
from trio_agent.replay.fork_tools import ForkTools, KeptResults
from trio_agent.replay.house import Known
from trio_agent.replay.player import Player
from trio_agent.replay.playing import Playing
from trio_agent.replay.result import UNWRITTEN, Replayed, ReplayError
from trio_agent.replay.successor import Successor
from trio_agent.statemachine import effects as fx
from trio_agent.store.memory import MemoryStore
from trio_agent.turn.toolbox import ToolBox
from trio_agent.world import RealWorld


class ForkPlan(Struct, frozen=True, kw_only=True):
    """What is to be forked, and how.

    `line` is the line of the file up to which it is played, `None` for the first model call. `against` is a
    model's name in `draft`, `None` for the model that was called there in the recording. `record` is a
    folder for the forked turns. `run_tools` lets the tools of `draft` run; otherwise the file's results of
    the same calls are used.
    """

    recording: Recording
    name: str
    draft: Draft
    env: Mapping[str, str]
    line: int | None = None
    against: str | None = None
    run_tools: bool = False
    times: int = 1
    record: Path | None = None


class Forked(Struct, frozen=True, kw_only=True):
    """One fork, done.

    `line` is where in the file it was, `went_back` whether that is before the line that was asked for.
    `model` is who took over, by its full name, `recorded` how the recording went on there, `ending` how the
    fork did. `stopped` says why it was ended before its turn was. `faithful` is false where the recording
    does not replay as it was recorded. `seconds` counts the live part. `written` is its recording, or
    `unwritten` says why there is none.
    """

    line: int
    went_back: bool
    model: str
    recorded: Ending
    ending: Ending
    seconds: float
    stopped: str | None = None
    faithful: bool = True
    written: Path | None = None
    unwritten: str | None = None

    @property
    def completed(self) -> bool:
        """Whether the turn has a whole answer, and is recorded where that was asked for."""
        return self.ending.completed and self.stopped is None and self.unwritten is None


class Listener:
    """Hears of forks as they go on; a subclass does something with it."""

    def begins(self, border: Border, model: str, number: int) -> None:
        """Fork `number` (from 1) begins."""

    def text(self, text: str) -> None:
        """The model says something."""

    def ended(self, forked: Forked) -> None:
        """A fork is over."""


def fork(plan: ForkPlan, listener: Listener) -> list[Forked]:
    """Fork a recording `plan.times` times, one after the other.

    Runs Trio itself, on a clock that stands still while the file is played and is a real one after that.

    Raises:
        ForkError: there is nothing to go on with at that line, no such model is served, or the folder for
            recordings is none.
        ReplayError: the recording cannot be played.
        ConfigError: the configuration cannot be booted.
        AgentError: the model cannot carry the conversation; nothing was sent to it.
    """
    if plan.record is not None:
        try:
            prepare(plan.record)
        except OSError as error:
            raise ForkError(f"{plan.record} cannot be written to: {error.strerror}") from None
    replayed = Player().replay(plan.recording, plan.name)
    border = border_at(replayed, plan.line)
    return trio.run(_fork_all, plan, replayed, border, listener, clock=ForkClock())


async def _fork_all(plan: ForkPlan, replayed: Replayed, border: Border, listener: Listener) -> list[Forked]:
    world = RealWorld()
    async with boot(
        plan.draft,
        home=resolve_home(plan.env),
        env=plan.env,
        world=world,
        store=MemoryStore(world.now),
    ) as house:
        heir = _heir(plan, house, replayed, border)
        done: list[Forked] = []
        for number in range(1, plan.times + 1):
            listener.begins(border, heir.candidate.origin, number)
            done.append(await _fork_once(plan, house, heir, replayed, border, listener))
            listener.ended(done[-1])
        return done


def _heir(plan: ForkPlan, house: House, replayed: Replayed, border: Border) -> Successor:
    model = plan.against or _model_at(replayed, border)
    try:
        heir = Successor(house, model)
    except AgentError as error:
        hint = "" if plan.against else " It is the recording's own; name another one with --against."
        raise ForkError(f"{error.message}{hint}") from None
    name = provider_id_for(plan.recording.header, house, heir, plan.name)
    return heir if name == heir.candidate.provider else Successor(house, model, name)


def _model_at(replayed: Replayed, border: Border) -> str:
    """The full name of the model that the recording goes on with. Raises ForkError."""
    number = attempt = -1
    for moment in replayed.timeline[border.place :]:
        match moment.value:
            case fx.RecordCall() if number < 0:
                number, attempt = moment.value.number, moment.value.attempt
            case lines.Outcome(turn=turn, calls=calls):
                served = [
                    each for each in calls if (each["number"], each.get("attempt", 0)) == (number, attempt)
                ]
                if served:
                    return f"{served[0]['provider']}/{served[0]['model']}"
                return f"{turn['provider']}/{turn['served_model']}"
            case _:
                pass
    raise ForkError(
        f"{replayed.name}: the recording does not say which model went on; name one with --against"
    )


async def _fork_once(
    plan: ForkPlan,
    house: House,
    heir: Successor,
    replayed: Replayed,
    border: Border,
    listener: Listener,
) -> Forked:
    clock = trio.lowlevel.current_clock()
    if isinstance(clock, ForkClock):
        clock.stand()
    kept = KeptResults(replayed.timeline)
    playing = ForkPlaying(
        plan, border, heir, kept=kept, real=house.setup.tools if plan.run_tools else None, tell=listener.text
    )
    await playing.play()
    stage = playing.fork_stage
    if stage.refusal is not None:
        raise stage.refusal
    if not stage.live:
        raise ReplayError(f"{plan.name}: the replay did not come as far as line {border.line}")
    written, unwritten = _write(plan, house, heir, border, stage)
    return Forked(
        line=border.line,
        went_back=border.went_back,
        model=heir.candidate.origin,
        recorded=ending_of(replayed.timeline[border.place :]),
        ending=ending_of(stage.moments[stage.live_from :]),
        seconds=round(playing.seconds, 3),
        stopped=stage.why,
        faithful=all(each.message == UNWRITTEN for each in replayed.differences),
        written=written,
        unwritten=unwritten,
    )


def _write(
    plan: ForkPlan, house: House, heir: Successor, border: Border, stage: ForkStage
) -> tuple[Path | None, str | None]:
    """Where the fork was recorded, and why it could not be."""
    if plan.record is None:
        return None, None
    name = Path(plan.name).name
    told = f"A fork of {name} at line {border.line}, against {heir.candidate.origin}."
    header = forked_header(plan.recording.header, house, heir, told)
    stem = f"{name.removesuffix(SUFFIX)}-fork-{border.line}"
    try:
        return write_fork(plan.record, stem, header, [each.line for each in stage.noted], house), None
    except OSError as error:
        return None, f"{error.filename or plan.record}: {error.strerror}"


class ForkPlaying(Playing):
    """Plays a recording up to a border, and lets the turn go on live from there."""

    def __init__(
        self,
        plan: ForkPlan,
        border: Border,
        heir: Successor,
        *,
        kept: KeptResults,
        real: ToolBox | None,
        tell: Callable[[str], None],
    ) -> None:
        self._border = border
        self._heir = heir
        self._tell = tell
        self.fork_stage: ForkStage
        super().__init__(plan.recording, plan.name, Known(installed_modules()), run_tools=False)
        self.fork_stage.with_tools(lambda played: ForkTools(played, self.fork_stage, kept=kept, real=real))
        self.seconds = 0.0

    def _make_stage(self, header: Header) -> ForkStage:
        self.fork_stage = ForkStage(
            header.start,
            by_file=header.timers == "recorded",
            border=self._border,
            heir=self._heir,
            tell=self._tell,
        )
        return self.fork_stage

    def _store_failure(self, op: str, nth: int) -> StoreFailed | None:
        return None if self.fork_stage.live else super()._store_failure(op, nth)

    async def _leave_file(self) -> bool:
        stage = self.fork_stage
        if not stage.live and not stage.reached:
            return False
        stage.go_live()
        # Whoever interrupts a fork wants the call closed, not read on for its bill.
        self._agent.end_as("cancelled")
        if stage.held:
            # Whoever took nothing more is not there; who reads now does.
            stage.feed(lines.Release(t=stage.now()), 0)
            self._gate.release()
        await self._run_out([client for client in self._clients if not client.over])
        self.seconds = trio.current_time() - stage.live_since
        return True

    async def _run_out(self, clients: Sequence[Client]) -> None:
        """Wait until the turn has ended, or end it when the fork is stopped."""
        async with open_plain_nursery() as nursery:
            nursery.start_soon(self._end_when_stopped, clients)
            for client in clients:
                await client.ended.wait()
            nursery.cancel_scope.cancel()

    async def _end_when_stopped(self, clients: Sequence[Client]) -> None:
        await self.fork_stage.stopped.wait()
        for client in clients:
            client.scope.cancel()


__all__ = ["ForkError", "ForkPlan", "Forked", "Listener", "fork"]
