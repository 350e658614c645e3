"""Deliberate bugs in what is kept of answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import trio
from simulation.kernel import replaced
from simulation.mutation import bug

from trio_agent.event_log import LiveLog
from trio_agent.faces.idempotency import KeyKeeper
from trio_agent.faces.responses_keeper import ResponseKeeper
from trio_agent.faces.responses_sinks import ResumedStream
from trio_agent.store.kept import Keeping
from trio_agent.store.sqlite import SqliteStore
from trio_agent.turn.keeper import joined


@bug(8, says="was told, and is 404")
def an_answer_is_told_and_not_kept() -> Iterator[None]:
    closing = ResponseKeeper.closing

    def forgetful(keeper: Any, *args: Any, **more: Any) -> Any:
        keeping = closing(keeper, *args, **more)
        if keeping.answer is None or keeping.answer.status != "incomplete":
            return keeping
        return msgspec.structs.replace(keeping, answer=None, items=(), forget_answer=keeping.answer.id)

    with replaced((ResponseKeeper, "closing", forgetful)):
        yield


@bug(8, says="is another one when it is read again")
def an_answer_is_kept_without_its_usage() -> Iterator[None]:
    closing = ResponseKeeper.closing

    def unbilled(keeper: Any, *args: Any, **more: Any) -> Any:
        keeping = closing(keeper, *args, **more)
        if keeping.answer is None:
            return keeping
        body = keeping.answer.body.replace(b'"total_tokens":1', b'"total_tokens":2')
        return msgspec.structs.replace(keeping, answer=msgspec.structs.replace(keeping.answer, body=body))

    with replaced((ResponseKeeper, "closing", unbilled)):
        yield


@bug(8, says="streams other events after number")
def a_stream_goes_on_one_event_late() -> Iterator[None]:
    begin = ResumedStream.__init__

    def begin_late(stream: Any, send: Any, style: Any, *, after: int = -1) -> None:
        begin(stream, send, style, after=after + 1)

    with replaced((ResumedStream, "__init__", begin_late)):
        yield


@bug(8, says="streams other events after number")
def a_keepalive_is_not_in_the_log() -> Iterator[None]:
    append = LiveLog.append

    def append_content(log: Any, outputs: Any) -> None:
        if type(outputs[-1]).__name__ != "SendKeepalive":
            append(log, outputs)

    with replaced((LiveLog, "append", append_content)):
        yield


@bug(8, says="is missing in its conversation")
def a_chain_has_no_beginning() -> Iterator[None]:
    get_chain = SqliteStore.get_chain

    async def get_end(store: Any, owner: str, answer_id: str, **limits: Any) -> Any:
        return (await get_chain(store, owner, answer_id, **limits))[-1:]

    with replaced((SqliteStore, "get_chain", get_end)):
        yield


@bug(8, says=("while another one ran", "was answered by 2 turns"))
def everyone_takes_the_key() -> Iterator[None]:
    async def take(store: Any, row: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return row

    with replaced((SqliteStore, "claim_key", take)):
        yield


@bug(8, says=("though the key of", "was answered by 2 turns"))
def a_whole_answer_is_forgotten() -> Iterator[None]:
    def forget(keeper: Any, turn: Any, row: Any, rest: Any, *, parked: bool) -> Any:
        inner = keeper._inner
        theirs = None if inner is None else inner.closing(turn, row, rest, parked=parked)
        return joined(theirs, Keeping(forget_key=keeper._row))

    with replaced((KeyKeeper, "closing", forget)):
        yield


@bug(2, says="was open when all had left")
def a_turn_with_a_key_runs_on_without_readers() -> Iterator[None]:
    def part(log: Any) -> None:
        log.readers -= 1

    with replaced((LiveLog, "part", part)):
        yield
