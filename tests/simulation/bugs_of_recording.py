"""Deliberate bugs of the recorder and the player: what is written down plays differently."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import trio
from simulation.kernel import replaced
from simulation.mutation import bug

from trio_agent.recording.context import TracedContext
from trio_agent.replay import client
from trio_agent.replay.client import body_of
from trio_agent.replay.stage import Stage


@bug(7, says="plays differently", first=75)
def an_upstream_answers_amid_what_the_turn_does() -> Iterator[None]:
    """The head of an answer stands where it came, between two writes of one batch."""

    def at_once(context: Any, line: Any, size: int = 200) -> None:
        context.trace.add(line, size)

    with replaced((TracedContext, "note_aside", at_once)):
        yield


@bug(7, says="plays differently", first=50)
def a_replay_calls_at_once() -> Iterator[None]:
    """The next model call is made before the timer that the file has in between."""

    async def at_once(stage: Any) -> None:
        del stage
        await trio.lowlevel.checkpoint()

    with replaced((Stage, "call_turn", at_once)):
        yield


@bug(7, says="plays differently")
def a_request_is_read_as_values() -> Iterator[None]:
    """What a client gave back of a call's arguments is sent to the next model in another spelling."""

    def respelled(line: Any) -> bytes:
        return msgspec.json.encode(msgspec.json.decode(body_of(line)))

    with replaced((client, "body_of", respelled)):
        yield
