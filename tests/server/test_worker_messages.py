"""What workers and their supervisor say to each other: frames, and questions that never wait for the dead."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from trio_agent.peers import Alone, Answer
from trio_agent.server.options import ServeOptions
from trio_agent.server.workers.channel import Channel
from trio_agent.server.workers.framing import MAX_FRAME_BYTES, FrameError, FrameReader, frame
from trio_agent.server.workers.messages import (
    Ask,
    Gone,
    Replies,
    Reply,
    Serve,
    Start,
    Stop,
    ToSupervisor,
    ToWorker,
    decode_to_supervisor,
    decode_to_worker,
    encode,
)
from trio_agent.server.workers.peers import ANSWER_SECONDS, ASK_SECONDS, WorkerPeers
from trio_agent.server.workers.relay import Relay
from trio_agent.server.workers.worker import Worker


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(1, 20)))
def test_frames_come_out_as_they_went_in(payloads: list[bytes], sizes: list[int]) -> None:
    """Whatever the pieces in which the bytes come."""
    stream = b"".join(map(frame, payloads))
    reader, found = FrameReader(), []
    for size in [*sizes, len(stream)]:
        found += reader.feed(stream[:size])
        stream = stream[size:]
    assert found == payloads
    assert reader.between


def test_a_frame_has_a_longest_length() -> None:
    """On both sides: nothing is collected for a message that is announced to be longer."""
    with pytest.raises(FrameError):
        frame(bytes(MAX_FRAME_BYTES + 1))
    with pytest.raises(FrameError):
        FrameReader().feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))


@pytest.mark.parametrize(
    "message",
    [
        Start(number=2, count=3, options=ServeOptions(api_key="k"), config=b"{}", version=1, listeners=(5,)),
        Stop(at_once=True),
        Replies(1, (b"a", b"")),
        Gone("1-20"),
        Ask(7, "metrics", b"\xff"),
    ],
)
def test_messages_to_workers_survive_the_wire(message: ToWorker) -> None:
    """What is decoded is what was said."""
    assert decode_to_worker(encode(message)) == message


def test_a_start_is_not_shown_with_its_key() -> None:
    """Neither the command line's key nor the configuration stands in a log by accident."""
    options = ServeOptions(api_key="secret")
    shown = repr(Start(number=1, count=1, options=options, config=b"secret", version=1))
    assert "secret" not in shown


class Place(Worker):
    """A worker in this process: its channel, and what it sees of the others."""

    def __init__(self, number: int, count: int, relay: Relay, nursery: trio.Nursery) -> None:
        start = Start(number=number, count=count, options=ServeOptions(), config=b"", version=1)
        super().__init__(start, (), self._pass_on)
        ours, theirs = socket.socketpair()
        self.relay = relay
        self.here = Channel[ToSupervisor](ours, decode_to_supervisor)
        self._channel = self.here
        self.there = Channel[ToWorker](theirs, decode_to_worker)
        self.peers = WorkerPeers(self.there, number=number, count=count, name=f"{number}-1", nursery=nursery)
        for task in (self.here.write, self.there.write, self._hear, self._obey):
            nursery.start_soon(task)
        self.hangs = trio.Event()

    @staticmethod
    def _pass_on(worker: Worker, message: ToSupervisor) -> None:
        assert isinstance(worker, Place)
        if isinstance(message, Ask):
            worker.relay.asked(worker, message)
        elif isinstance(message, Reply):
            worker.relay.replied(worker, message)

    async def _hear(self) -> None:
        while (message := await self.here.receive()) is not None:
            self._heard(self, message)

    async def _obey(self) -> None:
        while (message := await self.there.receive()) is not None:
            if self.hangs.is_set():
                await trio.sleep_forever()
            if isinstance(message, Ask):
                self.peers.asked(message)
            elif isinstance(message, Replies):
                self.peers.replied(message)
            elif isinstance(message, Gone):
                self.peers.went(message)


@asynccontextmanager
async def places(count: int) -> AsyncIterator[list[Place]]:
    """So many workers, as their supervisor connects them."""
    async with trio.open_nursery() as nursery:
        found: list[Place] = []
        relay = Relay(lambda: found, nursery)
        found += [Place(number, count, relay, nursery) for number in range(1, count + 1)]
        for place in found:
            place.peers.on("number", answering(str(place.number).encode()))
        yield found
        nursery.cancel_scope.cancel()
        for place in found:
            place.here.close()
            place.there.close()


def answering(answer: bytes | None) -> Answer:
    async def say(payload: bytes) -> bytes | None:
        await trio.lowlevel.checkpoint()
        return None if answer is None else answer + payload

    return say


async def test_all_others_are_asked(autojump_clock: MockClock) -> None:
    """Each answers with what it was asked; the asker does not ask itself; nobody knows another question."""
    async with places(3) as (one, _, _):
        began = trio.current_time()
        assert sorted(await one.peers.ask("number", b"!")) == [b"2!", b"3!"]
        assert await one.peers.ask("weather") == []
        assert trio.current_time() == began


async def test_who_does_not_answer_is_not_waited_for(autojump_clock: MockClock) -> None:
    """One that is slow, and one that hangs altogether: the others' answers come when the time is over."""
    async with places(4) as (one, two, three, _):
        two.peers.on("number", slow)
        three.hangs.set()
        began = trio.current_time()
        assert await one.peers.ask("number") == [b"4"]
        assert trio.current_time() - began == ANSWER_SECONDS


async def slow(payload: bytes) -> bytes | None:
    await trio.sleep(2 * ANSWER_SECONDS)
    return payload


async def test_a_supervisor_that_hangs_holds_nobody_up(autojump_clock: MockClock) -> None:
    """More questions at once than may wait for an answer: all of them end in the time for one."""
    async with places(2) as (one, _):
        one.hangs.set()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(one.peers.ask, "number")
        assert trio.current_time() - began == ASK_SECONDS


async def test_an_answer_that_fails_or_is_too_long_is_none(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged where it was to be made, and the others' come."""
    async with places(4) as (one, two, three, _):
        two.peers.on("number", failing)
        three.peers.on("number", answering(bytes(MAX_FRAME_BYTES // 4)))
        assert await one.peers.ask("number") == [b"4"]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


async def failing(payload: bytes) -> bytes | None:
    raise RuntimeError("no")


async def test_who_dies_is_not_waited_for(autojump_clock: MockClock) -> None:
    """The question to it is over in the moment in which it has gone."""
    async with places(3) as (one, two, _):
        two.hangs.set()
        async with trio.open_nursery() as nursery:
            began = trio.current_time()

            async def die() -> None:
                await trio.sleep(0.25)
                one.relay.went(two)

            nursery.start_soon(die)
            assert await one.peers.ask("number") == [b"3"]
            assert trio.current_time() - began == 0.25


async def test_telling_waits_for_nobody(autojump_clock: MockClock) -> None:
    """The others hear it, and that one of them has gone."""
    heard: list[bytes] = []

    async def hear(payload: bytes) -> None:
        heard.append(payload)

    async with places(3) as (one, two, three):
        for place in (one, two, three):
            place.peers.on("news", hear)
            place.peers.on_gone(lambda name: heard.append(name.encode()))
        one.peers.tell("news", b"x")
        await trio.sleep(0.1)
        assert heard == [b"x", b"x"]
        two.post(Gone("3-1"))
        await trio.sleep(0.1)
        assert heard[2:] == [b"3-1"]


async def test_alone_nobody_answers() -> None:
    """A process that serves by itself asks in vain, and at once."""
    alone = Alone()
    alone.on("number", answering(b"1"))
    alone.tell("number")
    assert await alone.ask("number") == []


def test_what_is_no_message_is_refused() -> None:
    """A process of another version, or something else at the end of the socket."""
    with pytest.raises(msgspec.DecodeError):
        decode_to_supervisor(encode(Serve()))
