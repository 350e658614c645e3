"""Deliberate bugs in how turns end: outcomes, what is left of them, and what a client is told last."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import trio
from simulation.kernel import replaced
from simulation.mutation import bug

from trio_agent.agent import Agent
from trio_agent.faces.chat_sinks import StreamSink
from trio_agent.generations import Generations
from trio_agent.providers.http_connection import Connection
from trio_agent.providers.openai_decode import ChatDecoder
from trio_agent.server.connection import Connection as ServerConnection
from trio_agent.server.listen import _Server
from trio_agent.statemachine import answering
from trio_agent.statemachine import events as ev
from trio_agent.store.sqlite import SqliteStore
from trio_agent.turn import journal as journal_module
from trio_agent.turn import perform
from trio_agent.turn.driver import Driver
from trio_agent.turn.journal import Journal
from trio_agent.turn.timers import Timers
from trio_agent.wire.sse import DONE

# --- 1: one end, one outcome --------------------------------------------------------------------------


@bug(1, says="though it is closed")
def the_outcome_row_is_written_twice() -> Iterator[None]:
    close = SqliteStore.close_turn

    async def twice(store: Any, row: Any, calls: Any, reasoning: Any = (), keeping: Any = None) -> None:
        await close(store, row, calls, reasoning, keeping)

    journal_close = Journal.close

    async def close_again(journal: Any, effect: Any, rest: Any = ()) -> None:
        await journal_close(journal, effect, rest)
        await journal_close(journal, effect, rest)

    with replaced((SqliteStore, "close_turn", twice), (Journal, "close", close_again)):
        yield


@bug(1, says="left running by a server")
def a_cancelled_turn_has_no_outcome() -> Iterator[None]:
    async def forget(driver: Any) -> None:
        del driver

    with replaced((Driver, "_settle", forget)):
        yield


@bug(1, says="was told before its outcome was written")
def the_client_is_told_before_the_outcome_is_written() -> Iterator[None]:
    done = answering.done

    def told_first(*args: Any) -> Any:
        closing, *rest = done(*args)
        return [*rest, closing]

    with replaced((answering, "done", told_first)):
        yield


@bug(1, says="taken, though it is resumed", first=3)
def a_park_is_taken_twice() -> Iterator[None]:
    take = SqliteStore.take_park

    async def take_anyway(store: Any, *args: Any) -> bool:
        await take(store, *args)
        return True

    with replaced((SqliteStore, "take_park", take_anyway)):
        yield


@bug(1, says="left running by a server")
def a_cancellation_tears_the_write_of_an_outcome() -> Iterator[None]:
    async def unshielded(write: Any) -> None:
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            write.close()
            raise
        await write

    with replaced((journal_module, "_durably", unshielded), (Driver, "_settle", _settle_unshielded)):
        yield


async def _settle_unshielded(driver: Any) -> None:
    if not driver.over:
        driver._due.extend(driver.effects_of(driver.ending.event(driver.turn)))
    await driver._performer.record_rest(driver._due)


# --- 2: nothing left ----------------------------------------------------------------------------------


@bug(2, says="was open when")
def the_upstream_stays_open_when_the_client_leaves() -> Iterator[None]:
    kept: list[Any] = []  # or the collector would close what nobody holds

    def keep(connection: Any) -> None:
        kept.append(connection)

    with replaced((Connection, "close", keep)):
        yield


@bug(2, says="was open when")
def a_client_that_leaves_is_not_noticed() -> Iterator[None]:
    def look_away(connection: Any) -> None:
        del connection

    async def run_to_the_end(driver: Any, call: Any, app: Any, scope: Any) -> None:
        with trio.CancelScope(shield=True):
            await run_app(driver, call, app, scope)

    run_app = ServerConnection._run_app
    with replaced(
        (ServerConnection, "_cancel_calls", look_away), (ServerConnection, "_run_app", run_to_the_end)
    ):
        yield


@bug(2, 1, says="tasks are left")
def the_timers_run_on_after_the_turn() -> Iterator[None]:
    run = Timers.run

    async def run_on(timers: Any, fire: Any) -> None:
        with trio.CancelScope(shield=True):
            with trio.move_on_after(60):
                await run(timers, fire)
        await trio.sleep_forever()

    with replaced((Timers, "run", run_on)):
        yield


@bug(2, says="s to end (shutdown)", first=3)
def a_shutdown_waits_for_clients_without_a_limit() -> Iterator[None]:
    drain = _Server.drain

    async def patient(server: Any, grace: float, *rest: Any) -> None:
        await drain(server, grace + 30, *rest)

    with replaced((_Server, "drain", patient)):
        yield


@bug(0, says="the transport is closed")
def a_reload_closes_the_providers_of_turns_that_run() -> Iterator[None]:
    async def at_once(generations: Any, generation: Any) -> None:
        await generation.setup.close()
        del generations._retired[generation]

    with replaced((Generations, "_retire", at_once)):
        yield


# --- 3: an end that is one ----------------------------------------------------------------------------


@bug(3, says="an event after the terminal one")
def the_terminal_event_is_doubled() -> Iterator[None]:
    finish = StreamSink._finish

    def twice(sink: Any, reason: Any, output: Any) -> bytes:
        data = finish(sink, reason, output)
        return data + DONE + data

    with replaced((StreamSink, "_finish", twice)):
        yield


@bug(3, says="finished as stop, but its upstream", first=20)
def a_truncated_stream_is_finished_as_stop() -> Iterator[None]:
    conclude = ChatDecoder._conclude

    def conclude_anyway(decoder: Any, out: Any) -> None:
        decoder._finish = decoder._finish or "stop"
        conclude(decoder, out)

    with replaced((ChatDecoder, "_conclude", conclude_anyway)):
        yield


@bug(3, says="the connection was closed without an answer", first=3)
def a_shutdown_cuts_streams_without_a_word() -> Iterator[None]:
    async def say_nothing(agent: Any, reason: str = "shutdown") -> None:
        del agent, reason

    with replaced((Agent, "stop_turns", say_nothing)):
        yield


@bug(3, says="without a keepalive")
def no_keepalives_are_sent() -> Iterator[None]:
    set_timer = Timers.set

    def set_others(timers: Any, timer: ev.Timer, seconds: float) -> None:
        if timer is not ev.Timer.KEEPALIVE:
            set_timer(timers, timer, seconds)

    with replaced((Timers, "set", set_others)):
        yield


@bug(3, says="without a keepalive", first=13)
def invisible_outputs_put_keepalives_off() -> Iterator[None]:
    """Found by the simulator: what a wire does not show was taken for something that the client has heard."""
    with replaced((perform, "UNHEARD", frozenset())):
        yield
